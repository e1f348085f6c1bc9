//! A terminal's side of the HTTP procedures: requests over a kept connection, answered challenges, and the server's
//! own proof (LTKM profile §2, §3).

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use zeroize::Zeroizing;

use super::credential::Credential;
use crate::cli::client;
use crate::digest::client::{Answer, Challenge, ClientError, Outgoing, answer};
use crate::digest::{Algorithm, Qop, password};
use crate::document::media_type;
use crate::id::BTid;
use crate::procedure::Procedure;

/// What a GBA terminal calls itself (TS 24.109 §5.2).
const AGENT: &str = concat!("ltkmd-ue/", env!("CARGO_PKG_VERSION"), " 3gpp-gba");

/// Challenges that are answered for one request: the first, and one that says that the nonce is stale.
const CHALLENGES: usize = 2;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The exchange did not come to its end.
    #[error(transparent)]
    Exchange(#[from] client::ClientError),
    /// What the server's challenge holds cannot stand in a header.
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    /// The server's challenge cannot be answered.
    #[error(transparent)]
    Challenge(#[from] ClientError),
}

impl HttpError {
    /// A short name for tables.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exchange(client::ClientError::Connect { .. }) => "no connection",
            Self::Exchange(client::ClientError::Broken { .. }) => "connection broke",
            Self::Exchange(client::ClientError::Timeout { .. }) => "no answer in time",
            Self::Exchange(client::ClientError::TooLarge { .. }) => "answer too large",
            Self::Request(_) | Self::Challenge(_) => "challenge unreadable",
        }
    }
}

/// Whether the server showed that it knows the MRK too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its rspauth was right.
    Given,
    /// It sent no `Authentication-Info`.
    Missing,
    /// What it sent was wrong.
    Wrong(ClientError),
    /// The request was not authenticated, so there is nothing to prove.
    NotAsked,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status of the whole request.
    pub status: StatusCode,
    /// `Retry-After`, as sent.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Bytes,
    /// The server's proof.
    pub proof: Proof,
    /// The algorithm and protection that the request was authenticated with.
    pub protection: Option<(Algorithm, Qop)>,
    /// How many requests it took: 1 when the nonce was known, 2 with a challenge.
    pub exchanges: usize,
}

/// How requests are authenticated.
#[derive(Debug, Clone, Copy)]
pub struct DigestChoice {
    /// What the digest covers.
    pub qop: Qop,
    /// The algorithm; the strongest that is offered without.
    pub algorithm: Option<Algorithm>,
}

/// A user name and the digest password that goes with it. Debug shows the name alone.
#[derive(Clone)]
pub struct User {
    btid: BTid,
    password: Zeroizing<Vec<u8>>,
}

impl User {
    /// The user of an MRK.
    pub fn new(btid: BTid, mrk: &[u8]) -> Self {
        Self { btid, password: password(mrk) }
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({})", self.btid)
    }
}

impl From<&Credential> for User {
    fn from(credential: &Credential) -> Self {
        Self::new(credential.btid.clone(), credential.mrk.expose())
    }
}

/// A kept connection to a BM-SC with the nonce that is in use on it. One request at a time.
#[derive(Debug)]
pub struct Client {
    client: client::Client,
    path: String,
    choice: DigestChoice,
    challenge: Option<(Challenge, u32)>,
    cnonce: String,
}

impl Client {
    /// A client that connects when it is first used; `client` is one of [`super::target::client`].
    pub fn new(client: client::Client, path: &str, choice: DigestChoice) -> Self {
        Self { client, path: path.to_owned(), choice, challenge: None, cnonce: cnonce() }
    }

    /// Forgets the nonce, as a terminal that has just begun.
    pub fn forget_nonce(&mut self) {
        self.challenge = None;
    }

    /// Makes a request of a procedure: answers the challenge when there is one, a stale nonce's too.
    ///
    /// # Errors
    /// There is no answer, or a challenge that cannot be answered.
    pub async fn request(
        &mut self,
        procedure: Procedure,
        user: &User,
        body: &Bytes,
    ) -> Result<Reply, HttpError> {
        let uri = format!("{}?requesttype={}", self.path, procedure.request_type());
        let mut challenges = 0;
        loop {
            let authorization = self.authorize(user, &uri, body);
            let header = authorization.as_ref().map(Answer::header);
            let (head, reply_body) = self.exchange(procedure, &uri, header, body).await?.into_parts();
            let (status, headers) = (head.status, head.headers);
            let mut stale = false;
            if status == StatusCode::UNAUTHORIZED {
                let challenge = self.choose(&headers)?;
                stale = challenge.stale;
                self.challenge = Some((challenge, 0));
            }
            challenges += 1;
            let again = status == StatusCode::UNAUTHORIZED && (authorization.is_none() || stale);
            if again && challenges <= CHALLENGES {
                continue;
            }
            let proof = self.confirm(authorization.as_ref(), status, &headers, &reply_body);
            let protection = authorization.as_ref().and(self.challenge.as_ref());
            let protection = protection.map(|(challenge, _)| (challenge.algorithm, self.choice.qop));
            let retry_after = headers.get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
            return Ok(Reply {
                status,
                retry_after,
                body: reply_body,
                proof,
                protection,
                exchanges: challenges,
            });
        }
    }

    fn authorize(&mut self, user: &User, uri: &str, body: &[u8]) -> Option<Answer> {
        let (challenge, nc) = self.challenge.as_mut()?;
        *nc += 1;
        let outgoing = Outgoing { method: "POST", uri, body };
        let credentials = (&user.btid, &user.password[..]);
        Some(answer(challenge, outgoing, credentials, self.choice.qop, &self.cnonce, *nc))
    }

    fn choose(&self, headers: &HeaderMap) -> Result<Challenge, ClientError> {
        let lines = headers.get_all(WWW_AUTHENTICATE);
        let chosen = Challenge::choose(lines.iter().map(|value| value.as_bytes()), self.choice.algorithm)?;
        if chosen.qops.contains(&self.choice.qop) { Ok(chosen) } else { Err(ClientError::NoChallenge) }
    }

    fn confirm(
        &mut self,
        authorization: Option<&Answer>,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Proof {
        let (Some(answer), false) = (authorization, status == StatusCode::UNAUTHORIZED) else {
            return Proof::NotAsked;
        };
        let Some(info) = headers.get("authentication-info") else { return Proof::Missing };
        match answer.confirm(info.as_bytes(), body) {
            Ok(next) => {
                if let (Some(next), Some((challenge, nc))) = (next, &mut self.challenge) {
                    challenge.nonce = next;
                    *nc = 0;
                }
                Proof::Given
            }
            Err(error) => Proof::Wrong(error),
        }
    }

    /// One request and its answer.
    async fn exchange(
        &mut self,
        procedure: Procedure,
        uri: &str,
        authorization: Option<&str>,
        octets: &Bytes,
    ) -> Result<Response<Bytes>, HttpError> {
        let mut request = Request::post(uri)
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, media_type::of_request(procedure));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        Ok(self.client.send(request.body(client::body(octets.clone()))?).await?)
    }
}

/// Random, printable ASCII.
fn cnonce() -> String {
    let mut octets = [0u8; 16];
    // Without randomness the exchange is still one of RFC 7616; only a chosen nonce could be prepared for.
    if getrandom::fill(&mut octets).is_err() {
        octets = u128::from(std::process::id()).to_be_bytes();
    }
    HEXLOWER.encode(&octets)
}
