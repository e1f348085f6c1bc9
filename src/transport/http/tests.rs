//! Two nodes over one store: a nonce of one is good at the other, and no pair is used twice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{HttpListener, Limits, Service, bind};
use crate::admin::tests::faulty::Faulty;
use crate::delivery::{Rules, SmsAlone, Terminal};
use crate::digest::client::{Challenge, Outgoing, answer};
use crate::digest::{Algorithm, Authenticator, DigestConfig, NonceMemory, NonceUse, Qop, password};
use crate::document::ContainerChildren;
use crate::engine::{
    CredentialKeys, CredentialSpec, Engine, Identity, ImportItem, Outbox, ServiceSpec, Settings,
};
use crate::gba::GbaType;
use crate::id::{BTid, KeyDomainId, Method, ServiceId, SubscriberId};
use crate::keys::Validity;
use crate::secret::Secret;
use crate::store::{EmbeddedStore, Store, StoreError, Subscriber};

const FQDN: &str = "bmsc.example.com";
const BTID: &str = "q83v/+8=@bsf.example.com";
const KEY: [u8; 32] = [0x5A; 32];
const LIFETIME: Duration = Duration::from_secs(300);
const PATH: &str = "/keymanagement?requesttype=register";

/// A registration that declares LTKMs inside the answer.
const REGISTER: &str = "<mbmsSecurityRegister xmlns=\"urn:3GPP:metadata:2005:MBMS:securityRegistration\" \
    xmlns:bcast=\"urn:oma:xml:bcast:pr:orderqueries:1.0\"><serviceID>urn:s</serviceID>\
    <bcast:RegistrationRequestExtension version=\"0\"><bcast:LTKMDelivery><bcast:Type>2</bcast:Type>\
    </bcast:LTKMDelivery></bcast:RegistrationRequestExtension></mbmsSecurityRegister>";

struct Nowhere;

impl Outbox for Nowhere {
    fn send(&self, batch: &[(IpAddr, &[u8])]) -> usize {
        batch.len()
    }
}

/// A node of the cluster.
struct Node {
    engine: Arc<Engine>,
    address: SocketAddr,
    _stop: watch::Sender<bool>,
}

struct Cluster {
    store: Arc<Faulty>,
    a: Node,
    b: Node,
    _directory: tempfile::TempDir,
}

async fn engine(store: &Arc<Faulty>) -> Arc<Engine> {
    let settings = Settings {
        rules: Rules {
            preference: vec![Method::Http, Method::Udp],
            verify: true,
            attempts: 4,
            first_timeout: Duration::from_secs(2),
            sms_alone: SmsAlone::Accept,
            lead_time: Duration::from_secs(600),
            sms: None,
        },
        identity: Identity { fqdn: FQDN.to_owned(), id_type: mikey::IdType::NAI },
        retain: Duration::from_secs(24 * 3600),
        udp_rate: None,
        nonce_lifetime: LIFETIME,
    };
    let store: Arc<dyn Store> = Arc::<Faulty>::clone(store);
    Arc::new(Engine::new(store, settings, Arc::default(), Arc::new(Nowhere)).await.expect("an engine"))
}

async fn node(store: &Arc<Faulty>) -> Node {
    let engine = engine(store).await;
    let config = DigestConfig {
        fqdn: FQDN.to_owned(),
        algorithms: vec![Algorithm::Sha256],
        nonce_lifetime: LIFETIME,
        max_nonces: 1024,
    };
    let service = Service {
        engine: Arc::clone(&engine),
        authenticator: Authenticator::new(config, NonceMemory::Shared(Secret::new(vec![9; 32]))),
        path: "/keymanagement".to_owned(),
        trusted_proxies: Vec::new(),
        children: ContainerChildren::Qualified,
        max_items: AtomicUsize::new(256),
    };
    let limits = Limits {
        max_connections: 100,
        request_timeout: Duration::from_secs(10),
        max_body: 64 << 10,
        drain: Duration::from_secs(1),
        tls: None,
    };
    let listeners =
        bind(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], Vec::new()).await.expect("a listener");
    let listener = HttpListener::new(listeners, Arc::new(service), Arc::new(RwLock::new(limits)));
    let address = listener.local_addresses().expect("an address")[0];
    let (stop, running) = watch::channel(false);
    tokio::spawn(listener.serve(running));
    Node { engine, address, _stop: stop }
}

