//! Key updates to many terminals: killed in the middle, and beside registrations.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use mikey::psk::PresharedKey;
use serde_json::{Value, json};

use crate::harness::digest::{Digest, nonce};
use crate::harness::http::{Connection, Reply};
use crate::harness::terminal::{Terminal, media_type, registration, target};
use crate::harness::{ADMIN_TOKEN, Daemon, FQDN};

const TERMINALS: usize = 3000;
const HTTP_THREADS: usize = 8;
/// Terminals that have nothing but HTTP: one in so many.
const PULLING: usize = 10;

fn btid(n: usize) -> String {
    format!("terminal{n}@bsf.example.com")
}

fn key(n: usize, label: u8) -> [u8; 32] {
    std::array::from_fn(|i| (n >> (8 * (i % 4))) as u8 ^ label ^ i as u8)
}

fn muk(n: usize) -> [u8; 32] {
    key(n, 0x80)
}

fn import(daemon: &Daemon, terminals: usize) {
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
    let reply = crate::harness::http::request(daemon.admin, "POST", "/v1/import", &headers, lines.as_bytes());
    assert_eq!(reply.json()["counts"]["credential"], terminals, "{}", reply.text());
}

/// Registers one of them through a proxy that tells its address; `None` when the daemon is gone.
fn register(connection: &mut Connection, n: usize, types: &[u8]) -> Option<Reply> {
    let body = registration(&["urn:s"], Some(types));
    let address = format!("127.{}.{}.{}", 20 + n / 65_536, n / 256 % 256, n % 256);
    let mut post = |authorization: &str, body: &str| {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {FQDN}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
             X-Forwarded-For: {address}\r\n{authorization}\r\n",
            target("register"),
            media_type("register"),
            body.len()
        );
        connection.try_send(format!("{head}{body}").as_bytes())?;
        connection.reply()
    };
    let digest = Digest {
        username: btid(n),
        password: ltkmd::digest::password(&key(n, 0)).to_vec(),
        realm: format!("3GPP-bootstrapping@{FQDN}"),
        nonce: nonce(&post("", "")?),
        uri: target("register"),
        algorithm: "MD5",
        qop: "auth",
        nc: "00000001".to_owned(),
        cnonce: "a".to_owned(),
    };
    post(&format!("Authorization: {}\r\n", digest.header(body.as_bytes())), &body)
}

