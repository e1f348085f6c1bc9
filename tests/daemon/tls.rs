//! HTTPS: a certificate that the test makes, and another one while the daemon runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

use crate::harness::digest::{Digest, nonce};
use crate::harness::http::{Connection, Reply};
use crate::harness::terminal::{Terminal, media_type, registration, target};
use crate::harness::{Daemon, FQDN, PATIENCE, write_secret};

const HTTP: Option<&[u8]> = Some(&[2]);

/// 2070-01-01T00:00:00Z, at which the first certificate ends.
const ENDS_FIRST: f64 = 3_155_760_000.0;

/// Puts a new certificate, which is valid until the year, and its key into the directory.
fn certify(dir: &Path, until: i32) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new([FQDN.to_owned()]).expect("a name");
    parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
    let made = parameters.self_signed(&key).expect("a certificate");
    std::fs::write(dir.join("certificate.pem"), made.pem()).expect("written");
    write_secret(&dir.join("key.pem"), &key.serialize_pem());
    made.der().clone()
}

/// A client that trusts this certificate alone.
struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn connect(daemon: &Daemon, trusted: &CertificateDer<'static>) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(FQDN).expect("a name");
        let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
        let mut stream = TcpStream::connect(daemon.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(session, stream)))
    }

    fn post(&mut self, authorization: Option<&str>, body: &str) -> Reply {
        let mut head = format!("POST {} HTTP/1.1\r\nHost: {FQDN}\r\n", target("register"));
        head += &format!("Content-Type: {}\r\nContent-Length: {}\r\n", media_type("register"), body.len());
        if let Some(authorization) = authorization {
            head += &format!("Authorization: {authorization}\r\n");
        }
        self.0.write_all(format!("{head}\r\n{body}").as_bytes()).expect("sent");
        let mut octets = Vec::new();
        let end = loop {
            let mut chunk = [0; 1];
            self.0.read_exact(&mut chunk).expect("a head");
            octets.extend(chunk);
            if octets.ends_with(b"\r\n\r\n") {
                break octets.len();
            }
        };
        let head = String::from_utf8_lossy(&octets[..end]).into_owned();
        let headers: Vec<_> = head
            .lines()
            .skip(1)
            .filter_map(|l| l.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())))
            .collect();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let mut reply = Reply { status, headers, body: Vec::new() };
        let len = reply.header("content-length").and_then(|l| l.parse().ok()).expect("a length");
        reply.body = vec![0; len];
        self.0.read_exact(&mut reply.body).expect("a body");
        reply
    }

    /// Registers; the digest has to be proved.
    fn register(&mut self, terminal: &Terminal) {
        let body = registration(&["urn:s"], HTTP);
        let digest = Digest::new(terminal, "register", &nonce(&self.post(None, "")));
        let reply = self.post(Some(&digest.header(body.as_bytes())), &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        digest.prove(&reply);
        assert!(reply.text().contains("<bcast:LTKM>"));
    }
}

fn secured(overrides: &str) -> (Daemon, CertificateDer<'static>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let certificate = certify(dir.path(), 2070);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let tls =
        format!("http.tls = {{ certificate = \"{}\", key = \"{}\" }}", at("certificate.pem"), at("key.pem"));
    let daemon = Daemon::start_with(&format!("{overrides}\n{tls}"));
    daemon.put_service("urn:s", 1, json!({}));
    (daemon, certificate, dir)
}

#[test]
fn terminals_register_over_https_and_a_new_certificate_is_taken_on_sighup() {
    let (mut daemon, first, dir) = secured("");
    let terminal = Terminal::provision(&daemon, &[]);
    let mut before = Client::connect(&daemon, &first).expect("a session");
    before.register(&terminal);
    let second = certify(dir.path(), 2080);
    Client::connect(&daemon, &first).expect("not taken before it is told");
    let ends = daemon.metric("ltkmd_tls_certificate_expires_timestamp_seconds");
    assert_eq!(ends, ENDS_FIRST);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.await_log("configuration read again");
    assert!(Client::connect(&daemon, &first).is_err(), "the old certificate is gone");
    assert!(daemon.metric("ltkmd_tls_certificate_expires_timestamp_seconds") > ends);
    Client::connect(&daemon, &second).expect("a session").register(&terminal);
    before.register(&terminal);

    // A key that does not belong to the certificate changes nothing.
    write_secret(&dir.path().join("key.pem"), "no key");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.await_log("nothing was changed");
    Client::connect(&daemon, &second).expect("a session").register(&terminal);
}

#[test]
fn plain_http_to_the_port_of_https_is_closed() {
    let (daemon, certificate, _dir) = secured("http.request_timeout = \"500ms\"");
    let mut plain = Connection::open(daemon.http);
    plain.send(b"POST /keymanagement?requesttype=register HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let answer = plain.rest();
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    let mut silent = Connection::open(daemon.http);
    assert_eq!(silent.rest(), "", "a handshake that does not begin ends in time");
    Client::connect(&daemon, &certificate).expect("a session");
    daemon.await_metric("ltkmd_http_connections", 0.0);
}

#[test]
fn tls_is_not_turned_off_while_the_daemon_runs() {
    let (mut daemon, certificate, _dir) = secured("");
    let text = std::fs::read_to_string(daemon.config_path()).expect("the configuration");
    let mut settings: toml::Table = toml::from_str(&text).expect("TOML");
    settings["http"].as_table_mut().expect("a table").remove("tls").expect("it was there");
    std::fs::write(daemon.config_path(), settings.to_string()).expect("written");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.await_log("configuration read again");
    Client::connect(&daemon, &certificate).expect("still HTTPS");
    assert!(daemon.logged.iter().any(|l| l.contains("http.tls") && l.contains("restart")));
}

#[test]
fn connections_beyond_the_limit_are_told_so_over_tls_too() {
    let (daemon, certificate, _dir) = secured("http.max_connections = 1");
    let mut first = Client::connect(&daemon, &certificate).expect("a session");
    assert_eq!(first.post(None, "").status, 401);
    let mut second = Client::connect(&daemon, &certificate).expect("a session");
    let mut answer = String::new();
    second.0.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After"), "{answer}");
}
