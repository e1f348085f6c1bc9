//! Accepting: a bounded number of connections, each with its time limits; a drain with a deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::limits::Limits;
use super::prefixed::{FirstLine, Prefixed};
use super::service::Service;

/// Octets of a request's head; a longer one is 431.
const MAX_HEAD: usize = 32 << 10;

/// Header lines of a request; more are 431.
const MAX_HEADERS: usize = 100;

/// How long a connection that is being closed is read on.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection that was taken just before the end may take to ask. Its peer may have sent the request
/// already, and would not know whether to send it again.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// More connections than `http.max_connections` can allow, and no more than can be waited for at once.
const PLACES: u32 = 1 << 28;

/// Connections beyond the limit that are told so at a time; further ones are closed without a word.
const REFUSALS: usize = 256;

/// The bound listeners.
pub struct HttpListener {
    listeners: Vec<TcpListener>,
    service: Arc<Service>,
    limits: Arc<RwLock<Limits>>,
}

/// Binds the addresses, except those whose place in `handed` has a socket, which must not block.
///
/// # Errors
/// The address, and why it cannot be bound.
pub async fn bind(
    addresses: &[SocketAddr],
    handed: Vec<Option<std::net::TcpListener>>,
) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for (address, handed) in addresses.iter().zip(handed.into_iter().chain(std::iter::repeat_with(|| None))) {
        let bound = match handed {
            Some(listener) => TcpListener::from_std(listener),
            None => TcpListener::bind(address).await,
        };
        listeners.push(
            bound.map_err(|e| {
                io::Error::new(e.kind(), format!("http.listen: {address} cannot be bound: {e}"))
            })?,
        );
    }
    Ok(listeners)
}

/// Answers every connection with 503 for so long: there is no store to serve from.
pub async fn refuse_for(listeners: &[TcpListener], tls: Option<&Arc<ServerConfig>>, span: Duration) {
    let refusing = Arc::new(Semaphore::new(REFUSALS));
    let accepting = listeners.iter().map(|listener| {
        let refusing = &refusing;
        Box::pin(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => refuse(stream, tls.cloned(), refusing),
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
            open: Arc::new(Semaphore::new(PLACES as usize)),
            refusing: Arc::new(Semaphore::new(REFUSALS)),
        });
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, Arc::clone(&shared), shutdown.clone()));
        }
        while accepting.join_next().await.is_some() {}
        let drain = shared.limits().drain;
        if tokio::time::timeout(drain, shared.open.acquire_many(PLACES)).await.is_err() {
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
        PLACES as usize - self.open.available_permits()
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
            shared.service.refused_unread(StatusCode::SERVICE_UNAVAILABLE);
            tracing::debug!(%peer, "refused: http.max_connections are open");
            refuse(stream, limits.tls, &shared.refusing);
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
fn refuse(stream: TcpStream, tls: Option<Arc<ServerConfig>>, refusing: &Arc<Semaphore>) {
    if let Ok(permit) = Arc::clone(refusing).try_acquire_owned() {
        tokio::spawn(async move {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            match tls.map(TlsAcceptor::from) {
                None => close_with(stream, status).await,
                Some(acceptor) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(LINGER, acceptor.accept(stream)).await {
                        close_with(stream, status).await;
                    }
                }
            }
            drop(permit);
        });
    }
}

/// Answers without having read a request, and closes so that the answer arrives.
async fn close_with<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, status: StatusCode) {
    let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "Retry-After: 5\r\n" } else { "" };
    let answer = format!("HTTP/1.1 {status}\r\n{retry}Connection: close\r\nContent-Length: 0\r\n\r\n");
    let closing = async {
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await
    };
    // The peer may be gone; nothing depends on its reading this.
    if let Ok(Ok(())) = tokio::time::timeout(LINGER, closing).await {
        linger(io).await;
    }
}

/// Reads on for a while after the answer: what the peer still sends would take the answer back if it met a socket
/// that is closed (RFC 9112 §9.6).
async fn linger<T: AsyncRead + Unpin>(mut io: T) {
    let reading = async {
        let mut rest = [0u8; 4096];
        for _ in 0..256 {
            if io.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(LINGER, reading).await;
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
    let peer = peer.ip();
    let mut reading = std::pin::pin!(Prefixed::read_ahead(io, limits.request_timeout));
    let ahead = tokio::select! {
        ahead = reading.as_mut() => Some(ahead),
        _ = shutdown.wait_for(|ending| *ending) => None,
    };
    let (mut io, first) = match ahead {
        Some(ahead) => ahead,
        None => match tokio::time::timeout(FIRST_REQUEST, reading).await {
            Ok(ahead) => ahead,
            // Nothing was asked.
            Err(_) => return,
        },
    };
    let refused = match first {
        FirstLine::Served => None,
        FirstLine::OtherVersion => Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        FirstLine::TooLong => Some(StatusCode::URI_TOO_LONG),
        FirstLine::Late => Some(StatusCode::REQUEST_TIMEOUT),
        FirstLine::Gone => return,
    };
    if let Some(status) = refused {
        note(shared, peer, status);
        return close_with(io, status).await;
    }
    let unread = AtomicBool::new(false);
    let service = service_fn(|request| {
        let (shared, limits, unread) = (Arc::clone(shared), shared.limits(), &unread);
        async move {
            let (response, read) = shared.service.handle(request, peer, &limits).await;
            unread.store(!read, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let ended = {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.request_timeout)
            // A peer that has nothing more to send may still wait for its answer.
            .half_close(true)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(&mut io), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            // First, so that hyper has seen the request that was read ahead: it closes a connection without one.
            biased;
            ended = connection.as_mut() => Some(ended),
            _ = shutdown.wait_for(|ending| *ending) => None,
        };
        match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    match ended {
        Ok(()) if unread.load(Ordering::Relaxed) => linger(io).await,
        Ok(()) => {}
        Err(error) if error.is_timeout() && io.request_begun() => {
            note(shared, peer, StatusCode::REQUEST_TIMEOUT);
            close_with(io, StatusCode::REQUEST_TIMEOUT).await;
        }
        Err(error) if error.is_parse() => {
            // hyper has answered already.
            note(shared, peer, status_of(&error));
            linger(io).await;
        }
        Err(error) => tracing::debug!(%peer, %error, "connection"),
    }
}

/// What hyper answers to a head that it cannot read.
fn status_of(error: &hyper::Error) -> StatusCode {
    if error.is_parse_too_large() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    }
}

/// Counts and logs a request that was refused before its head was read.
fn note(shared: &Shared, peer: IpAddr, status: StatusCode) {
    shared.service.refused_unread(status);
    tracing::info!(%peer, status = status.as_u16(), "request refused before its head was read");
}
