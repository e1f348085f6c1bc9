//! Who may call: bearer tokens over TCP, the socket's mode over a unix socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::problem::Problem;
use super::routes;
use super::trail::{self, Recorder};
use crate::audit::{Peer, Role};
use crate::secret::Secret;

/// What callers have to bring.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The token of every call but the open ones, over TCP. `None`: nobody is let in over TCP.
    pub admin_token: Option<Secret>,
    /// The token that alone opens `?secrets=true`, and nothing else. `None`: nobody reads keys.
    pub key_reader_token: Option<Secret>,
    /// Whether the listener is a unix socket, whose mode decides in place of the admin token.
    pub unix: bool,
}

/// What a call may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// Everything but reading secrets: it brought the admin token, or came over the unix socket.
    admin: bool,
    /// Whether it brought the admin token.
    admin_token: bool,
    /// Reading secrets.
    key_reader: bool,
    /// Whether it brought a token at all.
    presented: bool,
}

impl Caller {
    /// By what right a call of this kind is made; `None`: by none.
    pub(super) fn role(self, reveals: bool) -> Option<Role> {
        match self {
            Self { key_reader: true, .. } if reveals || !self.admin => Some(Role::KeyReader),
            Self { admin_token: true, .. } => Some(Role::Admin),
            Self { admin: true, .. } => Some(Role::Unix),
            _ => None,
        }
    }

    /// Lets the key reader read secrets and the administrator read the rest.
    ///
    /// # Errors
    /// 401 without the token that the call takes.
    pub(super) fn may_read_keys(self, secrets: bool) -> Result<(), Problem> {
        match (secrets, self.admin, self.key_reader) {
            (true, _, true) | (false, true, _) => Ok(()),
            (true, _, false) => Err(Problem::unauthorized(
                self.presented,
                "secrets=true takes the key_reader_token as the bearer and no other, over a unix socket too",
            )),
            (false, false, _) => Err(Problem::unauthorized(true, READER_ALONE)),
        }
    }
}

const READER_ALONE: &str =
    "the key_reader_token opens secrets=true of a service's keys and of an export, and nothing else";

impl Auth {
    /// Compares in constant time; both tokens always, so that the time tells nothing of which it was.
    fn caller(&self, headers: &HeaderMap) -> Caller {
        let token = bearer(headers);
        let is = |ours: &Option<Secret>| match (ours, &token) {
            (Some(ours), Some(token)) => !ours.is_empty() && ours == token,
            _ => false,
        };
        let (admin_token, key_reader) = (is(&self.admin_token), is(&self.key_reader_token));
        let presented = token.is_some();
        let admin = admin_token || (self.unix && !foreign(headers));
        Caller { admin, admin_token, key_reader, presented }
    }
}

/// Whether a browser calls for a page from elsewhere. A unix socket's mode speaks for programs of this machine; a
/// browser that reaches it through a forwarder would lend it to every site that is open in it. `Sec-Fetch-Site` (Fetch
/// Metadata) and `Origin` say whose page calls; a `Host` that is a public name was made to point here.
fn foreign(headers: &HeaderMap) -> bool {
    let from_here = match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin" || site == "none",
        None => !headers.contains_key(ORIGIN),
    };
    let Some(host) = headers.get(HOST) else { return !from_here };
    let local = host.to_str().ok().and_then(|host| host.parse().ok()).is_some_and(|host: Authority| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = name.parse().ok();
        address.map_or(!name.contains('.'), |address| address.is_loopback())
    });
    !(from_here && local)
}

/// The bearer token (RFC 6750 §2.1); two `Authorization` fields are none.
fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| Secret::from(token.trim_ascii()))
}

/// What stands before every route.
pub(super) struct Gate {
    /// What callers have to bring.
    pub(super) auth: Auth,
    /// Where it is recorded what they did.
    pub(super) recorder: Recorder,
}

