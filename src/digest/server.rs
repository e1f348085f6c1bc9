//! Challenges, checks and `Authentication-Info`.

use std::time::Duration;

use super::algorithm::{Algorithm, Exchange, Hex, Qop, ha1};
use super::counts::Counts;
use super::failure::{Failure, Reason};
use super::header::{Authorization, push_quoted};
use super::ledger::NonceUse;
use super::nonce::Nonces;
use super::password;
use crate::secret::Secret;
use crate::time::Timestamp;

/// How many nonces are remembered when nothing else is said: about 60 MiB when full.
pub const DEFAULT_MAX_NONCES: usize = 1 << 20;

/// How far ahead of the clock a nonce's time may be: threads read the clock at their own moments, and it may be
/// stepped back a little.
const SKEW: Duration = Duration::from_secs(5);

/// What an unknown user's response is computed with; as long as an MRK.
const DUMMY_MRK: [u8; 32] = [0; 32];

/// What an [`Authenticator`] is made with.
#[derive(Debug, Clone)]
pub struct DigestConfig {
    /// The NAF FQDN, from which the realm is made (`node.fqdn`).
    pub fqdn: String,
    /// The algorithms in the order of the challenges, none twice (`digest.algorithms`).
    pub algorithms: Vec<Algorithm>,
    /// How long a nonce is good (`digest.nonce_lifetime`).
    pub nonce_lifetime: Duration,
    /// The most nonces whose counts are remembered in memory; see [`DEFAULT_MAX_NONCES`].
    pub max_nonces: usize,
}

/// Whose nonces are known, and who remembers which counts were used.
#[derive(Debug)]
pub enum NonceMemory {
    /// This process alone, in memory. The secret is random and lives as long as it does: nonces of an earlier life are
    /// stale.
    Process(Secret),
    /// All processes that have this cluster secret: a nonce of one is good at any other, and after a restart. None of
    /// them remembers counts; whoever acts on a request uses its pair up in the commit of what it changes
    /// ([`Verified::nonce_use`]).
    Shared(Secret),
}

/// What of a request the digest speaks of.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target as it came: origin form or absolute form.
    pub target: &'a str,
    /// The `Host`, when there is one.
    pub host: Option<&'a str>,
}

/// The server's side. Shared by all connections; nothing in it waits but for other threads' short locks.
#[derive(Debug)]
pub struct Authenticator {
    fqdn: String,
    realm: String,
    algorithms: Vec<Algorithm>,
    lifetime: Duration,
    nonces: Nonces,
    /// None: counts are used up by whoever acts on the request.
    counts: Option<Counts>,
}