fn btid() -> BTid {
    BTid::new(BTID).expect("a B-TID")
}

impl Cluster {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(&directory.path().join("store"), Some([7; 32])).expect("a store");
        let store = Arc::new(Faulty::new(store));
        let operator = engine(&store).await;
        let service = ServiceSpec {
            id: ServiceId::new("urn:s").expect("an id"),
            key_domain: KeyDomainId([1, 2, 3]),
            key_group: 1,
            validity: Validity::Ntp,
            lifetime: Duration::from_secs(86_400),
            rotate_every: None,
            open: true,
            ext_bcast: None,
            invalidate_on_deregister: true,
            mtk_ids: (1, 65535),
            salt: false,
            srtp: None,
            lead_time: None,
        };
        let alice = SubscriberId::new("alice@ims.example.com").expect("an IMPI");
        let credential = CredentialSpec {
            btid: btid(),
            subscriber: alice.clone(),
            keys: CredentialKeys::Pair { mrk: Secret::from(&KEY[..]), muk: Secret::from(&KEY[..]) },
            gba: GbaType::U,
            expires: None,
            t: None,
        };
        let alice = Subscriber { id: alice, msisdn: None, services: Vec::new() };
        let items = vec![
            ImportItem::Service(service),
            ImportItem::Subscriber(alice),
            ImportItem::Credential(credential),
        ];
        for outcome in operator.import(items).await {
            outcome.expect("it is put in");
        }
        // They read the catalogue when they start.
        let (a, b) = (node(&store).await, node(&store).await);
        Self { store, a, b, _directory: directory }
    }

    async fn terminal(&self) -> Terminal {
        self.store.terminal(&btid()).await.expect("the store works").expect("the terminal")
    }
}

impl Node {
    /// Sends a body under these credentials; the answer's status and everything of it.
    async fn ask(&self, authorization: Option<&str>, body: &str) -> (u16, String) {
        let authorization = authorization.map_or(String::new(), |a| format!("Authorization: {a}\r\n"));
        let request = format!(
            "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/mbms-register+xml\r\n\
             {authorization}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("it is taken");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer and its end");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, answer)
    }

    async fn challenge(&self) -> Challenge {
        let (status, answer) = self.ask(None, "").await;
        assert_eq!(status, 401);
        let lines = answer.lines().filter_map(|l| l.strip_prefix("www-authenticate: "));
        Challenge::strongest(lines.map(str::as_bytes)).expect("a challenge")
    }

    fn failures(&self, reason: &str) -> u64 {
        let text = self.engine.metrics().encode();
        let series = format!("ltkmd_digest_failures_total{{reason=\"{reason}\"}} ");
        let line = text.lines().find_map(|l| l.strip_prefix(&series)).expect("a series of each reason");
        line.parse().expect("a count")
    }

    /// The answer to these credentials is a fresh challenge for the reason of the metric, and nothing changes.
    async fn refuses(&self, cluster: &Cluster, reason: &str, authorization: &str, body: &str) {
        let (terminal, failures) = (cluster.terminal().await, self.failures(reason));
        let (status, answer) = self.ask(Some(authorization), body).await;
        assert_eq!(status, 401, "{answer}");
        assert!(answer.contains("stale=true") && answer.contains("nonce="), "{answer}");
        assert!(!answer.contains("rspauth"), "{answer}");
        assert_eq!(self.failures(reason), failures + 1);
        assert_eq!(cluster.terminal().await, terminal);
    }
}

