//! One request: refused where HTTP refuses it, authenticated, read, carried out, answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use ipnet::IpNet;
use tokio::sync::watch;
use tracing::Instrument;

use super::answer::Answer;
use super::forwarded;
use super::limits::Limits;
use super::prefixed::MAX_LINE;
use crate::digest::{Authenticator, Authorization, Failure, NonceUse, RequestLine, Verified};
use crate::document::{
    self, BodyForm, ContainerChildren, DeregistrationResponse, MskResponse, RegistrationResponse,
    ResponseCode, ResponseItem, Style, media_type,
};
use crate::engine::{Engine, Served};
use crate::id::BTid;
use crate::metrics::Metrics;
use crate::procedure::{Code, Procedure};
use crate::store::StoreError;

type Answered = Response<Full<Bytes>>;

/// The terminal-facing service.
pub struct Service {
    /// What carries requests out.
    pub engine: Arc<Engine>,
    /// Who may ask.
    pub authenticator: Authenticator,
    /// The path that is served.
    pub path: String,
    /// Networks whose `Forwarded` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How container children are written.
    pub children: ContainerChildren,
    /// Services or keys in one request.
    pub max_items: std::sync::atomic::AtomicUsize,
}

/// A request that is refused before or after it is known who asks.
struct Refused {
    answer: Answer,
    /// Whether the body was read to its end.
    read: bool,
}

impl Refused {
    fn new(status: StatusCode, line: &str) -> Self {
        Self { answer: Answer::text(status, line), read: true }
    }

    /// A refusal that leaves the body unread.
    fn unread(status: StatusCode, line: &str) -> Self {
        Self { answer: Answer::text(status, line), read: false }
    }
}

impl Service {
    pub(super) fn metrics(&self) -> &Metrics {
        self.engine.metrics()
    }

