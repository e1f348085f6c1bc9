//! Many terminals at once: all behind one socket, registered over a few connections.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use data_encoding::BASE64;
use mikey::ltkm::OpenedLtkm;
use mikey::psk::PresharedKey;
use serde_json::json;

use super::digest::{Digest, nonce};
use super::http::{Connection, Reply};
use super::terminal::{media_type, registration, target};
use super::{ADMIN_TOKEN, Daemon, FQDN};

/// Connections over which they register.
pub const HTTP_THREADS: usize = 8;

/// The daemon has to believe the proxy that tells their addresses.
pub const BEHIND_PROXY: &str = "http.trusted_proxies = [\"127.0.0.1/32\"]";

pub fn btid(n: usize) -> String {
    format!("terminal{n}@bsf.example.com")
}

fn key(n: usize, label: u8) -> [u8; 32] {
    std::array::from_fn(|i| (n >> (8 * (i % 4))) as u8 ^ label ^ i as u8)
}

fn muk(n: usize) -> [u8; 32] {
    key(n, 0x80)
}

/// Provisions that many terminals, each with a subscriber of its own.
pub fn import(daemon: &Daemon, terminals: usize) {
    let mut lines = String::new();
    for n in 0..terminals {
        lines += &json!({"subscriber": {"id": format!("s{n}"), "services": []}}).to_string();
        lines.push('\n');
        let (mrk, muk) = (BASE64.encode(&key(n, 0)), BASE64.encode(&muk(n)));
        let credential = json!({"id": btid(n), "subscriber": format!("s{n}"), "mrk": mrk, "muk": muk});
        lines += &json!({"credential": credential}).to_string();
        lines.push('\n');
    }
    let authorization = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/x-ndjson")];
    let reply = super::http::request(daemon.admin, "POST", "/v1/import", &headers, lines.as_bytes());
    assert_eq!(reply.json()["counts"]["credential"], terminals, "{}", reply.text());
}

/// Registers one of them through a proxy that tells its address; `None` when the daemon is gone.
pub fn register(connection: &mut Connection, services: &[&str], n: usize, types: &[u8]) -> Option<Reply> {
    let nonce = nonce(&post(connection, n, "", "")?);
    register_by(connection, services, n, types, &nonce)
}

/// The same with a nonce that is there already, of which this terminal has used nothing.
pub fn register_by(
    connection: &mut Connection,
    services: &[&str],
    n: usize,
    types: &[u8],
    nonce: &str,
) -> Option<Reply> {
    let body = registration(services, Some(types));
    let digest = Digest {
        username: btid(n),
        password: ltkmd::digest::password(&key(n, 0)).to_vec(),
        realm: format!("3GPP-bootstrapping@{FQDN}"),
        nonce: nonce.to_owned(),
        uri: target("register"),
        algorithm: "MD5",
        qop: "auth",
        nc: "00000001".to_owned(),
        cnonce: "a".to_owned(),
    };
    post(connection, n, &format!("Authorization: {}\r\n", digest.header(body.as_bytes())), &body)
}

/// A registration of this terminal as its proxy brings it.
fn post(connection: &mut Connection, n: usize, authorization: &str, body: &str) -> Option<Reply> {
    let address = format!("127.{}.{}.{}", 20 + n / 65_536, n / 256 % 256, n % 256);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {FQDN}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         X-Forwarded-For: {address}\r\n{authorization}\r\n",
        target("register"),
        media_type("register"),
        body.len()
    );
    connection.try_send(format!("{head}{body}").as_bytes())?;
    connection.reply()
}

/// A nonce of this daemon.
pub fn fresh_nonce(daemon: &Daemon) -> String {
    nonce(&post(&mut Connection::open(daemon.http), 0, "", "").expect("an answer"))
}

