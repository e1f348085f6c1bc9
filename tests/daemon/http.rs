//! What HTTP itself asks of the terminal-facing listener: statuses, framing, connections, limits (LTKM profile §2.3).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::Daemon;
use crate::harness::http::{Connection, Reply, request};
use crate::harness::terminal::{Terminal, deregistration, media_type, registration, target};

const HTTP: Option<&[u8]> = Some(&[2]);

/// A request's head up to its framing, which `more` brings.
fn head(line: &str, more: &str) -> Vec<u8> {
    format!("{line}\r\nHost: bmsc.example.com\r\nConnection: close\r\n{more}\r\n").into_bytes()
}

/// A POST of a registration with further header lines.
fn post(more: &str) -> Vec<u8> {
    let line = "POST /keymanagement?requesttype=register HTTP/1.1";
    head(line, &format!("Content-Type: application/mbms-register+xml\r\n{more}"))
}

/// Sends octets on a connection of its own; the answer, behind which the daemon has to close.
fn exchange(daemon: &Daemon, octets: &[u8]) -> Reply {
    let mut connection = Connection::open(daemon.http);
    connection.send(octets);
    let reply = connection.reply().expect("an answer");
    assert!(connection.is_closed(), "{} is not the end", reply.status);
    reply
}

fn series(procedure: &str, status: u16) -> String {
    format!("ltkmd_http_requests_total{{procedure=\"{procedure}\",status=\"{status}\"}}")
}

/// Each request gets its status, once, and is counted.
fn refused(daemon: &Daemon, cases: &[(&str, Vec<u8>, u16, &str)]) {
    for (what, octets, status, procedure) in cases {
        let series = series(procedure, *status);
        let before = daemon.metric(&series);
        let reply = exchange(daemon, octets);
        assert_eq!(reply.status, *status, "{what}: {}", reply.text());
        daemon.await_metric(&series, before + 1.0);
    }
}

#[test]
fn requests_that_are_not_for_this_service_have_the_status_that_http_gives_them() {
    let daemon = Daemon::start_with("http.max_body = \"2KiB\"");
    let to = |line: &str| head(line, "");
    let kind = "Content-Type: application/mbms-register+xml";
    let posted = |line: &str, more: &str| head(line, &format!("{kind}\r\nContent-Length: 0\r\n{more}"));
    let mut cases = vec![
        ("another path", to("GET / HTTP/1.1"), 404, "none"),
        ("a path below", to("GET /keymanagement/x?requesttype=register HTTP/1.1"), 404, "register"),
        ("an unknown method", to("FOO /keymanagement?requesttype=register HTTP/1.1"), 501, "register"),
        ("methods know their case", to("post /keymanagement?requesttype=register HTTP/1.1"), 501, "register"),
        ("no requesttype", posted("POST /keymanagement HTTP/1.1", ""), 400, "none"),
        ("an unknown one", posted("POST /keymanagement?requesttype=renew HTTP/1.1", ""), 400, "none"),
        (
            "two of them",
            posted("POST /keymanagement?requesttype=register&requesttype=deregister HTTP/1.1", ""),
            400,
            "none",
        ),
        ("no length", post(""), 411, "register"),
        ("a body that will be too long", post("Content-Length: 2049\r\n"), 413, "register"),
        (
            "a body that becomes too long",
            [post("Transfer-Encoding: chunked\r\n"), b"fff\r\n".to_vec(), vec![b' '; 0xfff]].concat(),
            413,
            "register",
        ),
        ("no media type", head(&post_line("msk-request"), "Content-Length: 0\r\n"), 415, "msk_request"),
        ("a content coding", post("Content-Encoding: gzip\r\nContent-Length: 0\r\n"), 415, "register"),
    ];
    for wrong in
        ["text/xml", "application/mbms-register+xml; charset=utf-16", "application/mbms-msk+xml", "?"]
    {
        let octets = head(&post_line("register"), &format!("Content-Type: {wrong}\r\nContent-Length: 0\r\n"));
        cases.push(("a wrong media type", octets, 415, "register"));
    }
    refused(&daemon, &cases);
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
        let reply = exchange(&daemon, &to(&format!("{method} {} HTTP/1.1", target("register"))));
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method}");
    }
    let mut connection = Connection::open(daemon.http);
    connection.send(&to(&format!("HEAD {} HTTP/1.1", target("register"))));
    let answer = connection.rest();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    for right in ["APPLICATION/mbms-register+xml ; charset=\"utf-8\"", "application/mbms-register+xml;x=y"] {
        let octets = head(&post_line("register"), &format!("Content-Type: {right}\r\nContent-Length: 0\r\n"));
        assert_eq!(exchange(&daemon, &octets).status, 401, "{right}");
    }
}

fn post_line(request_type: &str) -> String {
    format!("POST {} HTTP/1.1", target(request_type))
}

