//! The certificate and key of the terminal-facing listener.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ServerConfig};

use super::reader::Reader;
use super::secrets::{mode_warning, read_bounded};
use super::value;

/// The longest certificate or key file, in octets.
const MAX_PEM: u64 = 1 << 20;

const CERTIFICATE: &str = "http.tls.certificate";
const KEY: &str = "http.tls.key";

/// `[http.tls]`: a certificate and its key, loaded and found to match. Debug shows the paths alone.
#[derive(Clone)]
pub struct Tls {
    /// The certificate chain's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
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
    let chain = certificate.as_deref().map(|path| read_chain(reader, path));
    let signer = key.as_deref().map(|path| read_key(reader, path));
    let (certificate, key, chain, signer) = (certificate?, key?, chain??, signer??);

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
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(Some(Tls { certificate, key, server: Arc::new(server) }))
}

fn read_chain(reader: &mut Reader, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let octets = match read_bounded(path, MAX_PEM) {
        Ok((octets, _)) => octets,
        Err(e) => {
            reader
                .fault(CERTIFICATE, format!("{} cannot be read ({e}): name a readable file", path.display()));
            return None;
        }
    };
    match CertificateDer::pem_slice_iter(&octets).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Some(chain),
        Ok(_) => {
            reader.fault(CERTIFICATE, format!("{} holds no certificate: give PEM", path.display()));
            None
        }
        Err(e) => {
            reader.fault(CERTIFICATE, format!("{} is no PEM file ({e}): give PEM", path.display()));
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
