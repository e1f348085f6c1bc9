//! The API over a real listener, a real engine and the embedded store. Every answer that any test gets is held
//! against the OpenAPI document.

mod audit;
mod backup;
mod calls;
pub(crate) mod faulty;
mod jobs;
mod schema;
mod status;
mod truth;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use hyper::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{AdminListener, Auth, serve};
use crate::audit::{AuditLog, Head, Keeper};
use crate::cli::client::{Client, Endpoint, body};
use crate::delivery::{Rules, SmsAlone, SmsLimits};
use crate::engine::{Engine, Identity, Outbox, Settings};
use crate::id::{BTid, Method, ServiceId};
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{EmbeddedStore, StoreError};
use faulty::Faulty;

/// Where LTKMs go in these tests: nowhere.
struct Nowhere;

impl Outbox for Nowhere {
    fn send(&self, batch: &[(IpAddr, &[u8])]) -> usize {
        batch.len()
    }
}

/// Keeps no head.
pub(crate) struct Forgetful;

impl Keeper for Forgetful {
    fn load(&self) -> std::io::Result<Option<Head>> {
        Ok(None)
    }

    fn keep(&self, _: Head) -> std::io::Result<()> {
        Ok(())
    }
}

/// A daemon's admin side.
pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    store: Arc<Faulty>,
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
    pub(crate) directory: tempfile::TempDir,
    /// Every (operation, status) that was answered.
    seen: Mutex<BTreeSet<(String, u16)>>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    fn field(&self) -> &str {
        self.body["field"].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::listening(false).await
    }

    pub(crate) async fn listening(unix: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let log = AuditLog::open(&path, "test", Box::new(Forgetful), Arc::default()).expect("a thread");
        Self::recording(unix, directory, Some(log)).await
    }

    /// One with this audit log, or none.
    pub(crate) async fn recording(unix: bool, directory: tempfile::TempDir, audit: Option<AuditLog>) -> Self {
        let store = EmbeddedStore::open(&directory.path().join("store"), Some([7; 32])).expect("a store");
        let store = Arc::new(Faulty::new(store));
        let settings = Settings {
            rules: Rules {
                preference: vec![Method::Http, Method::Udp, Method::Sms],
                verify: true,
                attempts: 4,
                first_timeout: Duration::from_secs(2),
                sms_alone: SmsAlone::Accept,
                lead_time: Duration::from_secs(600),
                // Turns are waited for, and come for nobody.
                sms: Some(SmsLimits::default()),
            },
            identity: Identity { fqdn: "bmsc.example.com".to_owned(), id_type: mikey::IdType::NAI },
            retain: Duration::from_secs(24 * 3600),
            udp_rate: None,
            nonce_lifetime: Duration::from_secs(300),
        };
        let engine = Engine::new(store.clone(), settings, Arc::new(Metrics::new()), Arc::new(Nowhere));
        let engine = Arc::new(engine.await.expect("an engine"));
        let token = |text: &str| Some(Secret::from(text.as_bytes()));
        let auth = Auth { admin_token: token("admin"), key_reader_token: token("reader"), unix };
        let listener = match unix {
            true => AdminListener::unix(&directory.path().join("admin.sock")).expect("a socket"),
            false => AdminListener::tcp((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a listener"),
        };
        let address = listener.local_addr();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&engine).run_fanout(stopped.clone()));
        let server = tokio::spawn(serve(listener, Arc::clone(&engine), auth, audit.map(Arc::new), stopped));
        Self { engine, store, address, stop, server, directory, seen: Mutex::default() }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match self.address {
            Some(address) => address.into(),
            None => Endpoint::Unix(self.directory.path().join("admin.sock")),
        }
    }

    /// A call with this token and these octets.
    async fn send(&self, token: &str, method: &str, path: &str, media: &str, octets: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        let request = request.body(body(octets)).expect("a request");
        let answer = Client::new(self.endpoint()).send(request).await.expect("an answer");
        let (parts, octets) = answer.into_parts();
        let media = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let body = match media {
            "" => {
                assert!(octets.is_empty());
                Value::Null
            }
            text if text.starts_with("text/") || text.starts_with("application/openmetrics-text") => {
                Value::String(String::from_utf8(octets.to_vec()).expect("UTF-8"))
            }
            "application/octet-stream" => Value::String(data_encoding::BASE64.encode(&octets)),
            // The schema is of one line.
            "application/x-ndjson" => {
                let lines = octets.split(|b| *b == b'\n').filter(|line| !line.is_empty());
                let lines = lines.map(|line| serde_json::from_slice(line).expect("JSON"));
                lines.collect::<Vec<Value>>().into()
            }
            _ => serde_json::from_slice(&octets).expect("JSON"),
        };
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
        schema::hold(method, path, &answer);
        self.saw(method, path, answer.status);
        answer
    }

    /// Notes a status that was answered, or that nothing here can bring about.
    fn saw(&self, method: &str, path: &str, status: u16) {
        if let Some(id) = schema::operation_id(method, path) {
            self.seen.lock().expect("no panic").insert((id.to_owned(), status));
        }
    }

    /// A call by the administrator with a JSON document; null is no body.
    async fn call(&self, method: &str, path: &str, document: Value) -> Answer {
        match document {
            Value::Null => self.send("admin", method, path, "", Vec::new()).await,
            document => {
                self.send("admin", method, path, "application/json", document.to_string().into()).await
            }
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Value::Null).await
    }

    /// A request written as it stands, and everything that comes back until the connection's end.
    async fn raw(&self, octets: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address.expect("TCP")).await.expect("a connection");
        stream.write_all(octets).await.expect("it is taken");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer and its end");
        String::from_utf8(answer).expect("text")
    }

    /// A service, a subscriber entitled to it and a credential of that.
    async fn provision(&self) {
        assert_eq!(self.call("PUT", SERVICE, service()).await.status, 201);
        let subscriber = json!({"msisdn": "4917012345678", "services": [SERVICE_ID]});
        assert_eq!(self.call("PUT", "/v1/subscribers/alice%40example.com", subscriber).await.status, 201);
        assert_eq!(self.call("PUT", CREDENTIAL, credential()).await.status, 201);
    }

    /// Registers the terminal of [`World::provision`] with these methods' types.
    pub(crate) async fn register(&self, types: &[u8]) {
        let btid = BTid::new(BTID).expect("a B-TID");
        let services = vec![ServiceId::new(SERVICE_ID).expect("an id")];
        let address = Ipv4Addr::new(192, 0, 2, 1).into();
        self.engine
            .register(&btid, address, services, Some(types.to_vec()), None)
            .await
            .expect("the store works");
    }

    /// From now on this cluster is shown.
    pub(crate) fn show_cluster(&self, cluster: crate::store::cluster::Cluster) {
        *self.store.cluster.lock().expect("no panic") = Some(cluster);
    }

    /// From now on the store fails like this.
    fn break_store(&self, error: Option<StoreError>) {
        *self.store.fault.lock().expect("no panic") = error;
    }
}

pub(crate) const SERVICE_ID: &str = "urn:oma:bcast/news 1";
pub(crate) const SERVICE: &str = "/v1/services/urn%3Aoma%3Abcast%2Fnews%201";
pub(crate) const BTID: &str = "q83v/+8=@bsf.example.com";
const CREDENTIAL: &str = "/v1/credentials/q83v%2F%2B8%3D%40bsf.example.com";
const TERMINAL: &str = "/v1/terminals/q83v%2F%2B8%3D%40bsf.example.com";

fn service() -> Value {
    json!({"key_domain": "b8709d", "key_group": "68c9", "validity": "ntp"})
}

fn credential() -> Value {
    let key = data_encoding::BASE64.encode(&[0x5A; 32]);
    json!({"subscriber": "alice@example.com", "mrk": key, "muk": key, "gba": "u", "expires": null})
}
