//! Where a BM-SC is: its URL, and a client for it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use tokio::net::lookup_host;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::cli::client::{Client, Endpoint, Tls};

/// The longest answer that is read, in octets.
pub const MAX_ANSWER: usize = 16 << 20;

/// The URL of a BM-SC's key management function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path, from its `/` on, without a query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and port as the `Host` header has them.
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }

    /// The host's addresses with this port, at least one.
    ///
    /// # Errors
    /// The name cannot be resolved.
    pub async fn resolve(&self, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = lookup_host((self.host.as_str(), port)).await?.collect();
        if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
    }
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "must be like http://127.0.0.1:8080/keymanagement";
        let (tls, rest) = match text.split_once("://").ok_or(SHAPE)? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return Err("must begin with http:// or https://"),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/keymanagement"),
        };
        if path.contains(['?', '#']) {
            return Err("must have no query: the request type is added to it");
        }
        if !path.bytes().all(|octet| octet.is_ascii_graphic()) || authority.contains('@') {
            return Err(SHAPE);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(SHAPE)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| SHAPE)?;
                (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")).ok_or(SHAPE)?)
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        let port = match port {
            "" => {
                if tls {
                    443
                } else {
                    80
                }
            }
            port => port.parse().ok().filter(|port| *port > 0).ok_or("has no port from 1 to 65535")?,
        };
        if host.is_empty() || !host.bytes().all(|o| o.is_ascii_alphanumeric() || b".-_:".contains(&o)) {
            return Err(SHAPE);
        }
        Ok(Self { tls, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// A client of the BM-SC at `url`, from the address `source`, if any. `ca` is the PEM file of the certificates that an
/// `https` server's certificate has to come from.
///
/// # Errors
/// What is missing or cannot be read, and what to do.
pub fn client(url: &Url, source: Option<IpAddr>, ca: Option<&Path>) -> Result<Client, String> {
    let mut client = Client::new(Endpoint::Tcp { host: url.host.clone(), port: url.port });
    client.local = source;
    client.max_body = MAX_ANSWER;
    client.tls = match (url.tls, ca) {
        (false, _) => None,
        (true, None) => return Err("https needs the authority's certificate: give --ca FILE".to_owned()),
        (true, Some(ca)) => Some(Tls { connector: tls(ca)?, name: server_name(url)? }),
    };
    Ok(client)
}

fn tls(ca: &Path) -> Result<TlsConnector, String> {
    let told = |e: &dyn fmt::Display| format!("--ca {}: {e}: give a PEM file of certificates", ca.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| told(&e))? {
        roots.add(certificate.map_err(|e| told(&e))?).map_err(|e| told(&e))?;
    }
    if roots.is_empty() {
        return Err(told(&"it has no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| told(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn server_name(url: &Url) -> Result<ServerName<'static>, String> {
    ServerName::try_from(url.host.clone())
        .map_err(|e| format!("{}: {e}: give a host name or address", url.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_url_is_read_and_printed() {
        for (text, authority, host, path) in [
            ("http://127.0.0.1:8080/keymanagement", "127.0.0.1:8080", "127.0.0.1", "/keymanagement"),
            ("http://bmsc.example.com/km", "bmsc.example.com", "bmsc.example.com", "/km"),
            ("https://bmsc.example.com:443/km", "bmsc.example.com", "bmsc.example.com", "/km"),
            ("http://[::1]:8080/km", "[::1]:8080", "::1", "/km"),
            ("https://[2001:db8::1]/", "[2001:db8::1]", "2001:db8::1", "/"),
        ] {
            let url = url(text);
            assert_eq!((url.authority().as_str(), url.host(), url.path()), (authority, host, path));
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        assert_eq!(url("http://127.0.0.1:8080").path(), "/keymanagement");
    }

    #[test]
    fn what_is_no_url_of_a_bm_sc_is_refused() {
        for text in [
            "",
            "127.0.0.1:8080",
            "ftp://a/b",
            "http:///b",
            "http://a:0/b",
            "http://a:65536/b",
            "http://a:x/b",
            "http://a/b?requesttype=register",
            "http://u@a/b",
            "http://[::1/b",
            "http://[::g]/b",
            "http://[::1]x/b",
            "http://a b/c",
            "http://a/b c",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
