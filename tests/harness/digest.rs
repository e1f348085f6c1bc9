//! RFC 7616 by hand: credentials of which every part can be wrong, and what the daemon's answer must prove.

use data_encoding::HEXLOWER;
use ltkmd::digest::password;
use sha2::Digest as _;

use super::http::Reply;
use super::terminal::Terminal;

/// What an `Authorization` is made of. Change any part, then take the [`header`](Self::header).
#[derive(Debug, Clone)]
pub struct Digest {
    pub username: String,
    pub password: Vec<u8>,
    pub realm: String,
    pub nonce: String,
    pub uri: String,
    pub algorithm: &'static str,
    pub qop: &'static str,
    pub nc: String,
    pub cnonce: String,
}

impl Digest {
    /// A terminal's right credentials for a procedure: SHA-256, auth-int, count 1.
    pub fn new(terminal: &Terminal, request_type: &str, nonce: &str) -> Self {
        Self {
            username: terminal.btid.clone(),
            password: password(&terminal.mrk).to_vec(),
            realm: format!("3GPP-bootstrapping@{}", super::FQDN),
            nonce: nonce.to_owned(),
            uri: super::terminal::target(request_type),
            algorithm: "SHA-256",
            qop: "auth-int",
            nc: "00000001".to_owned(),
            cnonce: "6d8f".to_owned(),
        }
    }

    /// The same with another count.
    pub fn count(&self, nc: u32) -> Self {
        Self { nc: format!("{nc:08x}"), ..self.clone() }
    }

    fn hash(&self, text: &[u8]) -> String {
        match self.algorithm {
            "SHA-256" => HEXLOWER.encode(&sha2::Sha256::digest(text)),
            _ => HEXLOWER.encode(&md5::Md5::digest(text)),
        }
    }

    /// The response to a request with this method and body; with an empty method the rspauth of an answer.
    pub fn response(&self, method: &str, body: &[u8]) -> String {
        let Self { username, realm, nonce, nc, cnonce, qop, uri, .. } = self;
        let a1 = self.hash(&[format!("{username}:{realm}:").as_bytes(), &self.password].concat());
        let a2 = match *qop {
            "auth-int" => format!("{method}:{uri}:{}", self.hash(body)),
            _ => format!("{method}:{uri}"),
        };
        self.hash(format!("{a1}:{nonce}:{nc}:{cnonce}:{qop}:{}", self.hash(a2.as_bytes())).as_bytes())
    }

    /// The value of `Authorization` for a POST of this body.
    pub fn header(&self, body: &[u8]) -> String {
        let Self { username, realm, nonce, uri, algorithm, qop, nc, cnonce, .. } = self;
        let response = self.response("POST", body);
        format!(
            "Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm={algorithm}, qop={qop}, nc={nc}, cnonce=\"{cnonce}\", response=\"{response}\""
        )
    }

    /// Checks the `Authentication-Info` of an answer; gives its nextnonce.
    pub fn prove(&self, reply: &Reply) -> Option<String> {
        let info = reply.header("authentication-info").expect("Authentication-Info");
        let parameter = |name| parameter(info, name);
        assert_eq!(parameter("rspauth"), Some(self.response("", &reply.body)), "{info}");
        assert_eq!(parameter("qop").as_deref(), Some(self.qop));
        assert_eq!(parameter("nc").as_deref(), Some(self.nc.as_str()));
        assert_eq!(parameter("cnonce").as_deref(), Some(self.cnonce.as_str()));
        parameter("nextnonce")
    }
}

/// A parameter of a challenge or of `Authentication-Info`, without its quotes.
pub fn parameter(value: &str, name: &str) -> Option<String> {
    let mut quoted = false;
    let value = value.strip_prefix("Digest ").unwrap_or(value);
    let pairs = value.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value.trim_matches('"').to_owned())
}

/// The nonce of a 401.
pub fn nonce(reply: &Reply) -> String {
    assert_eq!(reply.status, 401, "{}", reply.text());
    parameter(reply.header("www-authenticate").expect("a challenge"), "nonce").expect("a nonce")
}