/// Registers all of them over a few connections.
fn register_all(daemon: &Daemon) {
    let (next, to) = (AtomicUsize::new(0), daemon.http);
    std::thread::scope(|scope| {
        for _ in 0..HTTP_THREADS {
            scope.spawn(|| {
                let mut connection = Connection::open(to);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= TERMINALS {
                        return;
                    }
                    let types: &[u8] = if n % PULLING == 0 { &[2] } else { &[0] };
                    let reply = register(&mut connection, n, types).expect("an answer");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
    });
}

/// What the terminals have seen: T of all LTKMs, and who holds which key.
#[derive(Default)]
struct Seen {
    counters: HashMap<usize, Vec<u32>>,
    holders: HashMap<u16, HashSet<usize>>,
    octets: HashSet<Vec<u8>>,
}

/// All terminals behind one socket on all loopback addresses; each answers what it gets.
struct Terminals {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Terminals {
    fn listen(port: u16) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
        socket.set_recv_buffer_size(8 << 20).expect("a large buffer");
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into()).expect("bound");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let socket: UdpSocket = socket.into();
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (shared, stopping) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopping.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                take(&socket, &buffer[..len], from, &mut shared.lock().expect("no test panics with it"));
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    fn holding(&self, number: u16) -> usize {
        self.seen.lock().expect("no test panics with it").holders.get(&number).map_or(0, HashSet::len)
    }
}

impl Drop for Terminals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
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
    seen.holders.entry(ltkm.msk_id.number()).or_default().insert(n);
    let mut answer = [0; 256];
    let len = ltkm.verification(&mut answer).expect("the buffer is large enough");
    // A daemon that is dead does not take it: it sends again.
    let _ = socket.send_to(&answer[..len], from);
}

fn adds_up(job: &Value) {
    let states = job["states"].as_object().expect("states");
    let sum: u64 = states.values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!((job["terminals"].as_u64(), sum), (Some(TERMINALS as u64), TERMINALS as u64), "{job}");
    assert!(job["sent"].as_u64() <= Some(TERMINALS as u64));
}

#[test]
fn a_fan_out_that_is_killed_goes_on_and_reaches_every_terminal() {
    let mut daemon = Daemon::start_with(
        "http.trusted_proxies = [\"127.0.0.1/32\"]\nudp.first_timeout = \"2s\"\nudp.attempts = 10\nudp.rate = 2000",
    );
    let terminals = Terminals::listen(daemon.port);
    daemon.put_service("urn:s", 1, json!({}));
    import(&daemon, TERMINALS);
    register_all(&daemon);
    let pulling = TERMINALS / PULLING;
    let pushed = TERMINALS - pulling;
    daemon.await_state("the first key everywhere", |_| (terminals.holding(1) == pushed).then_some(()));
    let counts = daemon.get("/v1/services/urn:s")["terminals"].clone();
    assert_eq!(counts, json!({"udp": pushed, "http": pulling, "sms": 0, "total": TERMINALS}));

    let (job, _) = daemon.rotate("urn:s", None);
    let path = format!("/v1/jobs/{job}");
    let mut kills = 0;
    for share in [4, 2] {
        daemon.await_state("a part", |_| (terminals.holding(2) >= pushed / share).then_some(()));
        adds_up(&daemon.get(&path));
        daemon.kill();
        kills += 1;
        daemon.restart();
        let job = daemon.get(&path);
        adds_up(&job);
        assert_eq!(job["state"], "running");
    }
    let done = daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&path);
        adds_up(&job);
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&done["verified"], &done["awaiting_pull"]), (&json!(pushed), &json!(pulling)), "{done}");
    assert_eq!((kills, terminals.holding(2)), (2, pushed), "everybody has the key");
    let seen = terminals.seen.lock().expect("no test panics with it");
    for (n, counters) in &seen.counters {
        let distinct: HashSet<_> = counters.iter().collect();
        assert_eq!(distinct.len(), counters.len(), "T was used twice for terminal {n}: {counters:?}");
    }
    drop(seen);
    let verified = daemon.terminal(&btid(1))["verified"].clone();
    assert!(verified.as_array().expect("a list").iter().any(|v| v["msk_id"] == "00010002"), "{verified}");
}

#[test]
fn registrations_beside_key_updates_never_share_a_t_and_end_with_the_newest_key() {
    const ROTATIONS: u16 = 12;
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminals: Vec<_> = (0..16).map(|_| Terminal::provision(&daemon, &[])).collect();
    for terminal in &terminals {
        terminal.registered(&["urn:s"], Some(&[0, 2]));
    }
    let rotating = AtomicBool::new(true);
    let newest = format!("0001{:04x}", ROTATIONS + 1);
    std::thread::scope(|scope| {
        for terminal in &terminals {
            let rotating = &rotating;
            scope.spawn(move || {
                let mut all = Vec::new();
                while rotating.load(Ordering::Relaxed) {
                    let answer = terminal.registered(&["urn:s"], Some(&[0, 2]));
                    all.extend(answer.items[0].ltkms().iter().map(|l| terminal.open(l)));
                    all.extend(terminal.drain().iter().map(|l| terminal.open(l)));
                    all.iter().rev().take(3).for_each(|ltkm| terminal.verify(ltkm));
                }
                let answer = terminal.registered(&["urn:s"], Some(&[0, 2]));
                let last = terminal.open(&answer.items[0].ltkms()[0]);
                terminal.verify(&last);
                all.push(last);
                let distinct: HashSet<_> = all.iter().map(|l| l.counter).collect();
                assert_eq!(distinct.len(), all.len(), "T was used twice");
            });
        }
        for _ in 0..ROTATIONS {
            let (job, _) = daemon.rotate("urn:s", None);
            daemon.await_state("every member visited", |daemon| {
                let job = daemon.get(&format!("/v1/jobs/{job}"));
                let states = job["states"].as_object().expect("states");
                let sum: u64 = states.values().map(|n| n.as_u64().expect("a count")).sum();
                assert_eq!(job["terminals"].as_u64(), Some(sum));
                (job["states"]["queued"] == 0).then_some(())
            });
        }
        rotating.store(false, Ordering::Relaxed);
    });
    for terminal in &terminals {
        daemon.await_state("the newest key", |daemon| {
            let verified = daemon.terminal(&terminal.btid)["verified"].clone();
            let verified = verified.as_array().expect("a list").clone();
            verified.iter().any(|v| v["msk_id"] == json!(newest)).then_some(())
        });
    }
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 16);
    let shed = daemon.metric("ltkmd_udp_received_total{outcome=\"shed\"}");
    assert_eq!(shed, 0.0, "answers wait for one commit together");
}

