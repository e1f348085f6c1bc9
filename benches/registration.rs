//! Registrations beside a bare hyper server: the same requests, answers of the same length, connections and
//! client, in one run.
//!
//! `cargo bench --bench registration -- [SECONDS]` (10 when left out). Each connection is a terminal that
//! knows its nonce and registers again and again; every answer brings an LTKM and stands on a durable commit.

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{FQDN, btid, engine, key, provision};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ltkmd::digest::client::{Challenge, Outgoing, answer};
use ltkmd::digest::{Algorithm, Authenticator, DEFAULT_MAX_NONCES, DigestConfig, NonceMemory, Qop, password};
use ltkmd::document::ContainerChildren;
use ltkmd::id::ServiceId;
use ltkmd::secret::Secret;
use ltkmd::store::{EmbeddedStore, Store};
use ltkmd::transport::http::{HttpListener, Limits, Service, bind};
use ltkmd::transport::udp::UdpPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 64;
const PATH: &str = "/keymanagement?requesttype=register";
const BODY: &str = "<mbmsSecurityRegister xmlns=\"urn:3GPP:metadata:2005:MBMS:securityRegistration\" \
    xmlns:bcast=\"urn:oma:xml:bcast:pr:orderqueries:1.0\"><serviceID>urn:bench</serviceID>\
    <bcast:RegistrationRequestExtension version=\"0\"><bcast:LTKMDelivery><bcast:Type>0</bcast:Type>\
    <bcast:Type>2</bcast:Type></bcast:LTKMDelivery></bcast:RegistrationRequestExtension></mbmsSecurityRegister>";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(10);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(Duration::from_secs(seconds)))
}

async fn measure(span: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir.path(), None)?);
    let udp = Arc::new(UdpPort::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], 4359)?);
    let engine = engine(Arc::clone(&store), udp).await?;
    provision(&engine, &ServiceId::new("urn:bench")?, CONNECTIONS).await?;
    let config = DigestConfig {
        fqdn: FQDN.to_owned(),
        algorithms: vec![Algorithm::Sha256],
        nonce_lifetime: Duration::from_secs(3600),
        max_nonces: DEFAULT_MAX_NONCES,
    };
    let service = Arc::new(Service {
        engine,
        authenticator: Authenticator::new(config, NonceMemory::Process(Secret::new(vec![7; 32]))),
        path: "/keymanagement".to_owned(),
        trusted_proxies: Vec::new(),
        children: ContainerChildren::Qualified,
        max_items: AtomicUsize::new(256),
    });
    let limits = Limits {
        max_connections: 1000,
        request_timeout: Duration::from_secs(10),
        max_body: 64 << 10,
        drain: Duration::from_secs(1),
        tls: None,
    };
    let listeners = bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], Vec::new()).await?;
    let listener = HttpListener::new(listeners, service, Arc::new(RwLock::new(limits)));
    let ours = listener.local_addresses()?[0];
    let (_stop, running) = tokio::sync::watch::channel(false);
    tokio::spawn(listener.serve(running));
    let bare = bare_server(ours).await.map_err(|e| e.to_string())?;

    println!("| server | requests, /s | of bare | p50 | p99 | longest |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut rates = Vec::new();
    for (name, to) in [("ltkmd", ours), ("bare hyper", bare), ("ltkmd", ours), ("bare hyper", bare)] {
        let mut clients = tokio::task::JoinSet::new();
        let began = Instant::now();
        for i in 0..CONNECTIONS {
            clients.spawn(client(i, to, ours, began + span));
        }
        let mut all = hdrhistogram::Histogram::<u64>::new(3)?;
        while let Some(done) = clients.join_next().await {
            let latencies = done?.map_err(|e| e.to_string())?;
            all.add(latencies)?;
        }
        let rate = all.len() as f64 / span.as_secs_f64();
        rates.push((name, rate, all));
    }
    for pair in rates.chunks(2) {
        for (name, rate, all) in pair {
            let ms = |us: u64| us as f64 / 1000.0;
            println!(
                "| {name} | {rate:.0} | {:.2} | {:.2} ms | {:.2} ms | {:.2} ms |",
                rate / pair[1].1,
                ms(all.value_at_quantile(0.5)),
                ms(all.value_at_quantile(0.99)),
                ms(all.max())
            );
        }
    }
    store.close().await?;
    Ok(())
}

