//! A terminal's side: choose a challenge, answer it, check that the server knows the MRK too.

use super::algorithm::{Algorithm, Exchange, Hex, Qop, ha1};
use super::header::{Cursor, Malformed, challenges, push_quoted};
use crate::id::BTid;

/// What is wrong with the server's side of an exchange; the server is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A header cannot be read.
    #[error("the {header} header cannot be read: {what}")]
    Malformed {
        /// The header's name.
        header: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No challenge that this side can answer: Digest with SHA-256 or MD5 and a qop.
    #[error("no challenge of a Digest algorithm and qop known here")]
    NoChallenge,
    /// `rspauth` is missing or wrong, or it speaks of another request.
    #[error("the Authentication-Info is not of a server that knows the key: {0}")]
    NotProven(&'static str),
}

/// A Digest challenge that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce, to be replaced by each `nextnonce`.
    pub nonce: String,
    /// To be sent back as it is.
    pub opaque: Option<String>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The protections that are offered, at least one.
    pub qops: Vec<Qop>,
    /// Whether the answer before was right and only its nonce was not.
    pub stale: bool,
}

impl Challenge {
    /// Reads the values of the `WWW-Authenticate` lines and takes the challenge with the strongest algorithm
    /// (RFC 7616 §5.8). Challenges of other schemes and algorithms are passed over.
    ///
    /// # Errors
    /// A line that cannot be read, or nothing that can be answered.
    pub fn strongest<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, ClientError> {
        Self::choose(lines, None)
    }

    /// As [`Self::strongest`], but of the algorithm `wanted` alone when there is one.
    ///
    /// # Errors
    /// As [`Self::strongest`].
    pub fn choose<'a>(
        lines: impl IntoIterator<Item = &'a [u8]>,
        wanted: Option<Algorithm>,
    ) -> Result<Self, ClientError> {
        let mut best: Option<Self> = None;
        for line in lines {
            let found = challenges(line)
                .map_err(|Malformed(what)| ClientError::Malformed { header: "WWW-Authenticate", what })?;
            for (scheme, mut params) in found {
                if !scheme.eq_ignore_ascii_case("Digest") {
                    continue;
                }
                let Ok(algorithm) = params.take("algorithm").as_deref().unwrap_or("MD5").parse::<Algorithm>()
                else {
                    continue;
                };
                let qops: Vec<Qop> = params
                    .take("qop")
                    .as_deref()
                    .unwrap_or_default()
                    .split(',')
                    .filter_map(|qop| Qop::from_wire(qop.trim_matches([' ', '\t'])))
                    .collect();
                let (Some(realm), Some(nonce)) = (params.take("realm"), params.take("nonce")) else {
                    continue;
                };
                if wanted.is_some_and(|wanted| wanted != algorithm) {
                    continue;
                }
                if qops.is_empty() || best.as_ref().is_some_and(|best| best.algorithm >= algorithm) {
                    continue;
                }
                best = Some(Self {
                    realm: realm.into_owned(),
                    nonce: nonce.into_owned(),
                    opaque: params.take("opaque").map(|opaque| opaque.into_owned()),
                    algorithm,
                    qops,
                    stale: params.take("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
                });
            }
        }
        best.ok_or(ClientError::NoChallenge)
    }
}

/// A request to be authorized.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target.
    pub uri: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// An answered challenge: the `Authorization` to send, and what its answer is checked with.
#[derive(Debug, Clone)]
pub struct Answer {
    header: String,
    algorithm: Algorithm,
    qop: Qop,
    ha1: Hex,
    nonce: String,
    nc: String,
    cnonce: String,
    uri: String,
}

/// Answers a challenge. `password` is that of [`super::password`]; `cnonce` is random, printable ASCII; `nc` counts the
/// uses of the challenge's nonce from 1.
pub fn answer(
    challenge: &Challenge,
    request: Outgoing<'_>,
    (username, password): (&BTid, &[u8]),
    qop: Qop,
    cnonce: &str,
    nc: u32,
) -> Answer {
    let ha1 = ha1(challenge.algorithm, username.as_str(), &challenge.realm, password);
    let nc = format!("{nc:08x}");
    let exchange = Exchange {
        algorithm: challenge.algorithm,
        qop,
        nonce: &challenge.nonce,
        nc: &nc,
        cnonce,
        uri: request.uri,
    };
    let response = exchange.response(&ha1, request.method, request.body);
    let mut header = String::with_capacity(512);
    push_quoted(&mut header, "Digest username", username.as_str());
    push_quoted(&mut header, ", realm", &challenge.realm);
    push_quoted(&mut header, ", uri", request.uri);
    header.push_str(", algorithm=");
    header.push_str(challenge.algorithm.as_str());
    push_quoted(&mut header, ", nonce", &challenge.nonce);
    header.push_str(", nc=");
    header.push_str(&nc);
    push_quoted(&mut header, ", cnonce", cnonce);
    header.push_str(", qop=");
    header.push_str(qop.as_str());
    push_quoted(&mut header, ", response", response.as_str());
    if let Some(opaque) = &challenge.opaque {
        push_quoted(&mut header, ", opaque", opaque);
    }
    Answer {
        header,
        algorithm: challenge.algorithm,
        qop,
        ha1,
        nonce: challenge.nonce.clone(),
        nc,
        cnonce: cnonce.to_owned(),
        uri: request.uri.to_owned(),
    }
}

impl Answer {
    /// The value of `Authorization`.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Checks the `Authentication-Info` of the answer with this body: only a server that knows the MRK can make it.
    /// Gives the nonce for the next request, whose count begins at 1 again, when the server sent one.
    ///
    /// # Errors
    /// The header cannot be read, or its `rspauth` is missing or wrong.
    pub fn confirm(&self, info: &[u8], answer_body: &[u8]) -> Result<Option<String>, ClientError> {
        let mut params = Cursor::new(info)
            .and_then(Cursor::params)
            .map_err(|Malformed(what)| ClientError::Malformed { header: "Authentication-Info", what })?;
        let rspauth = params.take("rspauth").ok_or(ClientError::NotProven("no rspauth"))?;
        for (name, sent, error) in [
            ("cnonce", self.cnonce.as_str(), "another cnonce"),
            ("nc", self.nc.as_str(), "another nc"),
            ("qop", self.qop.as_str(), "another qop"),
        ] {
            if params.take(name).is_none_or(|value| value != sent) {
                return Err(ClientError::NotProven(error));
            }
        }
        let exchange = Exchange {
            algorithm: self.algorithm,
            qop: self.qop,
            nonce: &self.nonce,
            nc: &self.nc,
            cnonce: &self.cnonce,
            uri: &self.uri,
        };
        if !exchange.response(&self.ha1, "", answer_body).is(&rspauth) {
            return Err(ClientError::NotProven("a wrong rspauth"));
        }
        Ok(params.take("nextnonce").map(|nonce| nonce.into_owned()))
    }
}
