//! A small HTTP/1.1 client over TCP or a unix socket: one connection, kept alive, reopened when it is gone.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Octets of an answer's body at most, unless [`Client::max_body`] says otherwise: a page of 1,000 items with
/// room to spare.
const MAX_BODY: usize = 64 << 20;

/// How long one exchange may take, unless [`Client::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer that is taken piece by piece may give nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's body: octets at hand, or a stream.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body of these octets; empty ones are no body.
pub fn body(octets: impl Into<Bytes>) -> Body {
    Full::new(octets.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is fed through a channel and ends when its sender is gone. An error breaks the request off.
pub fn stream(frames: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    struct Fed(mpsc::Receiver<io::Result<Bytes>>);
    impl hyper::body::Body for Fed {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            self.0.poll_recv(cx).map(|next| next.map(|octets| octets.map(Frame::data)))
        }
    }
    Fed(frames).boxed_unsync()
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://HOST:PORT`.
    Tcp {
        /// A host name or an address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Not a server's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no server: give http://HOST:PORT or unix: and the path of a socket")]
pub struct EndpointError;

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(path);
            return if path.is_empty() { Err(EndpointError) } else { Ok(Self::Unix(PathBuf::from(path))) };
        }
        let authority = text.strip_prefix("http://").ok_or(EndpointError)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| EndpointError)?),
            _ => (authority, 80),
        };
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let sound = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if !sound || port == 0 {
            return Err(EndpointError);
        }
        Ok(Self::Tcp { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody could be reached.
    #[error("{endpoint} cannot be reached: {error}")]
    Connect {
        /// Who it was to be.
        endpoint: Endpoint,
        /// What kept us from it.
        error: io::Error,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the connection to {endpoint} broke: {error}")]
    Broken {
        /// With whom.
        endpoint: Endpoint,
        /// How.
        error: hyper::Error,
    },
    /// No answer came in time.
    #[error("{endpoint} did not answer in {} seconds", after.as_secs_f32())]
    Timeout {
        /// Who did not.
        endpoint: Endpoint,
        /// How long it had.
        after: Duration,
    },
    /// The answer's body is larger than [`Client::max_body`].
    #[error("the answer of {endpoint} is larger than {limit} octets")]
    TooLarge {
        /// Whose answer.
        endpoint: Endpoint,
        /// The limit, in octets.
        limit: usize,
    },
}

/// TLS over TCP connections: whom to believe, and who is to answer.
#[derive(Clone)]
pub struct Tls {
    /// What connections are made with.
    pub connector: TlsConnector,
    /// The server's name.
    pub name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One connection to one server; an exchange at a time.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    /// How long one exchange may take, from its first octet to the last; `None`: for ever.
    pub timeout: Option<Duration>,
    /// Octets of an answer's body at most.
    pub max_body: usize,
    /// The address that TCP connections leave from; `None`: the system's choice.
    pub local: Option<IpAddr>,
    /// TLS over TCP connections; `None`: plain HTTP.
    pub tls: Option<Tls>,
    host: HeaderValue,
    sender: Option<SendRequest<Body>>,
}

impl Client {
    /// A client of this server. Nothing is connected yet.
    pub fn new(endpoint: Endpoint) -> Self {
        let host = match &endpoint {
            Endpoint::Tcp { .. } => endpoint.to_string().trim_start_matches("http://").to_owned(),
            Endpoint::Unix(_) => "localhost".to_owned(),
        };
        let host = HeaderValue::from_str(&host).expect("a host name or an address is visible ASCII");
        let (timeout, max_body) = (Some(TIMEOUT), MAX_BODY);
        Self { endpoint, timeout, max_body, local: None, tls: None, host, sender: None }
    }

    /// The server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request whose URI is a path and takes the whole answer. `Host` is set; the connection is opened
    /// when there is none, and again when the server closed it before the request was sent.
    ///
    /// # Errors
    /// No connection, a broken one, no answer in time, an answer that is too large.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Bytes>, ClientError> {
        let Some(after) = self.timeout else { return self.exchange(request).await };
        match tokio::time::timeout(after, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.sender = None;
                Err(ClientError::Timeout { endpoint: self.endpoint.clone(), after })
            }
        }
    }

    /// Sends a request and gives its answer as soon as it begins; [`Client::timeout`] is for that begin alone. The
    /// connection serves no other request.
    ///
    /// # Errors
    /// No connection, a broken one, no answer in time.
    pub async fn open_answer(&mut self, request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        let after = self.timeout.unwrap_or(Duration::MAX);
        let begun = tokio::time::timeout(after, self.begin(request)).await;
        self.sender = None;
        begun.map_err(|_| ClientError::Timeout { endpoint: self.endpoint.clone(), after })?
    }

    /// The next octets of an answer that [`Client::open_answer`] began; `None` at its end.
    ///
    /// # Errors
    /// It broke off, or nothing came for a minute.
    pub async fn next_octets(&self, answer: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = tokio::time::timeout(SILENCE, answer.frame()).await;
            let frame = frame
                .map_err(|_| ClientError::Timeout { endpoint: self.endpoint.clone(), after: SILENCE })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(octets) = frame.into_data() {
                        return Ok(Some(octets));
                    }
                }
            }
        }
    }

    /// Sends a request and takes the head of its answer.
    async fn begin(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        request.headers_mut().insert(HOST, self.host.clone());
        loop {
            let (mut sender, reused) = match self.sender.take() {
                Some(sender) => (sender, true),
                None => (self.connect().await?, false),
            };
            let sent = match sender.ready().await {
                Ok(()) => sender.try_send_request(request).await,
                Err(_) if reused => continue,
                Err(error) => return Err(self.broken(error)),
            };
            match sent {
                Ok(response) => {
                    self.sender = Some(sender);
                    return Ok(response);
                }
                // A connection that the server closed while it lay idle gives the request back unsent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(self.broken(error.into_error())),
                },
            }
        }
    }

    async fn exchange(&mut self, request: Request<Body>) -> Result<Response<Bytes>, ClientError> {
        let (parts, mut body) = self.begin(request).await?.into_parts();
        let mut octets = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.sender = None;
                    return Err(self.broken(error));
                }
            };
            if let Some(data) = frame.data_ref() {
                if octets.len() + data.len() > self.max_body {
                    self.sender = None;
                    return Err(ClientError::TooLarge {
                        endpoint: self.endpoint.clone(),
                        limit: self.max_body,
                    });
                }
                octets.extend_from_slice(data);
            }
        }
        Ok(Response::from_parts(parts, octets.freeze()))
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        ClientError::Broken { endpoint: self.endpoint.clone(), error }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let failed = |error| ClientError::Connect { endpoint: self.endpoint.clone(), error };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await;
        let timeout = |_| failed(io::ErrorKind::TimedOut.into());
        connected.map_err(timeout)?.map_err(failed)?.map_err(|error| self.broken(error))
    }

    /// The outer error is the socket's, the inner one HTTP's.
    async fn open(&self) -> io::Result<Result<SendRequest<Body>, hyper::Error>> {
        match &self.endpoint {
            Endpoint::Unix(path) => Ok(handshake(UnixStream::connect(path).await?).await),
            Endpoint::Tcp { host, port } => {
                let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in tokio::net::lookup_host((host.as_str(), *port)).await? {
                    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                    if let Some(local) = self.local {
                        socket.bind(SocketAddr::new(local, 0))?;
                    }
                    match socket.connect(address).await {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return match &self.tls {
                                None => Ok(handshake(stream).await),
                                Some(tls) => {
                                    Ok(handshake(tls.connector.connect(tls.name.clone(), stream).await?)
                                        .await)
                                }
                            };
                        }
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender, or with the server's half; who waits for an answer hears of a failure.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_endpoint_is_a_url_of_http_or_unix() {
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.to_owned(), port };
        for (text, endpoint) in [
            ("http://127.0.0.1:9470", tcp("127.0.0.1", 9470)),
            ("http://[::1]:9470/", tcp("::1", 9470)),
            ("http://bsm.example.com", tcp("bsm.example.com", 80)),
            ("unix:/run/ltkmd/admin.sock", Endpoint::Unix("/run/ltkmd/admin.sock".into())),
            ("unix:///run/x", Endpoint::Unix("/run/x".into())),
        ] {
            assert_eq!(text.parse(), Ok(endpoint), "{text}");
        }
        for text in [
            "",
            "https://a:1",
            "127.0.0.1:9470",
            "http://",
            "http://a:x",
            "http://a:0",
            "http://::1:1",
            "http://a:1/b",
            "http://u@a:1",
            "unix:",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError), "{text}");
        }
        assert_eq!(tcp("::1", 9470).to_string(), "http://[::1]:9470");
    }

    fn get(path: &str) -> Request<Body> {
        Request::get(path).body(body("")).expect("a request")
    }

    /// Answers so many requests on each of several connections, then closes it.
    async fn server(per_connection: &'static [usize], answer: &'static str) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            for requests in per_connection {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                for _ in 0..*requests {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.expect("a request"));
                    }
                    stream.write_all(answer.as_bytes()).await.expect("an answer");
                }
            }
        });
        address.into()
    }

    const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    #[tokio::test]
    async fn a_connection_is_kept_until_the_server_closes_it_and_opened_again_then() {
        let mut client = Client::new(server(&[2], HELLO).await);
        for _ in 0..2 {
            let answer = client.send(get("/")).await.expect("an answer");
            assert_eq!(&answer.body()[..], b"hello");
        }
        const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let mut client = Client::new(server(&[1, 1, 1], LAST).await);
        for _ in 0..3 {
            let answer = client.send(get("/")).await.expect("an answer");
            assert_eq!(&answer.body()[..], b"hello");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_refused() {
        let mut client = Client::new(server(&[1], HELLO).await);
        client.max_body = 4;
        let refused = client.send(get("/")).await.expect_err("5 octets");
        assert!(matches!(refused, ClientError::TooLarge { limit: 4, .. }));
    }

    #[tokio::test]
    async fn who_is_not_there_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let error = Client::new(address.into()).send(get("/")).await.expect_err("nobody listens");
        assert!(error.to_string().starts_with(&format!("http://{address} cannot be reached: ")), "{error}");
    }

    #[tokio::test]
    async fn an_exchange_ends_with_its_time() {
        // Nobody accepts: the system takes the connection, and no answer comes.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let mut client = Client::new(listener.local_addr().expect("an address").into());
        client.timeout = Some(Duration::from_millis(20));
        assert!(matches!(client.send(get("/")).await, Err(ClientError::Timeout { .. })));
    }
}
