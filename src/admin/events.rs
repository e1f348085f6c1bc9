//! The overview as a stream of server-sent events, for those who look at the page.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, HttpBody};
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::problem::Problem;
use super::status::Overview;
use crate::engine::Engine;

/// Streams at a time.
pub(super) const STREAMS: usize = 32;

/// An overview is made once in this time, however many look at it.
const AGE: Duration = Duration::from_millis(900);

/// From one event to the next one, while something changes.
const EVERY: Duration = Duration::from_secs(1);

/// How long a stream goes on; a browser asks again by itself.
const LIFE: Duration = Duration::from_secs(15 * 60);

/// How long a browser waits before it asks again, in milliseconds.
const RETRY_MS: u64 = 3000;

/// Those who look at the page.
pub(super) struct Viewers {
    places: Arc<Semaphore>,
    latest: Mutex<Option<(Instant, Bytes)>>,
    shutdown: watch::Receiver<bool>,
}

impl Viewers {
    /// Nobody yet. All streams end at the shutdown.
    pub(super) fn new(shutdown: watch::Receiver<bool>) -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS)), latest: Mutex::default(), shutdown }
    }

    /// The overview as one event, at most [`AGE`] old.
    async fn event(&self, engine: &Engine) -> Bytes {
        let mut latest = self.latest.lock().await;
        match &*latest {
            Some((made, event)) if made.elapsed() < AGE => event.clone(),
            _ => {
                let overview = Overview::new(engine).await;
                let json = serde_json::to_string(&overview).expect("texts and numbers alone can be written");
                let event = Bytes::from(format!("event: overview\ndata: {json}\n\n"));
                *latest = Some((Instant::now(), event.clone()));
                event
            }
        }
    }

    /// Feeds one stream until its reader goes, its life is over, or the daemon ends.
    async fn feed(&self, engine: &Engine, events: mpsc::Sender<Bytes>) {
        let mut shutdown = self.shutdown.clone();
        let feeding = async {
            let begin = Bytes::from(format!("retry: {RETRY_MS}\n\n"));
            let mut sent = events.send(begin).await;
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while sent.is_ok() {
                tick.tick().await;
                sent = events.send(self.event(engine).await).await;
            }
        };
        tokio::select! {
            () = feeding => {}
            () = events.closed() => {}
            () = tokio::time::sleep(LIFE) => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }
}

/// What a stream's reader reads; its place is free again when it is dropped.
struct Events {
    events: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.events.poll_recv(cx).map(|event| event.map(|octets| Ok(Frame::data(octets))))
    }
}

/// `GET /status/events`
pub(super) async fn events(
    Shared(engine): Shared<Arc<Engine>>,
    Extension(viewers): Extension<Arc<Viewers>>,
) -> Result<Response, Problem> {
    let place = Arc::clone(&viewers.places).try_acquire_owned();
    let place = place.map_err(|_| {
        Problem::unavailable(format!("{STREAMS} streams of events are open already: read /status/overview"))
    })?;
    let (sender, events) = mpsc::channel(1);
    tokio::spawn(async move { viewers.feed(&engine, sender).await });
    let body = Body::new(Events { events, _place: place });
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}
