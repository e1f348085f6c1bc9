//! TLS towards a PostgreSQL server, by rustls, with the channel binding that SCRAM asks for (RFC 5929 §4).

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, WantsVerifier,
};

/// The longest file of authorities, in octets.
const MAX_PEM: u64 = 1 << 20;

/// The authorities of a PEM file.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence that names the key.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let shown = file.display();
    let octets =
        read_file(file).map_err(|e| format!("{shown} cannot be read ({e}): name a readable file"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&octets) {
        let certificate =
            certificate.map_err(|e| format!("{shown} is no PEM file ({e}): give the authority's as PEM"))?;
        roots
            .add(certificate)
            .map_err(|e| format!("{shown} holds an unusable certificate ({e}): name another"))?;
    }
    match roots.is_empty() {
        false => Ok(roots),
        true => Err(format!("{shown} holds no certificate: give the authority's as PEM")),
    }
}

fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut octets = Vec::new();
    File::open(file)?.take(MAX_PEM + 1).read_to_end(&mut octets)?;
    match octets.len() as u64 > MAX_PEM {
        false => Ok(octets),
        true => Err(io::Error::other(format!("longer than {MAX_PEM} octets"))),
    }
}

/// What makes connections to servers TLS.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Takes certificates that come from these authorities and name the host.
    pub(super) fn verifying(roots: RootCertStore) -> Self {
        Self(Arc::new(builder().with_root_certificates(roots).with_no_client_auth()))
    }

    /// Takes any certificate.
    pub(super) fn trusting() -> Self {
        let anybody = Arc::new(Anybody(Arc::new(ring::default_provider())));
        let config = builder().dangerous().with_custom_certificate_verifier(anybody);
        Self(Arc::new(config.with_no_client_auth()))
    }
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
}

/// Takes every certificate of whoever can sign with its key: for `sslmode=require`, which asks for no more.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsFault {
    /// The connection broke off: it may not the next time.
    #[error("{0}")]
    BrokenOff(io::Error),
    /// The two do not agree, and will not.
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for TlsFault {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            // The second is one of the same name with another key.
            Some(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => {
                Self::Refused("its certificate comes from none of the authorities of sslrootcert".to_owned())
            }
            Some(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Self::Refused("its certificate is not for this host name".to_owned()),
            Some(refused) => Self::Refused(refused.to_string()),
            None => Self::BrokenOff(error),
        }
    }
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Protected<S>;
    type TlsConnect = Handshake;
    type Error = TlsFault;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, TlsFault> {
        // A unix socket has no host name, and no TLS either: the name is not looked at.
        let host = if host.is_empty() { "localhost" } else { host };
        let host = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsFault::Refused("no certificate can be for this host name".to_owned()))?;
        Ok(Handshake { config: Arc::clone(&self.0), host })
    }
}

/// A handshake that is still to be made.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    host: ServerName<'static>,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Protected<S>;
    type Error = TlsFault;
    type Future = Pin<Box<dyn Future<Output = Result<Protected<S>, TlsFault>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            Ok(Protected(Box::new(TlsConnector::from(self.config).connect(self.host, stream).await?)))
        })
    }
}

/// A connection in TLS.
pub(super) struct Protected<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Protected<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        match certificate.and_then(|certificate| end_point(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Protected<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Protected<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

/// The hash of a certificate in DER by the hash function of its signature, SHA-256 in place of MD5 and SHA-1
/// (RFC 5929 §4.1). `None` where the signature has no one hash function.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let (signed, _) = value(certificate, 0x30)?;
    let (_, behind) = value(signed, 0x30)?;
    let (algorithm, _) = value(behind, 0x30)?;
    let (name, _) = value(algorithm, 0x06)?;
    let rsa = name.strip_prefix(RSA);
    let ecdsa = name.strip_prefix(ECDSA);
    match (rsa, ecdsa) {
        // md5, sha1 and sha256 with RSA (RFC 8017 §A.2.4); SHA-1 and SHA-256 with ECDSA (RFC 5758 §3.2).
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Some(Sha256::digest(certificate).to_vec()),
        (Some([12]), _) | (_, Some([3, 3])) => Some(Sha384::digest(certificate).to_vec()),
        (Some([13]), _) | (_, Some([3, 4])) => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The octets of the DER value of this tag that comes first, and what follows it (ITU-T X.690 §8.1.3).
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_at_checked(2)?;
    let (len, rest) = match head[1] {
        len @ 0..=0x7f => (usize::from(len), rest),
        n @ 0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(n & 0x7f))?;
            (octets.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    (head[0] == tag).then_some(())?;
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    #[test]
    fn the_end_point_is_the_certificates_hash_by_its_signatures_function() {
        for (algorithm, len) in
            [(&PKCS_ECDSA_P256_SHA256, Some(32)), (&PKCS_ECDSA_P384_SHA384, Some(48)), (&PKCS_ED25519, None)]
        {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
            let bound = end_point(certificate.der());
            assert_eq!(bound.as_ref().map(Vec::len), len);
            if len == Some(32) {
                assert_eq!(bound.expect("one"), Sha256::digest(certificate.der()).to_vec());
            }
            for cut in 0..certificate.der().len().min(64) {
                assert_eq!(end_point(&certificate.der()[..cut]), None, "cut at {cut}");
            }
        }
    }
}