/// Credentials that do not cover the body, so that they fit any.
fn credentials(challenge: &Challenge, nc: u32) -> String {
    let outgoing = Outgoing { method: "POST", uri: PATH, body: b"" };
    let sent = answer(challenge, outgoing, (&btid(), &password(&KEY)), Qop::Auth, "0a4f113b", nc);
    sent.header().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_of_one_node_is_good_at_another_and_a_pair_that_one_has_seen_is_refused_by_all() {
    let cluster = Cluster::new().await;
    let (a, b) = (&cluster.a, &cluster.b);
    let challenge = a.challenge().await;
    assert_eq!(cluster.terminal().await.nonces.len(), 0, "a challenge costs no state");
    let first = credentials(&challenge, 1);
    let (status, answer) = b.ask(Some(&first), REGISTER).await;
    assert!(status == 200 && answer.contains("rspauth"), "{answer}");
    assert_eq!(cluster.terminal().await.nonces.len(), 1);
    for node in [a, b, a] {
        node.refuses(&cluster, "replay", &first, REGISTER).await;
    }
    // Counts go on anywhere, also out of order.
    for (node, nc) in [(a, 3), (b, 2)] {
        assert_eq!(node.ask(Some(&credentials(&challenge, nc)), REGISTER).await.0, 200, "{nc}");
        b.refuses(&cluster, "replay", &credentials(&challenge, nc), REGISTER).await;
    }
    assert_eq!(cluster.terminal().await.nonces.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_later_knows_what_was_used_before_it_began() {
    let cluster = Cluster::new().await;
    let challenge = cluster.a.challenge().await;
    assert_eq!(cluster.a.ask(Some(&credentials(&challenge, 1)), REGISTER).await.0, 200);
    let late = node(&cluster.store).await;
    late.refuses(&cluster, "replay", &credentials(&challenge, 1), REGISTER).await;
    assert_eq!(late.ask(Some(&credentials(&challenge, 2)), REGISTER).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_pair_at_two_nodes_at_once_one_is_served() {
    let cluster = Cluster::new().await;
    let challenge = cluster.a.challenge().await;
    for nc in 1..=20 {
        let sent = credentials(&challenge, nc);
        let (a, b) = (cluster.a.ask(Some(&sent), REGISTER), cluster.b.ask(Some(&sent), REGISTER));
        let ((a, _), (b, _)) = tokio::join!(a, b);
        assert_eq!((a.min(b), a.max(b)), (200, 401), "count {nc}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_uses_up_its_count() {
    let cluster = Cluster::new().await;
    let challenge = cluster.a.challenge().await;
    let no_method = REGISTER.replace("<bcast:Type>2<", "<bcast:Type>77<");
    for (nc, expected, body) in [(1, 403, &*no_method), (2, 400, "<mbmsSecurityRegister/>")] {
        let sent = credentials(&challenge, nc);
        let before = cluster.terminal().await;
        let (status, answer) = cluster.a.ask(Some(&sent), body).await;
        assert!(status == expected && answer.contains("rspauth"), "{answer}");
        let after = cluster.terminal().await;
        assert_ne!(after.nonces, before.nonces);
        assert_eq!(
            Terminal { nonces: before.nonces.clone(), ..after },
            before,
            "and nothing else has changed"
        );
        for body in [REGISTER, body] {
            cluster.b.refuses(&cluster, "replay", &sent, body).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_uses_up_no_count() {
    let cluster = Cluster::new().await;
    let challenge = cluster.a.challenge().await;
    for (nc, body, expected) in [(1, REGISTER, 200), (2, "<mbmsSecurityRegister/>", 400)] {
        let sent = credentials(&challenge, nc);
        let broken = StoreError::Unavailable("a test".to_owned());
        *cluster.store.update_fault.lock().expect("no panic") = Some(broken);
        assert_eq!(cluster.a.ask(Some(&sent), body).await.0, 503);
        *cluster.store.update_fault.lock().expect("no panic") = None;
        assert_eq!(cluster.b.ask(Some(&sent), body).await.0, expected);
        cluster.a.refuses(&cluster, "replay", &sent, body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_that_may_have_been_forgotten_is_stale_and_the_next_one_is_good() {
    let cluster = Cluster::new().await;
    let challenge = cluster.a.challenge().await;
    // As many as are remembered, all of them newer.
    for n in 1..=8u64 {
        let issued = cluster.a.engine.now();
        let used = NonceUse { id: u128::from(n), nc: 1, issued: issued + Duration::from_millis(n) };
        let taken = cluster.a.engine.use_nonce(&btid(), used).await.expect("the store works");
        assert_eq!(taken, Ok(()));
    }
    let sent = credentials(&challenge, 1);
    for body in [REGISTER, "<mbmsSecurityRegister/>"] {
        cluster.b.refuses(&cluster, "stale", &sent, body).await;
    }
    tokio::time::timeout(Duration::from_secs(10), async {
        // At most some milliseconds until the clock has passed the oldest of them.
        while cluster.b.ask(Some(&credentials(&cluster.b.challenge().await, 1)), REGISTER).await.0 != 200 {}
    })
    .await
    .expect("a fresh nonce is taken");
    assert_eq!(cluster.terminal().await.nonces.len(), 8);
}
