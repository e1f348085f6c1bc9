//! `GET /v1/backup` and `GET /v1/export`: the store at one moment, streamed.
//!
//! A reader takes what it can; the store is read a piece ahead of it. Who takes nothing for half a minute is cut off,
//! since a moment that is held makes the store keep what newer commits replace.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::auth::Caller;
use super::export::Export;
use super::problem::Problem;
use super::query::Query;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::backup::{BackupStream, ProvisionedStream};

/// Pieces that wait to be taken.
const AHEAD: usize = 4;

/// How long a reader may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// About how many lines an export has.
const LINES: HeaderName = HeaderName::from_static("ltkmd-lines");

/// The one place for a backup or an export.
#[derive(Clone)]
pub(super) struct Place(Arc<Semaphore>);

impl Default for Place {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Place {
    fn take(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let taken = Arc::clone(&self.0).try_acquire_owned();
        taken.map_err(|_| Problem::unavailable("another backup or export is under way: wait for its end"))
    }
}

/// `GET /v1/backup`
pub(super) async fn backup(
    State(engine): State<Arc<Engine>>,
    Extension(place): Extension<Place>,
    query: Query,
) -> Result<Response, Problem> {
    query.finish()?;
    let permit = place.take()?;
    let mut stream = BackupStream::new(engine.store().moment().await?);
    // What fails at once is told as a problem, not as a body that breaks off.
    let (first, stream) = blocking(move || Ok((stream.next_octets()?, stream))).await?;
    let body = Streamed::new("backup", first, stream, BackupStream::next_octets, permit);
    Ok(([(CONTENT_TYPE, "application/octet-stream")], Body::new(body)).into_response())
}

/// `GET /v1/export`
pub(super) async fn export(
    State(engine): State<Arc<Engine>>,
    Extension(place): Extension<Place>,
    Extension(caller): Extension<Caller>,
    mut query: Query,
) -> Result<Response, Problem> {
    let secrets = query.flag("secrets")?;
    query.finish()?;
    caller.may_read_keys(secrets)?;
    let permit = place.take()?;
    let (moment, catalogue) = (engine.store().moment().await?, engine.catalogue());
    let mut export = {
        let engine = Arc::clone(&engine);
        blocking(move || Ok(Export::new(engine, catalogue, ProvisionedStream::new(moment)?, secrets))).await?
    };
    let expected = export.expected().to_string();
    let (first, export) = blocking(move || Ok((export.lines()?, export))).await?;
    let what = if secrets { "export with secrets" } else { "export" };
    let body = Streamed::new(what, first, export, Export::lines, permit);
    let headers = [(CONTENT_TYPE, "application/x-ndjson".to_owned()), (LINES, expected)];
    Ok((headers, Body::new(body)).into_response())
}

/// Reads the store where reading may take its time.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|_| Err(StoreError::Unavailable("reading broke off".to_owned())))
}

/// A body whose pieces a task reads. Without a whole end it breaks off, so that nobody takes a part for all.
struct Streamed(mpsc::Receiver<Option<Bytes>>);

impl Streamed {
    /// `first` is what was read already; `next` reads more, until it gives nothing.
    fn new<T: Send + 'static>(
        what: &'static str,
        first: Option<Bytes>,
        mut source: T,
        next: fn(&mut T) -> Result<Option<Bytes>, StoreError>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let (begun, mut octets, mut piece) = (Instant::now(), 0, first);
            let outcome = loop {
                octets += piece.as_ref().map_or(0, Bytes::len);
                let ends = piece.is_none();
                match sender.send_timeout(piece, PATIENCE).await {
                    Ok(()) if ends => break "complete",
                    Ok(()) => {}
                    Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                        break "the reader took nothing for too long";
                    }
                    Err(mpsc::error::SendTimeoutError::Closed(_)) => break "the reader is gone",
                }
                let read = blocking(move || {
                    let piece = next(&mut source)?;
                    Ok((piece, source))
                });
                match read.await {
                    Ok(read) => (piece, source) = read,
                    Err(error) => {
                        tracing::warn!(%error, what, "the store failed meanwhile");
                        break "broken off";
                    }
                }
            };
            let took_ms = begun.elapsed().as_millis() as u64;
            tracing::info!(what, outcome, octets, took_ms, "the store was read out");
            drop(permit);
        });
        Self(receiver)
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match ready!(self.0.poll_recv(cx)) {
            Some(Some(octets)) => Some(Ok(Frame::data(octets))),
            Some(None) => None,
            None => Some(Err(io::Error::other("the store could not be read to its end"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_source_that_fails_breaks_the_body_off_and_gives_its_place_back() {
        let place = Place::default();
        let counted = |left: &mut u32| match *left {
            0 => Err(StoreError::Closed),
            _ => {
                *left -= 1;
                Ok(Some(Bytes::from_static(b"x")))
            }
        };
        let permit = place.take().expect("the place is free");
        assert!(place.take().is_err_and(|p| p.status() == 503), "there is one place");
        let mut body = Streamed::new("test", Some(Bytes::from_static(b"a")), 2, counted, permit);
        let mut read = Vec::new();
        let error = loop {
            match body.frame().await.expect("it does not end as if it were whole") {
                Ok(frame) => read.extend_from_slice(frame.data_ref().expect("data")),
                Err(error) => break error,
            }
        };
        assert_eq!(read, b"axx");
        assert!(error.to_string().contains("to its end"), "{error}");
        let freed = Arc::clone(&place.0).acquire_owned().await;
        assert!(freed.is_ok());
    }
}
