//! Accepting: a bounded number of connections, each with its time limits; a drain with a deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::limits::Limits;
use super::prefixed::{FirstLine, Prefixed};
use super::service::Service;

/// Octets of a request's head; a longer one is 431.
const MAX_HEAD: usize = 32 << 10;

/// Header lines of a request; more are 431.
const MAX_HEADERS: usize = 100;

/// Connections beyond the limit that are told so at a time; further ones are closed without a word.
const REFUSALS: usize = 256;

/// The bound listeners.
pub struct HttpListener {
    listeners: Vec<TcpListener>,
    service: Arc<Service>,
    limits: Arc<RwLock<Limits>>,
}

/// Binds the addresses.
///
/// # Errors
/// The address, and why it cannot be bound.
pub async fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let bound = TcpListener::bind(address).await;
        listeners.push(
            bound.map_err(|e| {
                io::Error::new(e.kind(), format!("http.listen: {address} cannot be bound: {e}"))
            })?,
        );
    }
    Ok(listeners)
}

/// Answers every connection with 503 for so long: there is no store to serve from.
pub async fn refuse_for(listeners: &[TcpListener], span: Duration) {
    let refusing = Arc::new(Semaphore::new(REFUSALS));
    let accepting = listeners.iter().map(|listener| {
        let refusing = &refusing;
        Box::pin(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => refuse(stream, refusing),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
    });
    let mut accepting: Vec<_> = accepting.collect();
    let all = std::future::poll_fn(|cx| {
        for one in &mut accepting {
            let std::task::Poll::<std::convert::Infallible>::Pending = one.as_mut().poll(cx);
        }
        std::task::Poll::<()>::Pending
    });
    // The span's end is the only way out.
    let _ = tokio::time::timeout(span, all).await;
}

impl HttpListener {
    /// Listeners with what they serve.
    pub fn new(listeners: Vec<TcpListener>, service: Arc<Service>, limits: Arc<RwLock<Limits>>) -> Self {
        Self { listeners, service, limits }
    }

    /// The addresses bound, with the ports that the system chose.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until the shutdown, then waits for open requests up to the drain's deadline.
    pub async fn serve(self, shutdown: watch::Receiver<bool>) {
        let shared = Arc::new(Shared {
            service: self.service,
            limits: self.limits,
            open: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            refusing: Arc::new(Semaphore::new(REFUSALS)),
        });
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, Arc::clone(&shared), shutdown.clone()));
        }
        while accepting.join_next().await.is_some() {}
        let drain = shared.limits().drain;
        let all = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        if tokio::time::timeout(drain, shared.open.acquire_many(all)).await.is_err() {
            tracing::warn!(connections = shared.open_now(), "closed at the drain's deadline");
        }
    }
}

struct Shared {
    service: Arc<Service>,
    limits: Arc<RwLock<Limits>>,
    open: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
}

impl Shared {
    fn limits(&self) -> Limits {
        self.limits.read().expect("no holder of this lock panics").clone()
    }

    fn open_now(&self) -> usize {
        Semaphore::MAX_PERMITS - self.open.available_permits()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|ending| *ending) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to be freed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let limits = shared.limits();
        if shared.open_now() >= limits.max_connections {
            refuse(stream, &shared.refusing);
            continue;
        }
        let Ok(permit) = Arc::clone(&shared.open).try_acquire_owned() else { continue };
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        tokio::spawn(async move {
            shared.service.metrics().connections().inc();
            connection(stream, peer, &shared, limits, shutdown).await;
            shared.service.metrics().connections().dec();
            drop(permit);
        });
    }
}

/// Beyond the limit: 503 and close.
fn refuse(stream: TcpStream, refusing: &Arc<Semaphore>) {
    if let Ok(permit) = Arc::clone(refusing).try_acquire_owned() {
        tokio::spawn(async move {
            close_with(stream, "503 Service Unavailable", "Retry-After: 5\r\n").await;
            drop(permit);
        });
    }
}

/// Answers without having read a request, and closes so that the answer arrives.
async fn close_with<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, status: &str, extra: &str) {
    let answer = format!("HTTP/1.1 {status}\r\n{extra}Connection: close\r\nContent-Length: 0\r\n\r\n");
    let closing = async {
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await?;
        // What the peer has sent must be read, or the close would take the answer back.
        let mut rest = [0u8; 4096];
        for _ in 0..64 {
            if io.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    // The peer may be gone; nothing depends on its reading this.
    let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let Some(config) = &limits.tls else {
        return requests(stream, peer, shared, &limits, shutdown).await;
    };
    let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
    match tokio::time::timeout(limits.request_timeout, handshake).await {
        Ok(Ok(stream)) => requests(stream, peer, shared, &limits, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn requests<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    limits: &Limits,
    mut shutdown: watch::Receiver<bool>,
) {
    let (io, first) = Prefixed::read_ahead(io, limits.request_timeout).await;
    match first {
        FirstLine::Served => {}
        FirstLine::OtherVersion => return close_with(io, "505 HTTP Version Not Supported", "").await,
        FirstLine::Late => return close_with(io, "408 Request Timeout", "").await,
        FirstLine::Gone => return,
    }
    let service = service_fn(|request| {
        let (shared, limits) = (Arc::clone(shared), shared.limits());
        async move { Ok::<_, std::convert::Infallible>(shared.service.handle(request, peer.ip(), &limits).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = shutdown.wait_for(|ending| *ending) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection");
    }
}