impl Authenticator {
    /// A server that has seen no nonce yet.
    pub fn new(config: DigestConfig, memory: NonceMemory) -> Self {
        let (nonces, counts) = match memory {
            NonceMemory::Process(secret) => {
                let counts = Counts::new(config.max_nonces, config.nonce_lifetime);
                (Nonces::new(secret), Some(counts))
            }
            NonceMemory::Shared(secret) => (Nonces::of_cluster(secret.expose()), None),
        };
        Self {
            realm: super::realm(&config.fqdn),
            fqdn: config.fqdn,
            algorithms: config.algorithms,
            lifetime: config.nonce_lifetime,
            nonces,
            counts,
        }
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// How many nonces are remembered in memory, at most [`DigestConfig::max_nonces`].
    pub fn nonces_remembered(&self) -> usize {
        self.counts.as_ref().map_or(0, Counts::len)
    }

    /// The values of the `WWW-Authenticate` lines of a 401: one for each algorithm, in order, all of one fresh nonce
    /// (RFC 7616 §3.7). `random` must be new each time.
    pub fn challenges(&self, now: Timestamp, random: [u8; 16], stale: bool) -> Vec<String> {
        let nonce = self.nonces.make(now, random);
        self.algorithms
            .iter()
            .map(|algorithm| {
                let mut line = String::with_capacity(192);
                push_quoted(&mut line, "Digest realm", &self.realm);
                line.push_str(", qop=\"auth,auth-int\", algorithm=");
                line.push_str(algorithm.as_str());
                push_quoted(&mut line, ", nonce", &nonce);
                if stale {
                    line.push_str(", stale=true");
                }
                line
            })
            .collect()
    }

    /// A fresh nonce for `nextnonce`. `random` must be new each time.
    pub fn next_nonce(&self, now: Timestamp, random: [u8; 16]) -> String {
        self.nonces.make(now, random)
    }

    /// Checks credentials against a request. `mrk` is the user's MRK, or none when there is no such user: the same is
    /// computed and the same is answered then.
    ///
    /// # Errors
    /// The sender is to blame; see [`Failure::status`]. A count is used up by success alone, and with
    /// [`NonceMemory::Shared`] not even by that: see [`Verified::nonce_use`].
    pub fn check(
        &self,
        auth: &Authorization<'_>,
        request: &RequestLine<'_>,
        body: &[u8],
        mrk: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Verified, Failure> {
        if auth.realm != self.realm {
            return Err(Failure::new(Reason::Realm, "the realm is not this server's"));
        }
        let algorithm = auth
            .algorithm
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or(Failure::new(Reason::Algorithm, "the algorithm is not offered"))?;
        if !self.is_target(&auth.uri, request) {
            return Err(Failure::new(Reason::Uri, "the uri is not the request's"));
        }
        let ha1 = ha1(algorithm, &auth.username, &self.realm, &password(mrk.unwrap_or(&DUMMY_MRK)));
        let right = exchange(auth, algorithm).response(&ha1, request.method, body).is(&auth.response);
        let nonce = self.nonces.open(&auth.nonce);
        if mrk.is_none() {
            return Err(Failure::new(Reason::UnknownUser, "the user is unknown"));
        }
        if !right {
            return Err(Failure::new(Reason::WrongResponse, "the response is wrong"));
        }
        let nonce = nonce.ok_or(Failure::new(Reason::Stale, "the nonce is not one of ours"))?;
        if now.since(nonce.issued) >= self.lifetime || nonce.issued > now + SKEW {
            return Err(Failure::new(Reason::Stale, "the nonce has expired"));
        }
        let nonce_use = match &self.counts {
            Some(counts) => {
                counts.take(nonce, auth.nc, now)?;
                None
            }
            None => Some(NonceUse { id: nonce.id, nc: auth.nc, issued: nonce.issued }),
        };
        Ok(Verified {
            algorithm,
            qop: auth.qop,
            ha1,
            nonce: auth.nonce.clone().into_owned(),
            nc: auth.nc_text.clone().into_owned(),
            cnonce: auth.cnonce.clone().into_owned(),
            uri: auth.uri.clone().into_owned(),
            wants_next_nonce: now.since(nonce.issued) >= self.lifetime * 3 / 4,
            nonce_use,
        })
    }

    /// RFC 7616 §3.4.6: the uri is the request's, in origin form or in absolute form. In absolute form its authority
    /// is the `Host` or our own name on any port.
    fn is_target(&self, uri: &str, request: &RequestLine<'_>) -> bool {
        if uri == request.target {
            return true;
        }
        match (absolute(uri), absolute(request.target)) {
            (Some((authority, path)), None) => path == request.target && self.is_us(authority, request.host),
            (None, Some((_, path))) => path == uri,
            _ => false,
        }
    }

    fn is_us(&self, authority: &str, host: Option<&str>) -> bool {
        let is_host = |host| without_default_port(host).eq_ignore_ascii_case(without_default_port(authority));
        host.is_some_and(is_host) || without_port(authority).eq_ignore_ascii_case(&self.fqdn)
    }
}

/// Authority and path with query of an http or https URI.
fn absolute(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    Some(rest.split_at(rest.find('/')?))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn without_default_port(authority: &str) -> &str {
    authority.strip_suffix(":80").or_else(|| authority.strip_suffix(":443")).unwrap_or(authority)
}

fn exchange<'a>(auth: &'a Authorization<'_>, algorithm: Algorithm) -> Exchange<'a> {
    Exchange {
        algorithm,
        qop: auth.qop,
        nonce: &auth.nonce,
        nc: &auth.nc_text,
        cnonce: &auth.cnonce,
        uri: &auth.uri,
    }
}

/// A request whose sender knows the MRK; what its answer's `Authentication-Info` is made of.
#[derive(Debug, Clone)]
pub struct Verified {
    algorithm: Algorithm,
    qop: Qop,
    ha1: Hex,
    nonce: String,
    nc: String,
    cnonce: String,
    uri: String,
    wants_next_nonce: bool,
    nonce_use: Option<NonceUse>,
}

impl Verified {
    /// The algorithm that was used.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The protection that was used.
    pub fn qop(&self) -> Qop {
        self.qop
    }

    /// Whether the nonce has spent three quarters of its lifetime, so that the answer brings the next one.
    pub fn wants_next_nonce(&self) -> bool {
        self.wants_next_nonce
    }

    /// The pair that has to be used up before anything is done for the request, in the same commit; none when that has
    /// happened already, which [`NonceMemory`] decides.
    pub fn nonce_use(&self) -> Option<NonceUse> {
        self.nonce_use
    }

    /// The value of `Authentication-Info` (RFC 7616 §3.5) for an answer with this body.
    pub fn authentication_info(&self, answer_body: &[u8], next_nonce: Option<&str>) -> String {
        let exchange = Exchange {
            algorithm: self.algorithm,
            qop: self.qop,
            nonce: &self.nonce,
            nc: &self.nc,
            cnonce: &self.cnonce,
            uri: &self.uri,
        };
        let rspauth = exchange.response(&self.ha1, "", answer_body);
        let mut line = String::with_capacity(256);
        push_quoted(&mut line, "rspauth", rspauth.as_str());
        line.push_str(", qop=");
        line.push_str(self.qop.as_str());
        push_quoted(&mut line, ", cnonce", &self.cnonce);
        line.push_str(", nc=");
        line.push_str(&self.nc);
        if let Some(nonce) = next_nonce {
            push_quoted(&mut line, ", nextnonce", nonce);
        }
        line
    }
}
