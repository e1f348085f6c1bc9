//! Sockets that outlive the daemon: nobody is refused and nothing is lost while it is started again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::http::Connection;
use crate::harness::terminal::Terminal;
use crate::harness::{Daemon, PATIENCE, PROGRAM};
use crate::manager::{launcher, start_on_kept_sockets, terminals_sockets};

const UDP: Option<&[u8]> = Some(&[0]);

/// One request over a connection of its own: its status, or where it ended.
fn ask(to: SocketAddr) -> Result<u16, &'static str> {
    let mut stream = TcpStream::connect(to).map_err(|_| "connecting")?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|_| "connected")?;
    let request = b"POST /keymanagement?requesttype=register HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\
                    Content-Type: application/mbms-register+xml\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(|_| "sending")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|_| "reading")?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("reading")
}

/// Asks all the time, over a connection for each request, while `act` runs: how often it was answered, and where the
/// others ended.
fn asked_meanwhile(to: SocketAddr, act: impl FnOnce(&AtomicUsize)) -> (usize, Vec<&'static str>) {
    let (answered, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ended: Vec<&'static str> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut ended = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        match ask(to) {
                            Ok(401) => _ = answered.fetch_add(1, Ordering::Relaxed),
                            Ok(status) => panic!("{status}"),
                            Err(at) => ended.push(at),
                        }
                    }
                    ended
                })
            })
            .collect();
        act(&answered);
        over.store(true, Ordering::Relaxed);
        asking.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect()
    });
    (answered.into_inner(), ended)
}

/// Waits until so many more were answered.
fn await_answers(answered: &AtomicUsize, more: usize) {
    let wanted = answered.load(Ordering::Relaxed) + more;
    let began = std::time::Instant::now();
    while answered.load(Ordering::Relaxed) < wanted {
        assert!(began.elapsed() < PATIENCE, "nobody is answered");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_restart_refuses_no_connection_and_leaves_none_without_an_answer() {
    let mut daemon = start_on_kept_sockets("");
    let (answered, ended) = asked_meanwhile(daemon.http, |answered| {
        for _ in 0..3 {
            await_answers(answered, 20);
            assert_eq!(daemon.terminate().code(), Some(0));
            daemon.restart();
        }
        await_answers(answered, 20);
    });
    assert!(answered >= 80 && ended.is_empty(), "{answered} answered, the others ended at {ended:?}");
}

#[test]
fn a_daemon_that_is_killed_refuses_no_connection() {
    let mut daemon = start_on_kept_sockets("");
    let (_, ended) = asked_meanwhile(daemon.http, |answered| {
        for _ in 0..3 {
            await_answers(answered, 20);
            daemon.kill();
            daemon.restart();
        }
        await_answers(answered, 20);
    });
    // What a killed process had taken already ends with it: one connection of each thread, each time.
    assert!(ended.len() <= 12 && !ended.contains(&"connecting"), "{ended:?}");
}

/// What restarts it.
fn no_datagram_is_lost(restart: impl FnOnce(&mut Daemon)) {
    let mut daemon = start_on_kept_sockets("udp.first_timeout = \"10m\"");
    daemon.put_service("urn:s", 1, json!({}));
    let terminals: Vec<_> = (0..60).map(|_| Terminal::provision(&daemon, &[])).collect();
    let answers: Vec<_> = terminals
        .iter()
        .map(|terminal| {
            terminal.registered(&["urn:s"], UDP);
            terminal.verification(&terminal.receive())
        })
        .collect();
    // A third each before, while it is away, and after; those in the middle without looking what it does.
    let send = |range: std::ops::Range<usize>| {
        for n in range {
            terminals[n].send_udp(&answers[n]);
        }
    };
    send(0..10);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(10..50));
        restart(&mut daemon);
        sending.join().expect("all are sent");
    });
    send(50..60);
    for terminal in &terminals {
        daemon.await_state("verified", |daemon| {
            (daemon.deliveries(&terminal.btid)[0]["state"] == "verified").then_some(())
        });
    }
}

#[test]
fn a_restart_loses_no_datagram() {
    no_datagram_is_lost(|daemon| {
        assert_eq!(daemon.terminate().code(), Some(0));
        daemon.restart();
    });
}

#[test]
fn what_arrives_after_a_daemon_was_killed_is_there_for_the_next() {
    let mut daemon = start_on_kept_sockets("udp.first_timeout = \"10m\"");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let answer = terminal.verification(&terminal.receive());
    daemon.kill();
    terminal.send_udp(&answer);
    daemon.restart();
    daemon.await_state("verified", |daemon| {
        (daemon.deliveries(&terminal.btid)[0]["state"] == "verified").then_some(())
    });
}