/// Registers some of them over a few connections; `types` tells what each declares.
pub fn register_all(
    daemon: &Daemon,
    services: &[&str],
    terminals: Range<usize>,
    types: fn(usize) -> &'static [u8],
) {
    let (next, to) = (AtomicUsize::new(terminals.start), daemon.http);
    std::thread::scope(|scope| {
        for _ in 0..HTTP_THREADS {
            scope.spawn(|| {
                let mut connection = Connection::open(to);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= terminals.end {
                        return;
                    }
                    let reply = register(&mut connection, services, n, types(n)).expect("an answer");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
    });
}

/// What the terminals have seen: T of all LTKMs, and who holds which key.
#[derive(Default)]
pub struct Seen {
    pub counters: HashMap<usize, Vec<u32>>,
    /// By MSK ID.
    pub holders: HashMap<String, HashSet<usize>>,
    octets: HashSet<Vec<u8>>,
}

impl Seen {
    /// No T was used twice for one terminal.
    pub fn assert_fresh(&self) {
        for (n, counters) in &self.counters {
            let distinct: HashSet<_> = counters.iter().collect();
            assert_eq!(distinct.len(), counters.len(), "T was used twice for terminal {n}: {counters:?}");
        }
    }

    /// In the order in which LTKMs came, every T was higher than those before it.
    pub fn assert_rising(&self) {
        let fallen = self.fallen();
        let some = &fallen[..fallen.len().min(5)];
        assert!(fallen.is_empty(), "T went back or was used twice for {} terminals: {some:?}", fallen.len());
    }

    /// Who got a T that was not higher than those before it, and all of theirs.
    pub fn fallen(&self) -> Vec<(usize, Vec<u32>)> {
        let fell = |counters: &&Vec<u32>| !counters.is_sorted_by(|a, b| a < b);
        let fallen = self.counters.iter().filter(|(_, counters)| fell(counters));
        fallen.map(|(n, counters)| (*n, counters.clone())).collect()
    }
}

/// How many datagrams came from which daemon's address.
type Senders = HashMap<SocketAddr, usize>;

/// All terminals behind one socket on all loopback addresses; each answers what it gets.
pub struct Fleet {
    seen: Arc<Mutex<Seen>>,
    senders: Arc<Mutex<Senders>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Fleet {
    /// Listens on the terminals' LTKM port.
    pub fn listen(port: u16) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
        socket.set_recv_buffer_size(8 << 20).expect("a large buffer");
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into()).expect("bound");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let socket: Arc<UdpSocket> = Arc::new(socket.into());
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let senders = Arc::<Mutex<Senders>>::default();
        // One takes what comes as fast as it can, the other opens it.
        let (datagrams, taken) = std::sync::mpsc::channel::<(Vec<u8>, SocketAddr)>();
        let (reading, counted, stopping) = (Arc::clone(&socket), Arc::clone(&senders), Arc::clone(&stop));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopping.load(Ordering::Relaxed) {
                let Ok((len, from)) = reading.recv_from(&mut buffer) else { continue };
                *counted.lock().expect("no test panics with it").entry(from).or_default() += 1;
                if datagrams.send((buffer[..len].to_vec(), from)).is_err() {
                    return;
                }
            }
        });
        let shared = Arc::clone(&seen);
        let opener = std::thread::spawn(move || {
            for (octets, from) in taken {
                take(&socket, &octets, from, &mut shared.lock().expect("no test panics with it"));
            }
        });
        Self { seen, senders, stop, threads: vec![reader, opener] }
    }

    /// How many LTKMs have come from this address of a daemon.
    pub fn sent_by(&self, from: SocketAddr) -> usize {
        self.senders.lock().expect("no test panics with it").get(&from).copied().unwrap_or(0)
    }

    /// What they have seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics with it")
    }

    /// How many of them hold a key.
    pub fn holding(&self, msk_id: &str) -> usize {
        self.seen().holders.get(msk_id).map_or(0, HashSet::len)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a terminal got what it cannot open");
        }
    }
}

/// A terminal opens what it got and answers.
fn take(socket: &UdpSocket, octets: &[u8], from: SocketAddr, seen: &mut Seen) {
    let message = mikey::Message::parse(octets).expect("a MIKEY message");
    let text = message.octets();
    let at = text.windows(8).position(|w| w == b"terminal").expect("an IDr") + 8;
    let digits: String = text[at..].iter().map(|b| char::from(*b)).take_while(char::is_ascii_digit).collect();
    let n: usize = digits.parse().expect("a number");
    let ltkm = mikey::ltkm::open(&PresharedKey::new(&muk(n)), octets).expect("an LTKM for this terminal");
    assert_eq!(ltkm.idr, btid(n).as_bytes());
    assert!(seen.octets.insert(octets.to_vec()), "the same LTKM twice");
    seen.counters.entry(n).or_default().push(ltkm.counter);
    seen.holders.entry(ltkm.msk_id.to_string()).or_default().insert(n);
    let mut answer = [0; 256];
    let len = ltkm.verification(&mut answer).expect("the buffer is large enough");
    // A daemon that is dead does not take it: it sends again.
    let _ = socket.send_to(&answer[..len], from);
}

/// The first LTKM inside an answer.
pub fn first_ltkm(n: usize, reply: &Reply) -> OpenedLtkm {
    let (answer, _) = ltkmd::document::RegistrationResponse::read(&reply.body, &Default::default())
        .expect("a registration answer");
    let ltkm = mikey::ltkm::open(&PresharedKey::new(&muk(n)), &answer.items[0].ltkms()[0]);
    ltkm.expect("an LTKM for this terminal")
}

/// T of the first LTKM inside an answer.
pub fn counter(n: usize, reply: &Reply) -> u32 {
    first_ltkm(n, reply).counter
}