    /// Keeps the gauge of remembered nonces up to date until the shutdown.
    pub async fn run_gauges(&self, mut shutdown: watch::Receiver<bool>) {
        while !*shutdown.borrow() {
            self.metrics().nonces(self.authenticator.nonces_remembered());
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Counts an answer to a request whose head was not read.
    pub(super) fn refused_unread(&self, status: StatusCode) {
        self.metrics().http_answered(None, status.as_u16(), 0.0);
    }

    /// Answers one request, and tells whether its body was read to the end.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        limits: &Limits,
    ) -> (Answered, bool) {
        let began = Instant::now();
        let procedure = requested(request.uri().query());
        let bodiless = request.body().is_end_stream();
        let span = tracing::info_span!(
            "request",
            %peer,
            procedure = procedure.map(Procedure::label),
            btid = tracing::field::Empty
        );
        let handled = async {
            let (response, read) = match self.try_handle(request, peer, procedure, limits).await {
                Ok(response) => (response, true),
                Err(Refused { answer, read }) => {
                    let line = String::from_utf8_lossy(answer.body()).trim_end().to_owned();
                    tracing::info!(status = answer.status().as_u16(), line, "request refused");
                    (answer.response(), read || bodiless)
                }
            };
            let (status, took) = (response.status().as_u16(), began.elapsed());
            tracing::debug!(status, took_ms = took.as_millis() as u64, "answered");
            self.metrics().http_answered(procedure, status, took.as_secs_f64());
            (response, read)
        };
        handled.instrument(span).await
    }

    async fn try_handle(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        procedure: Option<Procedure>,
        limits: &Limits,
    ) -> Result<Answered, Refused> {
        let (head, body) = request.into_parts();
        let procedure = self.admissible(&head, procedure)?;
        let body = read_body(&head, body, limits).await?;
        if self.engine.frozen().is_some() {
            let line = "The store is being moved; try again shortly.";
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, line));
        }
        let verified = self.authenticate(&head, &body).await;
        let (btid, verified) = match verified {
            Ok(Ok(authenticated)) => authenticated,
            Ok(Err(failure)) => return self.challenge(&failure),
            Err(error) => return Err(unavailable(&error)),
        };
        tracing::Span::current().record("btid", tracing::field::display(btid.logged()));
        let address = self.terminal_address(peer, &head.headers);
        let carried = self.carry_out(procedure, &btid, address, &body, verified.nonce_use());
        let answer = match tokio::time::timeout(limits.request_timeout, carried).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(failure))) => return self.challenge(&failure),
            Ok(Err(Refused { answer, .. })) => {
                let line = String::from_utf8_lossy(answer.body()).trim_end().to_owned();
                tracing::info!(status = answer.status().as_u16(), line, "request refused");
                answer
            }
            Err(_) => {
                Answer::text(StatusCode::SERVICE_UNAVAILABLE, "The store is too slow; try again later.")
            }
        };
        let now = self.engine.now();
        let random = if verified.wants_next_nonce() { random() } else { None };
        let next_nonce = random.map(|random| self.authenticator.next_nonce(now, random));
        let info = verified.authentication_info(answer.body(), next_nonce.as_deref());
        Ok(answer.authenticated(&info))
    }

    /// What HTTP refuses without reading the body (LTKM profile §2.3).
    fn admissible(&self, head: &Parts, procedure: Option<Procedure>) -> Result<Procedure, Refused> {
        let known = [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::PATCH,
            Method::TRACE,
            Method::CONNECT,
        ];
        if let Err(line) = well_framed(head) {
            return Err(Refused::unread(StatusCode::BAD_REQUEST, line));
        }
        if target_len(&head.uri) > MAX_LINE {
            return Err(Refused::unread(StatusCode::URI_TOO_LONG, "The request target is too long."));
        }
        if codings(&head.headers).any(|coding| !coding.eq_ignore_ascii_case("chunked")) {
            return Err(Refused::unread(StatusCode::NOT_IMPLEMENTED, "The transfer coding is not known."));
        }
        if head.uri.path() != self.path {
            return Err(Refused::unread(StatusCode::NOT_FOUND, "There is nothing at this path."));
        }
        if known.contains(&head.method) {
            return Err(Refused::unread(StatusCode::METHOD_NOT_ALLOWED, "Requests are sent with POST."));
        }
        if head.method != Method::POST {
            return Err(Refused::unread(StatusCode::NOT_IMPLEMENTED, "The method is not known."));
        }
        let Some(procedure) = procedure else {
            let line = "requesttype must be register, deregister or msk-request, once.";
            return Err(Refused::unread(StatusCode::BAD_REQUEST, line));
        };
        let content_type = single(&head.headers, header::CONTENT_TYPE);
        if let Err(error) = media_type::check(content_type, procedure) {
            let wanted = media_type::of_request(procedure);
            let line = format!("The body must be {wanted} in UTF-8: {error}.");
            return Err(Refused::unread(StatusCode::UNSUPPORTED_MEDIA_TYPE, &line));
        }
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            let line = "A body with a content coding is not taken.";
            return Err(Refused::unread(StatusCode::UNSUPPORTED_MEDIA_TYPE, line));
        }
        Ok(procedure)
    }

    fn terminal_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines = |name: &'static str| headers.get_all(name).iter().map(|v| v.as_bytes());
        let (forwarded, x_forwarded_for) = (lines("forwarded"), lines("x-forwarded-for"));
        forwarded::client_address(peer, forwarded, x_forwarded_for, &self.trusted_proxies)
    }

    /// Finds out who asks. The outer error is the store's.
    async fn authenticate(
        &self,
        head: &Parts,
        body: &[u8],
    ) -> Result<Result<(BTid, Verified), Failure>, StoreError> {
        let lines = head.headers.get_all(header::AUTHORIZATION).iter().map(|v| v.as_bytes());
        let authorization = match Authorization::from_lines(lines) {
            Ok(authorization) => authorization,
            Err(failure) => return Ok(Err(failure)),
        };
        let btid = BTid::new(authorization.username()).ok();
        let known = self.engine.authenticable(btid.as_ref()).await?;
        let target = head.uri.to_string();
        let line = RequestLine {
            method: head.method.as_str(),
            target: &target,
            host: head.headers.get(header::HOST).and_then(|h| h.to_str().ok()),
        };
        let mrk = known.as_ref().map(|k| k.mrk.expose());
        let checked = self.authenticator.check(&authorization, &line, body, mrk, self.engine.now());
        Ok(match (checked, btid, known) {
            (Ok(verified), Some(btid), Some(known)) if known.usable => Ok((btid, verified)),
            // Nothing is done for it: in a cluster its count is not used up.
            (Ok(_), _, _) => Err(Failure::expired()),
            (Err(failure), _, _) => Err(failure),
        })
    }

    /// 401 with fresh challenges, or 400 for credentials that cannot be read.
    fn challenge(&self, failure: &Failure) -> Result<Answered, Refused> {
        self.metrics().digest_failed(failure.reason().as_str());
        if failure.status() == 400 {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "The Authorization header is malformed."));
        }
        tracing::debug!(%failure, "not authenticated");
        let Some(random) = random() else {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "No randomness; try again later."));
        };
        let challenges = self.authenticator.challenges(self.engine.now(), random, failure.is_stale());
        let answer = Answer::text(StatusCode::UNAUTHORIZED, "Authenticate with the B-TID and the MRK.");
        Ok(answer.challenging(&challenges))
    }

    /// Reads the document and carries it out. The inner error: the B-TID has ended meanwhile, or the nonce count was used
    /// before.
    async fn carry_out(
        &self,
        procedure: Procedure,
        btid: &BTid,
        address: IpAddr,
        body: &[u8],
        nonce: Option<NonceUse>,
    ) -> Result<Result<Answer, Failure>, Refused> {
        let max_items = self.max_items.load(std::sync::atomic::Ordering::Relaxed);
        let limits = document::Limits { max_octets: body.len(), max_items };
        let (request, form) = match document::Request::read(procedure, body, &limits) {
            Ok(read) => read,
            Err(error) => {
                if let Some(nonce) = nonce {
                    let used = self.engine.use_nonce(btid, nonce).await;
                    if let Err(refused) = used.map_err(|error| unavailable(&error))? {
                        return Ok(Err(refused.into()));
                    }
                }
                let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
                return Err(Refused::new(status, &format!("The document is refused: {error}.")));
            }
        };
        let served = match &request {
            document::Request::Register(r) => {
                self.engine.register(btid, address, r.services.clone(), r.ltkm_delivery.clone(), nonce).await
            }
            document::Request::Deregister(r) => {
                self.engine.deregister(btid, address, r.services.clone(), nonce).await
            }
            document::Request::Msk(r) => {
                let keys = r.items.iter().map(|item| (item.key_domain, item.msk_id)).collect();
                self.engine.msk_request(btid, address, keys, nonce).await
            }
        };
        match served.map_err(|error| unavailable(&error))? {
            Served::Items { items, announced } => {
                let methods = announced.map(|set| set.iter().collect());
                let body = self.write(request, items, methods, form);
                Ok(Ok(Answer::document(media_type::of_response(procedure), body)))
            }
            Served::NoMethod => {
                let line = "None of the LTKM delivery methods that the terminal supports is supported here.";
                Ok(Ok(Answer::text(StatusCode::FORBIDDEN, line)))
            }
            Served::Unauthorized => Ok(Err(Failure::expired())),
            Served::Stale { replay } => Ok(Err(Failure::stale(replay))),
        }
    }

    fn write(
        &self,
        request: document::Request,
        items: Vec<(Code, Vec<Vec<u8>>)>,
        ltkm_delivery: Option<Vec<crate::id::Method>>,
        form: BodyForm,
    ) -> Vec<u8> {
        let style = Style { children: self.children, form };
        match request {
            document::Request::Register(r) => {
                RegistrationResponse { items: beside(r.services, items), ltkm_delivery }.write(style)
            }
            document::Request::Deregister(r) => {
                DeregistrationResponse { items: beside(r.services, items) }.write(style)
            }
            document::Request::Msk(r) => MskResponse { items: beside(r.items, items) }.write(style),
        }
    }
}