#[test]
fn a_connection_that_was_taken_just_before_the_end_may_still_ask() {
    let mut daemon = Daemon::start();
    let mut silent = Connection::open(daemon.http);
    let mut begun = Connection::open(daemon.http);
    begun.send(b"GET / HTTP/1.1\r\nHo");
    daemon.await_metric("ltkmd_http_connections", 2.0);
    daemon.signal(Signal::SIGTERM);
    daemon.await_log("\"message\":\"ending\"");
    begun.send(b"st: a\r\n\r\n");
    assert_eq!(begun.reply().expect("an answer").status, 404);
    silent.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(silent.reply().expect("an answer").status, 404);
    assert!(silent.reply().is_none(), "one request, then it closes");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn the_admin_socket_is_taken_over_and_left_in_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin.sock");
    let kept = UnixListener::bind(&path).expect("bound");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    mode(0o660);
    let launch = launcher(vec![("admin", kept.into())], Vec::new());
    let listen = format!("admin.listen = \"unix:{}\"", path.display());
    let mut daemon = Daemon::start_unready_by(&listen, launch);
    daemon.await_log("\"message\":\"ready\"");
    let status = || {
        let mut stream = UnixStream::connect(&path).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(b"GET /v1/services HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
        stream
    };
    let answered = |mut stream: UnixStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    };
    answered(status());
    assert_eq!(daemon.terminate().code(), Some(0));
    let waiting = status();
    daemon.spawn();
    answered(waiting);
    daemon.terminate();
    // A socket that everybody may write to is no admin socket.
    mode(0o666);
    daemon.spawn();
    let log = daemon.await_log("SocketMode=0660");
    assert!(log.contains("mode 0666"), "{log}");
    assert_eq!(daemon.wait().code(), Some(2));
}

#[test]
fn a_socket_that_the_configuration_does_not_name_is_refused_with_what_to_change() {
    let (http, udp, http_at, udp_at) = terminals_sockets();
    let launch = launcher(vec![("http", http.into()), ("udp", udp.into())], Vec::new());
    let mut daemon =
        Daemon::start_unready_by("http.listen = [\"127.0.0.1:1\"]\nudp.listen = [\"127.0.0.2:0\"]", launch);
    let told = daemon.await_log("http.listen");
    assert!(told.contains(&format!("a TCP socket named \"http\" at {http_at}")), "{told}");
    assert!(told.contains("127.0.0.1:1\"") && told.contains("say the same"), "{told}");
    let told = daemon.await_log("udp.listen");
    assert!(told.contains(&format!("a UDP socket named \"udp\" at {udp_at}")), "{told}");
    assert_eq!(daemon.wait().code(), Some(2), "as any fault of the configuration");
}

#[test]
fn an_address_without_a_socket_is_bound_and_told() {
    let (http, _, http_at, _) = terminals_sockets();
    let launch = launcher(vec![("http", http.into())], Vec::new());
    let mut daemon =
        Daemon::start_unready_by(&format!("http.listen = [\"127.0.0.1:0\", \"{http_at}\"]"), launch);
    let told = daemon.await_log("handed over by the service manager");
    assert!(told.contains("\"http\":\"1 of 2\"") && told.contains("\"udp\":\"0 of 1\""), "{told}");
    assert!(daemon.await_log("during a restart is lost").contains("http.listen"));
    assert!(daemon.await_log("during a restart is lost").contains("udp.listen"));
    daemon.await_ready();
    assert_eq!(daemon.http_all[1], http_at);
    assert_eq!(ask(daemon.http_all[0]), Ok(401));
    assert_eq!(ask(daemon.http_all[1]), Ok(401));
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (http, _, _, _) = terminals_sockets();
    let kept = OwnedFd::from(http.try_clone().expect("a copy"));
    let launch = move || {
        let mut command = Command::new("sh");
        // The number of a process that is not this one, as a child of who they are for would see.
        let script = "exec 3<&0 </dev/null; export LISTEN_PID=1; exec \"$@\"";
        command.args(["-c", script, "sh", PROGRAM]).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http");
        command.stdin(kept.try_clone().expect("a copy"));
        command
    };
    let mut daemon = Daemon::start_unready_by("", Box::new(launch));
    daemon.await_ready();
    assert_ne!(Some(daemon.http), http.local_addr().ok());
    assert!(
        UdpSocket::bind(daemon.udp).is_err() && TcpListener::bind(daemon.http).is_err(),
        "it has its own"
    );
}
