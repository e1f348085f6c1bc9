//! What the audit log gets of a call: a line before a change and one before its answer, one before secrets leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use axum::{Extension, Json as Answer};

use super::auth::Caller;
use super::problem::Problem;
use super::query::Query;
use super::routes::{self, Reveals};
use super::views::AuditHead;
use crate::audit::{AuditError, AuditLog, Call, Event, Names, Peer, Role, Who, names};
use crate::log::beginning;

/// Octets of a path that are recorded: an id of 1,024 octets, each percent-encoded, and what stands around it.
const MAX_PATH: usize = 4096;

/// Whether a call may change something.
pub(super) fn changes(method: &Method) -> bool {
    method != Method::GET && method != Method::HEAD
}

/// Records calls; nothing when there is no log.
#[derive(Clone)]
pub(super) struct Recorder(Option<Arc<AuditLog>>);

/// The change that a handler is about to make, for what it has to record before it is done.
#[derive(Clone)]
pub(super) struct Trail {
    log: Arc<AuditLog>,
    of: u64,
}

impl Trail {
    /// Records what an import is about to put in place.
    ///
    /// # Errors
    /// 503: it cannot be recorded, so it must not be done.
    pub(super) async fn importing(&self, names: Names) -> Result<(), Problem> {
        self.log.append(Event::Import { of: self.of, names }).await?;
        Ok(())
    }
}

/// Ids that an answer is about and that the path does not name, for the log.
#[derive(Debug, Clone)]
pub(super) struct Named(Names);

impl Named {
    /// Names by kind.
    pub(super) fn new<const N: usize>(kinds: [(&str, Vec<String>); N]) -> Self {
        Self(names(kinds))
    }
}

impl IntoResponseParts for Named {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

fn named(response: &Response) -> Names {
    response.extensions().get::<Named>().cloned().map_or_else(Names::new, |named| named.0)
}

impl Recorder {
    /// A recorder that writes there.
    pub(super) fn new(log: Option<Arc<AuditLog>>) -> Self {
        Self(log)
    }

    /// Carries a call out, recorded when it has to be.
    pub(super) async fn run(&self, caller: Caller, request: Request, next: Next) -> Response {
        let reveals = reveals(&request);
        let (Some(log), Some(role)) = (&self.0, caller.role(reveals)) else { return next.run(request).await };
        let log = Arc::clone(log);
        if changes(request.method()) {
            let call = call(role, &request);
            // A task of its own: a caller who hangs up leaves no request without its answer's line.
            let changed = tokio::spawn(async move {
                change(&log, call, request, next)
                    .await
                    .unwrap_or_else(|error| Problem::from(error).into_response())
            });
            return changed.await.unwrap_or_else(|_| {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the daemon broke off this change")
                    .into_response()
            });
        }
        if !reveals {
            return next.run(request).await;
        }
        let call = call(role, &request);
        let response = next.run(request).await;
        let status = response.status();
        let read = Event::Read { call, status: status.as_u16(), names: named(&response) };
        match log.append(read).await {
            // A refusal has no secrets to hold back.
            Err(error) if status.is_success() => Problem::from(error).into_response(),
            _ => response,
        }
    }

    /// Records that a token of ours was refused what it does not open. Who has none is told to the log of the daemon
    /// alone: strangers do not fill the disk.
    pub(super) fn refused(
        &self,
        caller: Caller,
        request: &Request,
        problem: &Problem,
    ) -> impl Future<Output = ()> + Send + use<> {
        tracing::info!(why = problem.detail(), "refused a caller");
        let status = problem.status().as_u16();
        let role = caller.role(reveals(request));
        let refused = role.map(|role| Event::Refused { call: call(role, request), status });
        let log = self.0.clone();
        async move {
            if let (Some(log), Some(refused)) = (log, refused) {
                // Nothing was done: the refusal stands whether it is recorded or not, and the log tells its trouble.
                let _ = log.append(refused).await;
            }
        }
    }
}

async fn change(
    log: &Arc<AuditLog>,
    call: Call,
    mut request: Request,
    next: Next,
) -> Result<Response, AuditError> {
    let began = Instant::now();
    let of = log.append(Event::Request(call)).await?;
    request.extensions_mut().insert(Trail { log: Arc::clone(log), of });
    let response = next.run(request).await;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let answer = Event::Answer { of, status: response.status().as_u16(), took_ms, names: named(&response) };
    if let Err(error) = log.append(answer).await {
        // It is done, and the caller hears what was done. The request's line has no answer, which shows.
        tracing::error!(%error, of, status = response.status().as_u16(), "a change is answered without its record");
    }
    Ok(response)
}

/// The path's form in the table of calls: it names nobody.
pub(super) fn matched(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str)
}

fn reveals(request: &Request) -> bool {
    let operation = routes::operation(matched(request), request.method());
    match operation.map_or(Reveals::Nothing, |o| o.reveals) {
        Reveals::Nothing => false,
        Reveals::Always => true,
        Reveals::With(parameter) => {
            Query::of(request.uri()).and_then(|mut q| Ok(q.flag(parameter)?)).unwrap_or(false)
        }
    }
}

fn call(role: Role, request: &Request) -> Call {
    let from = *request.extensions().get::<Peer>().expect("every connection is given its peer");
    Call {
        who: Who { role, from },
        method: request.method().to_string(),
        path: cut(request.uri().path()).to_owned(),
        query: known_query(matched(request), request.method(), request.uri()),
    }
}

/// A path's beginning.
fn cut(path: &str) -> &str {
    beginning(path, MAX_PATH)
}

/// The parameters that the call knows: what else somebody sends might be a secret gone astray.
fn known_query(matched: &str, method: &Method, uri: &Uri) -> BTreeMap<String, String> {
    let (Some(operation), Ok(mut query)) = (routes::operation(matched, method), Query::of(uri)) else {
        return BTreeMap::new();
    };
    let text = |p: &routes::Parameter| Some((p.name.to_owned(), cut(&query.text(p.name).ok()??).to_owned()));
    operation.query.iter().filter_map(text).collect()
}

/// `GET /v1/audit/head`
pub(super) async fn head(
    Extension(recorder): Extension<Recorder>,
    query: Query,
) -> Result<Answer<AuditHead>, Problem> {
    query.finish()?;
    let log =
        recorder.0.ok_or_else(|| Problem::not_found("audit.enabled is false: there is no audit log"))?;
    let head = log.head();
    Ok(Answer(AuditHead {
        file: log.path().display().to_string(),
        seq: head.seq,
        hash: head.hash.to_string(),
        trouble: log.trouble(),
    }))
}