#[test]
fn heads_that_cannot_be_read_are_refused_counted_and_logged() {
    let mut daemon = Daemon::start();
    let bare = |head: &str| head.replace('\n', "\r\n").into_bytes();
    let post = |more: &str| {
        let kind = "Content-Type: application/mbms-register+xml";
        bare(&format!("{}\nHost: a\nConnection: close\n{kind}\n{more}\n", post_line("register")))
    };
    let length = "Content-Length: 0\n";
    let many: String = (0..101).map(|n| format!("X-{n}: y\n")).collect();
    let long = "y".repeat(40 << 10);
    let cases = [
        ("garbage", bare("\u{1}\u{2}\u{3}\n\n"), 400, "none"),
        ("no version", bare("POST /keymanagement\n\n"), 400, "none"),
        ("a lower-case version", bare("POST /keymanagement http/1.1\n\n"), 400, "none"),
        ("a name with a space", post(&format!("{length}X y: z\n")), 400, "none"),
        ("no Host", bare(&format!("{}\nConnection: close\n\n", post_line("register"))), 400, "register"),
        ("two Hosts", post(&format!("{length}Host: b\n")), 400, "register"),
        (
            "a Host that is none",
            bare(&format!("{}\nHost: a b\nConnection: close\n\n", post_line("register"))),
            400,
            "register",
        ),
        ("a length that is no number", post("Content-Length: 1x\n"), 400, "none"),
        ("a negative length", post("Content-Length: -1\n"), 400, "none"),
        ("two lengths", post("Content-Length: 1\nContent-Length: 2\n"), 400, "none"),
        ("not chunked at last", post("Transfer-Encoding: gzip\n"), 400, "none"),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\n"), 400, "register"),
        ("an unknown coding", post("Transfer-Encoding: gzip, chunked\n"), 501, "register"),
        (
            "a chunk size that is none",
            [post("Transfer-Encoding: chunked\n"), b"xyz\r\n".to_vec()].concat(),
            400,
            "register",
        ),
        (
            "transfer codings in HTTP/1.0",
            bare(&format!("POST {} HTTP/1.0\nTransfer-Encoding: chunked\n\n", target("register"))),
            400,
            "none",
        ),
        ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 505, "none"),
        ("HTTP/3", bare("GET / HTTP/3.0\n\n"), 505, "none"),
        ("HTTP/1.2", bare("GET / HTTP/1.2\nHost: a\n\n"), 505, "none"),
        ("many header lines", post(&format!("{length}{many}")), 431, "none"),
        ("a long header line", post(&format!("{length}X: {long}\n")), 431, "none"),
        ("a long target", bare(&format!("POST /{} HTTP/1.1\nHost: a\n\n", &long[..8500])), 414, "none"),
    ];
    refused(&daemon, &cases);
    let lines = daemon.end_and_read_log().iter().filter(|l| l.contains("request refused")).count();
    assert_eq!(lines, cases.len(), "one line each");
}

#[test]
fn what_does_not_arrive_in_time_is_408_and_an_idle_connection_is_just_closed() {
    let daemon = Daemon::start_with("http.request_timeout = \"300ms\"");
    let length = "Content-Length: 9\r\n";
    for (what, octets, procedure) in [
        ("a line", b"POST /keym".to_vec(), "none"),
        ("a head", post(length)[..80].to_vec(), "none"),
        ("a body", [post(length), b"<a".to_vec()].concat(), "register"),
    ] {
        let before = daemon.metric(&series(procedure, 408));
        let reply = exchange(&daemon, &octets);
        assert_eq!((reply.status, reply.header("connection")), (408, Some("close")), "{what}");
        daemon.await_metric(&series(procedure, 408), before + 1.0);
    }
    let mut connection = Connection::open(daemon.http);
    let reply = connection.request("GET", "/", &[], b"");
    assert_eq!(reply.status, 404);
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(connection.reply().expect("an answer").status, 408, "a later request's head");
    assert!(connection.is_closed());

    let before = daemon.metric(&series("none", 408));
    assert_eq!(Connection::open(daemon.http).rest(), "", "nothing was asked");
    let mut connection = Connection::open(daemon.http);
    assert_eq!(connection.request("GET", "/", &[], b"").status, 404);
    assert_eq!(connection.rest(), "", "nothing more was asked");
    assert_eq!(daemon.metric(&series("none", 408)), before);
    daemon.await_metric("ltkmd_http_connections", 0.0);
}