#[test]
fn no_registration_that_was_answered_is_lost_when_the_daemon_is_killed() {
    const EACH: usize = 400;
    let mut daemon = Daemon::start_with("http.trusted_proxies = [\"127.0.0.1/32\"]");
    daemon.put_service("urn:s", 1, json!({}));
    import(&daemon, HTTP_THREADS * EACH);
    let mut answered: HashMap<usize, u32> = HashMap::new();
    for round in 1..=3 {
        let enough = AtomicUsize::new(0);
        let to = daemon.http;
        let fresh: Vec<(usize, u32)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..HTTP_THREADS)
                .map(|thread| {
                    let enough = &enough;
                    scope.spawn(move || {
                        let mut connection = Connection::open(to);
                        let mut answered = Vec::new();
                        for n in (0..EACH).map(|i| thread * EACH + i).cycle() {
                            let Some(reply) = register(&mut connection, n, &[2]) else { break };
                            assert_eq!(reply.status, 200, "{}", reply.text());
                            answered.push((n, counter(n, &reply)));
                            enough.fetch_add(1, Ordering::Relaxed);
                        }
                        answered
                    })
                })
                .collect();
            daemon.await_state("some answers", |_| {
                (enough.load(Ordering::Relaxed) > 300 * round).then_some(())
            });
            daemon.kill();
            threads.into_iter().flat_map(|t| t.join().expect("no wrong answer")).collect()
        });
        for (n, t) in fresh {
            let before = answered.insert(n, t);
            assert!(before.is_none_or(|before| before < t), "T went back for terminal {n}");
        }
        daemon.restart();
        let registered = daemon.get("/v1/services/urn:s")["terminals"]["http"].as_u64().expect("a count");
        // One more of each thread may have been durable before its answer.
        let known = answered.len() as u64;
        assert!(
            (known..=known + (round * HTTP_THREADS) as u64).contains(&registered),
            "{registered} of {known}"
        );
    }
    let mut connection = Connection::open(daemon.http);
    for (n, t) in &answered {
        let record = daemon.terminal(&btid(*n));
        assert_eq!((&record["services"], &record["methods"]), (&json!(["urn:s"]), &json!(["http"])));
        let reply = register(&mut connection, *n, &[2]).expect("an answer");
        assert!(counter(*n, &reply) > *t, "T went back for terminal {n}");
    }
}

/// T of the one LTKM inside an answer.
fn counter(n: usize, reply: &Reply) -> u32 {
    let (answer, _) = ltkmd::document::RegistrationResponse::read(&reply.body, &Default::default())
        .expect("a registration answer");
    let ltkm = mikey::ltkm::open(&PresharedKey::new(&muk(n)), &answer.items[0].ltkms()[0]);
    ltkm.expect("an LTKM for this terminal").counter
}

#[test]
fn a_key_update_without_terminals_is_done_at_once() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let (job, _) = daemon.rotate("urn:s", None);
    let done = daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&format!("/v1/jobs/{job}"));
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&done["terminals"], &done["sent"]), (&json!(0), &json!(0)));
    daemon.await_metric("ltkmd_fanout_duration_seconds_count", 1.0);
    daemon.await_metric("ltkmd_fanout_jobs_running", 0.0);
}