/// Lets through who may call, and has recorded what is to be.
pub(super) async fn gate(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(gate.recorder.clone());
    let span = tracing::info_span!(
        "admin",
        method = %request.method(),
        path = trail::matched(&request),
        peer = request.extensions().get::<Peer>().map(tracing::field::display),
    );
    let began = Instant::now();
    let admitted = async {
        let response = match admit(&gate.auth, &mut request) {
            Admitted::Open => next.run(request).await,
            Admitted::Caller(caller) => gate.recorder.run(caller, request, next).await,
            Admitted::Refused(caller, problem) => {
                let recorded = gate.recorder.refused(caller, &request, &problem);
                recorded.await;
                problem.into_response()
            }
        };
        let (status, took_ms) = (response.status().as_u16(), began.elapsed().as_millis() as u64);
        tracing::debug!(status, took_ms, "answered");
        response
    };
    let mut response = admitted.instrument(span).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What becomes of a request at the gate.
enum Admitted {
    /// It needs no token.
    Open,
    /// It may go on.
    Caller(Caller),
    /// It may not.
    Refused(Caller, Problem),
}

fn admit(auth: &Auth, request: &mut Request) -> Admitted {
    let matched = request.extensions().get::<MatchedPath>().map(|m| m.as_str().to_owned());
    let matched = matched.as_deref().unwrap_or_default();
    if routes::is_open(matched) {
        return Admitted::Open;
    }
    let caller = auth.caller(request.headers());
    let reads = !trail::changes(request.method());
    if caller.admin || (caller.key_reader && routes::SECRETS.contains(&matched) && reads) {
        request.extensions_mut().insert(caller);
        return Admitted::Caller(caller);
    }
    let problem = match caller.key_reader {
        true => Problem::unauthorized(true, READER_ALONE),
        false => Problem::unauthorized(caller.presented, "this call takes the admin_token as the bearer"),
    };
    Admitted::Refused(caller, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(unix: bool) -> Auth {
        let secret = |text: &str| Some(Secret::from(text.as_bytes()));
        Auth { admin_token: secret("admin"), key_reader_token: secret("reader"), unix }
    }

    fn headers(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|f| (AUTHORIZATION, HeaderValue::from_str(f).expect("ASCII"))).collect()
    }

    #[test]
    fn each_token_opens_its_own_door_alone() {
        let admin = auth(false).caller(&headers(&["Bearer admin"]));
        assert!(admin.may_read_keys(false).is_ok() && admin.may_read_keys(true).is_err());
        let reader = auth(false).caller(&headers(&["bearer reader"]));
        assert!(reader.may_read_keys(true).is_ok() && reader.may_read_keys(false).is_err());
    }

    #[test]
    fn over_a_unix_socket_everything_is_open_but_secrets() {
        let nobody = auth(true).caller(&headers(&[]));
        assert!(nobody.admin && nobody.may_read_keys(true).is_err_and(|p| p.status() == 401));
        let admin = auth(true).caller(&headers(&["Bearer admin"]));
        assert!(admin.may_read_keys(true).is_err_and(|p| p.status() == 401));
    }

    #[test]
    fn a_unix_socket_is_not_lent_to_a_page_from_elsewhere() {
        let may = |site: Option<&'static str>, host: &'static str, origin: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            if let Some(site) = site {
                headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            }
            if origin {
                headers.insert(ORIGIN, HeaderValue::from_static("http://evil.example"));
            }
            auth(true).caller(&headers).admin
        };
        assert!(may(None, "localhost", false), "curl and ltkmd ctl say nothing of a site");
        for host in ["localhost:9470", "127.0.0.1:9470", "[::1]:9470"] {
            assert!(may(Some("same-origin"), host, false), "{host}");
            assert!(may(Some("none"), host, false), "{host}");
            assert!(!may(Some("cross-site"), host, true), "{host}");
            assert!(!may(Some("same-site"), host, false), "{host}");
        }
        for site in [None, Some("same-origin")] {
            assert!(!may(site, "evil.example:9470", false), "a name that was made to point here");
        }
        assert!(!may(None, "192.0.2.1", false) && may(None, "ltkmd", false));
        assert!(!may(None, "localhost:9470", true), "an old browser sends its origin alone");
        let mut headers = headers(&["Bearer admin"]);
        headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
        assert!(auth(true).caller(&headers).admin, "who has the token needs no socket");
    }

    #[test]
    fn what_is_no_token_of_ours_opens_nothing() {
        for fields in [
            &["Bearer"][..],
            &["Bearer "],
            &["Bearer adm"],
            &["Bearer admin2"],
            &["Basic admin"],
            &["admin"],
            &["Bearer admin", "Bearer admin"],
            &[],
        ] {
            let caller = auth(false).caller(&headers(fields));
            assert!(!caller.admin && !caller.key_reader, "{fields:?}");
        }
        let unset = Auth { admin_token: Some(Secret::from(&b""[..])), key_reader_token: None, unix: false };
        assert!(!unset.caller(&headers(&["Bearer "])).admin);
    }
}