#[test]
fn an_answer_arrives_though_the_request_goes_on() {
    let daemon = Daemon::start();
    let body = vec![b'x'; 2 << 20];
    let octets = [post(&format!("Content-Length: {}\r\n", body.len())), body].concat();
    for _ in 0..10 {
        let stream = TcpStream::connect(daemon.http).expect("connected");
        let mut sending = stream.try_clone().expect("cloned");
        let octets = octets.clone();
        // What is not taken any more cannot be sent: that is no fault.
        let sender = std::thread::spawn(move || drop(sending.write_all(&octets)));
        let mut answer = [0; 12];
        (&stream).read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 413");
        drop(stream);
        sender.join().expect("sent");
    }
}

#[test]
fn a_peer_that_takes_no_answers_is_cut() {
    let daemon = Daemon::start_with("http.request_timeout = \"300ms\"");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small window");
    socket.connect(&daemon.http.into()).expect("connected");
    let mut stream: TcpStream = socket.into();
    stream.set_write_timeout(Some(crate::harness::PATIENCE)).expect("a timeout");
    let line = post_line("register");
    let one = format!(
        "{line}\r\nHost: a\r\nContent-Type: application/mbms-register+xml\r\nContent-Length: 0\r\n\r\n"
    );
    let many = one.repeat(100);
    let error = std::iter::repeat_with(|| stream.write_all(many.as_bytes())).find_map(Result::err);
    let kind = error.expect("an end").kind();
    assert!(
        matches!(kind, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "cut, not: {kind}"
    );
    daemon.await_metric("ltkmd_http_connections", 0.0);
}

#[test]
fn one_connection_serves_many_requests_also_when_they_come_at_once() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let body = registration(&["urn:s"], HTTP);
    for nc in 1..=3 {
        let digest = digest.count(nc);
        let reply = terminal.send_as(&mut connection, "register", body.as_bytes(), &digest);
        assert_eq!(reply.status, 200);
        digest.prove(&reply);
    }
    let mut all = Vec::new();
    for nc in 4..=9 {
        let authorization = digest.count(nc).header(body.as_bytes());
        let head = format!(
            "{}\r\nHost: a\r\nContent-Type: {}\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n",
            post_line("register"),
            media_type("register"),
            body.len()
        );
        all.extend(head.bytes().chain(body.bytes()));
    }
    connection.send(&all);
    let mut last = 0;
    for nc in 4..=9 {
        let reply = connection.reply().expect("an answer");
        assert_eq!(reply.status, 200);
        digest.count(nc).prove(&reply);
        let (answer, _) = ltkmd::document::RegistrationResponse::read(&reply.body, &Default::default())
            .expect("a registration answer");
        let ltkm = terminal.open(&answer.items[0].ltkms()[0]);
        assert!(ltkm.counter > last, "answers in the order of the requests");
        last = ltkm.counter;
    }
}

#[test]
fn chunked_bodies_http_1_0_and_expectations_are_served() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let body = registration(&["urn:s"], HTTP);
    let head = |version: &str, nc, more: &str| {
        let authorization = digest.count(nc).header(body.as_bytes());
        let (target, kind) = (target("register"), media_type("register"));
        format!(
            "POST {target} {version}\r\nHost: a\r\nContent-Type: {kind}\r\nAuthorization: {authorization}\r\n{more}\r\n"
        )
    };
    let (first, second) = body.split_at(100);
    let chunks = format!(
        "{:x};extension=\"a\"\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nX-Trailer: y\r\n\r\n",
        first.len(),
        second.len()
    );
    connection.send((head("HTTP/1.1", 1, "Transfer-Encoding: Chunked\r\n") + &chunks).as_bytes());
    assert_eq!(connection.reply().expect("an answer").status, 200);

    let length = format!("Content-Length: {}\r\n", body.len());
    connection.send(head("HTTP/1.1", 2, &format!("{length}Expect: 100-continue\r\n")).as_bytes());
    assert_eq!(connection.line(), "HTTP/1.1 100 Continue\r\n");
    assert_eq!(connection.line(), "\r\n");
    connection.send(body.as_bytes());
    let reply = connection.reply().expect("an answer");
    assert_eq!(reply.status, 200);
    digest.count(2).prove(&reply);

    let mut old = terminal.connect();
    old.send((head("HTTP/1.0", 3, &length) + &body).as_bytes());
    let answer = old.rest();
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let mut half = terminal.connect();
    half.send((head("HTTP/1.1", 4, &length) + &body).as_bytes());
    half.shut();
    assert_eq!(half.reply().expect("an answer").status, 200, "though nothing more will come");
    assert!(half.is_closed());

    let refused = "POST /keymanagement?requesttype=register HTTP/1.1\r\nHost: a\r\nContent-Type: text/xml\r\n\
                   Content-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    let mut connection = terminal.connect();
    connection.send(refused.as_bytes());
    assert_eq!(connection.reply().expect("an answer").status, 415, "without an interim answer");
}