/// Each subject with its code and its LTKMs.
fn beside<S>(subjects: Vec<S>, items: Vec<(Code, Vec<Vec<u8>>)>) -> Vec<ResponseItem<S>> {
    let item = |(subject, (code, ltkms))| match code {
        Code::Ok => ResponseItem::ok(subject, ltkms),
        Code::Forbidden => ResponseItem::new(subject, ResponseCode::FORBIDDEN),
        Code::NotFound => ResponseItem::new(subject, ResponseCode::NOT_FOUND),
    };
    subjects.into_iter().zip(items).map(item).collect()
}

/// The procedure that the query names, if it names one.
fn requested(query: Option<&str>) -> Option<Procedure> {
    let mut values = query?.split('&').filter_map(|pair| pair.strip_prefix("requesttype="));
    let value = values.next()?;
    let procedure = Procedure::ALL.into_iter().find(|p| p.request_type() == value)?;
    values.next().is_none().then_some(procedure)
}

/// The value of a header that may stand once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// RFC 9112 §3.2, §6.1: one `Host`, which HTTP/1.0 may leave out; `chunked` once, as the last coding.
fn well_framed(head: &Parts) -> Result<(), &'static str> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if !is_host(host.as_bytes()) => return Err("The Host is malformed."),
        (Some(_), Some(_)) => return Err("The request has more than one Host."),
        (None, _) if head.version >= Version::HTTP_11 => return Err("The request has no Host."),
        _ => {}
    }
    let chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    if codings(&head.headers).filter(|c| chunked(c)).count() > 1 {
        return Err("The body is chunked more than once.");
    }
    Ok(())
}