/// A hyper server that reads the body and answers what a registration is answered.
async fn bare_server(ours: SocketAddr) -> Result<SocketAddr, ClientError> {
    let (mut connection, challenge) = challenged(ours).await?;
    let body = Bytes::from(connection.exchange(&request(0, &challenge, 1)).await?.1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let body = body.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let body = body.clone();
                async move {
                    let read =
                        request.into_body().collect().await.map(|b| b.to_bytes().len()).unwrap_or_default();
                    let mut response = Response::new(Full::new(body));
                    response.headers_mut().insert("x-read", read.into());
                    Ok::<_, Infallible>(response)
                }
            });
            let nodelay = stream.set_nodelay(true);
            if nodelay.is_ok() {
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        }
    });
    Ok(address)
}

type ClientError = Box<dyn std::error::Error + Send + Sync>;

/// One terminal: asks until the time is over; latencies in microseconds.
async fn client(
    i: usize,
    to: SocketAddr,
    ours: SocketAddr,
    until: Instant,
) -> Result<hdrhistogram::Histogram<u64>, ClientError> {
    let (_, challenge) = challenged(ours).await?;
    let mut connection = Connection(TcpStream::connect(to).await?);
    connection.0.set_nodelay(true)?;
    let mut latencies = hdrhistogram::Histogram::new(3)?;
    let mut nc = 0;
    while Instant::now() < until {
        nc += 1;
        let request = request(i, &challenge, nc);
        let began = Instant::now();
        let (status, body) = connection.exchange(&request).await?;
        if status != 200 {
            return Err(format!("answered {status}: {}", String::from_utf8_lossy(&body)).into());
        }
        latencies.record(began.elapsed().as_micros() as u64)?;
    }
    Ok(latencies)
}

async fn challenged(ours: SocketAddr) -> Result<(Connection, Challenge), ClientError> {
    let mut connection = Connection(TcpStream::connect(ours).await?);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/mbms-register+xml\r\nContent-Length: 0\r\n\r\n"
    );
    let mut octets = vec![0; 4096];
    connection.0.write_all(head.as_bytes()).await?;
    let len = connection.0.read(&mut octets).await?;
    let text = String::from_utf8_lossy(&octets[..len]).into_owned();
    let lines = text.lines().filter_map(|l| l.strip_prefix("www-authenticate: "));
    let challenge = Challenge::strongest(lines.map(str::as_bytes)).map_err(|e| e.to_string())?;
    Ok((connection, challenge))
}

fn request(i: usize, challenge: &Challenge, nc: u32) -> Vec<u8> {
    let outgoing = Outgoing { method: "POST", uri: PATH, body: BODY.as_bytes() };
    let password = password(key(i).expose());
    let answer = answer(challenge, outgoing, (&btid(i), &password), Qop::Auth, "0a4f113b", nc);
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/mbms-register+xml\r\nAuthorization: {}\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        answer.header(),
        BODY.len()
    )
    .into_bytes()
}

struct Connection(TcpStream);

impl Connection {
    /// Sends a request; gives the answer's status and body.
    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), ClientError> {
        self.0.write_all(request).await?;
        let mut octets = Vec::with_capacity(2048);
        let head = loop {
            if self.0.read_buf(&mut octets).await? == 0 {
                return Err("closed".into());
            }
            if let Some(end) = octets.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&octets[..head])?;
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let length = length.ok_or("no length")?;
        while octets.len() < head + length {
            if self.0.read_buf(&mut octets).await? == 0 {
                return Err("closed".into());
            }
        }
        Ok((status, octets.split_off(head)))
    }
}