#[test]
fn connections_beyond_the_limit_get_503_and_are_closed() {
    let daemon = Daemon::start_with("http.max_connections = 2");
    let mut open: Vec<_> = (0..2).map(|_| Connection::open(daemon.http)).collect();
    for connection in &mut open {
        assert_eq!(connection.request("GET", "/", &[], b"").status, 404);
    }
    let before = daemon.metric(&series("none", 503));
    let mut refused = Connection::open(daemon.http);
    let reply = refused.reply().expect("an answer");
    assert_eq!((reply.status, reply.header("connection")), (503, Some("close")));
    let retry: u32 = reply.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!(retry > 0 && refused.is_closed());
    daemon.await_metric(&series("none", 503), before + 1.0);
    assert_eq!(open[0].request("GET", "/", &[], b"").status, 404, "those that are open stay");
    drop(open.pop());
    daemon.await_state("a free place", |daemon| {
        (request(daemon.http, "GET", "/", &[], b"").status == 404).then_some(())
    });
}

#[test]
fn many_connections_at_once_are_all_served() {
    const CONNECTIONS: usize = 64;
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminals: Vec<_> = (0..CONNECTIONS).map(|_| Terminal::provision(&daemon, &[])).collect();
    let together = Barrier::new(CONNECTIONS);
    std::thread::scope(|scope| {
        for terminal in &terminals {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                let answer = terminal.registered(&["urn:s"], HTTP);
                terminal.open(&answer.items[0].ltkms()[0]);
                assert_eq!(terminal.request("deregister", &deregistration(&["urn:s"])).status, 200);
            });
        }
    });
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 0);
}

#[test]
fn limits_are_read_again_on_sighup() {
    let mut daemon = Daemon::start();
    let octets = post("Content-Length: 3000\r\n");
    let mut connection = Connection::open(daemon.http);
    connection.send(&[octets.clone(), vec![b' '; 3000]].concat());
    assert_eq!(connection.reply().expect("an answer").status, 401);
    daemon.configure("http.max_body = \"2KiB\"");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.await_log("configuration read again");
    assert_eq!(exchange(&daemon, &octets).status, 413);
}

#[test]
fn idle_connections_do_not_hold_the_end_up() {
    let mut daemon = Daemon::start_with("http.request_timeout = \"60s\"\nhttp.drain = \"60s\"");
    let silent = Connection::open(daemon.http);
    let mut idle = Connection::open(daemon.http);
    assert_eq!(idle.request("GET", "/", &[], b"").status, 404);
    let began = Instant::now();
    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    drop(silent);
}

/// Numbers that look random: xorshift, the same in each run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[test]
fn noise_breaks_nothing() {
    const THREADS: u64 = 8;
    const ROUNDS: usize = 60;
    let mut daemon = Daemon::start_with("http.request_timeout = \"200ms\"");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let body = registration(&["urn:s"], HTTP);
    let whole = format!(
        "{}\r\nHost: a\r\nContent-Type: {}\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n{body}",
        post_line("register"),
        media_type("register"),
        digest.header(body.as_bytes()),
        body.len()
    );
    std::thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (whole, http) = (whole.as_bytes(), daemon.http);
            scope.spawn(move || {
                let mut noise = Noise(seed << 32 | 0x9E37_79B9);
                for _ in 0..ROUNDS {
                    let mut octets = whole.to_vec();
                    for _ in 0..=noise.below(4) {
                        let at = noise.below(octets.len());
                        match noise.below(4) {
                            0 => octets[at] ^= 1 << noise.below(8),
                            1 => octets.truncate(at + 1),
                            2 => octets[at] = noise.below(256) as u8,
                            _ => {
                                let to = at + noise.below(octets.len() - at);
                                let again = octets[at..to].to_vec();
                                octets.splice(at..at, again);
                            }
                        }
                    }
                    let mut stream = TcpStream::connect(http).expect("connected");
                    stream.set_read_timeout(Some(crate::harness::PATIENCE)).expect("a timeout");
                    // It may be refused before it is sent as a whole.
                    let _ = stream.write_all(&octets);
                    let mut answer = Vec::new();
                    let ended = stream.read_to_end(&mut answer);
                    let late = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
                    assert!(!late, "no end: {}", String::from_utf8_lossy(&octets));
                    let status = answer.get(9..12).map(|s| String::from_utf8_lossy(s).into_owned());
                    let server =
                        status.as_deref().is_some_and(|s| s.starts_with('5') && s != "501" && s != "505");
                    assert!(!server, "{status:?} to {}", String::from_utf8_lossy(&octets));
                }
            });
        }
    });
    let answer = terminal.registered(&["urn:s"], HTTP);
    terminal.open(&answer.items[0].ltkms()[0]);
    daemon.await_metric("ltkmd_http_connections", 0.0);
    let log = daemon.end_and_read_log();
    assert!(!log.iter().any(|l| l.contains("panicked") || l.contains("\"ERROR\"")), "{log:#?}");
}