/// `uri-host [ ":" port ]`, or nothing (RFC 9110 §7.2).
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}

/// The transfer codings in their order; hyper has seen to it that the last one is `chunked`.
fn codings(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let codings = lines.flat_map(|line| line.to_str().unwrap_or("?").split(','));
    codings.map(str::trim).filter(|coding| !coding.is_empty())
}

fn target_len(uri: &Uri) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    uri.authority().map_or(0, |authority| authority.as_str().len()) + path
}

async fn read_body(head: &Parts, body: Incoming, limits: &Limits) -> Result<Bytes, Refused> {
    let too_large = || {
        let line = format!("The body is longer than {} octets.", limits.max_body);
        Refused::unread(StatusCode::PAYLOAD_TOO_LARGE, &line)
    };
    let headers = &head.headers;
    if !headers.contains_key(header::CONTENT_LENGTH) && !headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refused::unread(StatusCode::LENGTH_REQUIRED, "The request has no length."));
    }
    if body.size_hint().lower() > limits.max_body as u64 {
        return Err(too_large());
    }
    let collected = Limited::new(body, limits.max_body).collect();
    match tokio::time::timeout(limits.request_timeout, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refused::unread(StatusCode::BAD_REQUEST, "The body did not arrive whole.")),
        Err(_) => Err(Refused::unread(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time.")),
    }
}

fn unavailable(error: &StoreError) -> Refused {
    tracing::warn!(%error, "a request could not be served");
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "The store does not work now; try again later.")
}

fn random() -> Option<[u8; 16]> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).ok().map(|()| random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_procedure_is_named_once_and_exactly() {
        assert_eq!(requested(Some("requesttype=register")), Some(Procedure::Register));
        assert_eq!(requested(Some("a=b&requesttype=msk-request")), Some(Procedure::MskRequest));
        assert_eq!(requested(Some("requesttype=register&requesttype=register")), None);
        assert_eq!(requested(Some("requesttype=Register")), None);
        assert_eq!(requested(Some("requesttype=")), None);
        assert_eq!(requested(None), None);
    }

    #[test]
    fn a_host_is_an_authority_without_user_information() {
        for host in ["bmsc.example.com", "bmsc.example.com:8080", "192.0.2.1", "[2001:db8::1]:80", ""] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in ["a b", "user@bmsc.example.com", "bmsc.example.com/x", "[2001:db8::1"] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
