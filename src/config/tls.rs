//! The certificate and key of the terminal-facing listener, and who vouches for short message centres.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

use sha2::{Digest, Sha256};

use super::certificate::not_after;
use super::reader::Reader;
use super::secrets::{mode_warning, read_bounded};
use super::value;
use crate::time::Timestamp;

/// The longest certificate or key file, in octets.
const MAX_PEM: u64 = 1 << 20;

const CERTIFICATE: &str = "http.tls.certificate";
const KEY: &str = "http.tls.key";
const AUTHORITIES: &str = "sms.tls_ca";

/// Where systems keep the authorities they trust: Debian and its kin, Fedora and its kin, SUSE, Alpine.
pub(super) const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// `[http.tls]`: a certificate and its key, loaded and found to match. Debug shows the paths alone.
#[derive(Clone)]
pub struct Tls {
    /// The certificate chain's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
    /// When the first certificate of the chain ends; `None` when none of them tells.
    pub expires: Option<Timestamp>,
    /// What an acceptor needs: TLS 1.2 and 1.3, no client certificates, ALPN `http/1.1`.
    pub server: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Reads `[http.tls]`. `None` when a fault was noted, `Some(None)` without the table.
pub(super) fn tls(reader: &mut Reader) -> Option<Option<Tls>> {
    if !reader.has_table("http.tls") {
        return Some(None);
    }
    for (path, other) in [(CERTIFICATE, "key"), (KEY, "certificate")] {
        if !reader.has(path) {
            reader.missing(path, &format!("TLS needs it beside http.tls.{other}"));
        }
    }
    // Both are read before a fault of either ends this, so that the faults of both are told.
    let certificate = reader.optional(CERTIFICATE, value::path).flatten();
    let key = reader.optional(KEY, value::path).flatten();
    let chain = certificate.as_deref().map(|path| read_chain(reader, CERTIFICATE, path));
    let signer = key.as_deref().map(|path| read_key(reader, path));
    let (certificate, key, chain, signer) = (certificate?, key?, chain??, signer??);

    let expires = chain.iter().filter_map(|c| not_after(c)).min();
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        // Unknown: a kind of key that does not tell its public half; the handshake will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            reader.fault(KEY, "is not the key of the certificate: name the two files that belong together");
            return None;
        }
        Err(e) => {
            reader.fault(CERTIFICATE, format!("the file holds no usable certificate ({e}): name another"));
            return None;
        }
    }
    if let Some(expires) = expires.filter(|end| *end <= Timestamp::now()) {
        let place = reader.place(CERTIFICATE);
        let what = format!("a certificate of the file ended on {expires}, and terminals refuse it: renew it");
        reader.warn_at(place, CERTIFICATE, what);
    }
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(Some(Tls { certificate, key, expires, server: Arc::new(server) }))
}

fn read_chain(reader: &mut Reader, key: &'static str, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let octets = match read_bounded(path, MAX_PEM) {
        Ok((octets, _)) => octets,
        Err(e) => {
            reader.fault(key, format!("{} cannot be read ({e}): name a readable file", path.display()));
            return None;
        }
    };
    match CertificateDer::pem_slice_iter(&octets).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Some(chain),
        Ok(_) => {
            reader.fault(key, format!("{} holds no certificate: give PEM", path.display()));
            None
        }
        Err(e) => {
            reader.fault(key, format!("{} is no PEM file ({e}): give PEM", path.display()));
            None
        }
    }
}

fn read_key(reader: &mut Reader, path: &Path) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let (octets, mode) = match read_bounded(path, MAX_PEM) {
        Ok(read) => read,
        Err(e) => {
            reader.fault(KEY, format!("{} cannot be read ({e}): name a readable file", path.display()));
            return None;
        }
    };
    if let Some(warning) = mode_warning(mode) {
        let place = reader.place(KEY);
        reader.warn_at(place, KEY, warning);
    }
    // What is wrong inside a private key is not repeated.
    let Ok(key) = PrivateKeyDer::from_pem_slice(&octets) else {
        reader.fault(KEY, format!("{} holds no private key: give PEM, not encrypted", path.display()));
        return None;
    };
    match ring::default_provider().key_provider.load_private_key(key) {
        Ok(signer) => Some(signer),
        Err(_) => {
            let what =
                "holds a private key of no use here: give RSA of 2048 bits or more, P-256, P-384 or Ed25519";
            reader.fault(KEY, format!("{} {what}", path.display()));
            None
        }
    }
}

/// The authorities that a short message centre's certificate must come from. Debug shows the file's path alone.
#[derive(Clone)]
pub struct Authorities {
    /// Their file.
    pub file: PathBuf,
    /// What a connector needs: TLS 1.2 and 1.3, no client certificate.
    pub client: Arc<ClientConfig>,
    /// SHA-256 of the certificates.
    fingerprint: [u8; 32],
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("file", &self.file).finish_non_exhaustive()
    }
}

impl PartialEq for Authorities {
    /// The same certificates, wherever they came from.
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Authorities {}

/// Reads `sms.tls_ca`, or the system's authorities when there is no such key and a centre needs them. `None` when
/// a fault was noted, `Some(None)` when nobody needs them.
pub(super) fn authorities(reader: &mut Reader, needed: bool) -> Option<Option<Authorities>> {
    let given = reader.optional(AUTHORITIES, value::path)?;
    let file = match given {
        Some(file) => file,
        None if !needed => return Some(None),
        None => match SYSTEM_AUTHORITIES.iter().map(Path::new).find(|p| p.is_file()) {
            Some(file) => file.to_owned(),
            None => {
                let what =
                    "an smpps:// centre needs them, and this system has none of its own: name a PEM file";
                reader.missing(AUTHORITIES, what);
                return None;
            }
        },
    };
    let certificates = read_chain(reader, AUTHORITIES, &file)?;
    let mut fingerprint = Sha256::new();
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        fingerprint.update(&certificate);
        // A system's bundle may hold what this library does not take; a file that was given must be right.
        if let Err(e) = roots.add(certificate)
            && reader.has(AUTHORITIES)
        {
            let what = format!("{} holds an unusable certificate ({e}): name another", file.display());
            reader.fault(AUTHORITIES, what);
            return None;
        }
    }
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(Some(Authorities { file, client: Arc::new(client), fingerprint: fingerprint.finalize().into() }))
}
