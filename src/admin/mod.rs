//! The admin API: HTTP/1.1 with JSON, for operators and their programs.
//!
//! Every call stands once in `routes`; the router and the OpenAPI document are made of it. Requests are read
//! by hand, so that each fault names its field and no secret is repeated; what they mean is the engine's.

mod auth;
mod backup;
mod body;
mod cluster;
mod documents;
mod events;
mod export;
mod freeze;
mod handlers;
mod import;
mod jobs;
mod listener;
mod openapi;
mod page;
mod problem;
mod query;
mod read;
mod routes;
mod services;
mod status;
mod trail;
mod views;

#[cfg(test)]
pub(crate) mod tests;

pub use auth::Auth;
pub use listener::{AdminListener, UnixSocket};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::audit::AuditLog;
use crate::engine::Engine;

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

/// Header fields of a request, at most.
const MAX_HEADERS: usize = 64;

/// Octets of a request's line and header fields, at most.
const MAX_HEAD: usize = 32 << 10;

/// How long a request's header may take, and a connection lie idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests may go on after the shutdown began.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves the API until `shutdown` says `true` (or its sender is gone): then it stops accepting, lets what is
/// under way go on for at most ten seconds, and returns. A unix socket is unlinked. Without an audit log nothing is
/// recorded; with one, nothing is changed and no secret is read without a record.
///
/// # Errors
/// None at present: a failing `accept` is logged and tried again.
pub async fn serve(
    listener: AdminListener,
    engine: Arc<Engine>,
    auth: Auth,
    audit: Option<Arc<AuditLog>>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = routes::router(engine, auth, audit, events::Viewers::new(shutdown.clone()));
    let connections = accept(&listener, router, shutdown).await;
    drop(listener);
    drain(connections).await;
    Ok(())
}

/// Says for so long that the daemon lives and is not ready: there is no store to serve from.
pub async fn unready_for(listener: &AdminListener, span: Duration) {
    let (stop, stopped) = watch::channel(false);
    let serving = async { drain(accept(listener, routes::unready(), stopped).await).await };
    let ending = async {
        tokio::time::sleep(span).await;
        stop.send_replace(true);
    };
    tokio::join!(serving, ending);
}

/// Takes connections until the shutdown; gives those that are still open.
async fn accept(
    listener: &AdminListener,
    router: axum::Router,
    mut shutdown: watch::Receiver<bool>,
) -> JoinSet<()> {
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            let place = place.await.expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (stream, place) = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match stream {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a peer that is gone already: neither ends the service.
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let router = service.clone();
        let service = service_fn(move |mut request: hyper::Request<_>| {
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let mut shutdown = shutdown.clone();
        connections.spawn(async move {
            tokio::pin!(connection);
            // The guard that `wait_for` gives must not live across an await.
            let stopped = async { shutdown.wait_for(|stop| *stop).await.is_ok() };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                _ = stopped => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection broke");
            }
            drop(place);
        });
    }
    connections
}

/// Lets what is under way go on for a while.
async fn drain(mut connections: JoinSet<()>) {
    let drained =
        tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(left = connections.len(), "admin requests were cut off");
    }
    connections.shutdown().await;
}
