//! What the daemon tells: ready, alive, reading again, ending. And when it falls silent.

use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::http::request;
use crate::harness::{Daemon, PATIENCE};
use crate::manager::{Listener, field};

/// Microseconds of the clock that systemd compares with.
fn monotonic() -> u128 {
    let text = std::fs::read_to_string("/proc/uptime").expect("the time since the start");
    let seconds: f64 = text.split(' ').next().and_then(|s| s.parse().ok()).expect("seconds");
    (seconds * 1e6) as u128
}

#[test]
fn ready_is_told_once_it_serves_and_stopping_with_the_time_that_the_drain_may_take() {
    let listener = Listener::new();
    let mut daemon = listener.start("http.drain = \"2m\"", None);
    let ready = listener.next();
    assert_eq!(ready, ["READY=1", "STATUS=ready"]);
    daemon.await_ready();
    assert_eq!(request(daemon.admin, "GET", "/readyz", &[], b"").status, 200);
    daemon.signal(Signal::SIGTERM);
    let stopping = listener.next();
    assert_eq!(stopping[0], "STOPPING=1");
    let extension: u64 = field(&stopping, "EXTEND_TIMEOUT_USEC").parse().expect("a number");
    assert!(
        (120_000_000..200_000_000).contains(&extension),
        "{extension}: http.drain and what comes behind it"
    );
    assert!(field(&stopping, "STATUS").contains("drain"));
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(listener.within(Duration::from_millis(1)).is_none(), "there was no watchdog to ping");
}

#[test]
fn a_reload_is_told_with_its_time_and_what_came_of_it() {
    let listener = Listener::new();
    let mut daemon = listener.start("", None);
    listener.next_with("READY=1");
    daemon.await_ready();
    let reload = |overrides: &str| {
        daemon.configure(overrides);
        let before = monotonic();
        daemon.signal(Signal::SIGHUP);
        let reloading = listener.next();
        assert_eq!(reloading[0], "RELOADING=1");
        let at: u128 = field(&reloading, "MONOTONIC_USEC").parse().expect("a number");
        // /proc/uptime knows hundredths, and counts sleep that the clock leaves out: a machine under test has none.
        assert!(at + 20_000 >= before && at <= monotonic() + 20_000, "{at}, not after {before}");
        let ready = listener.next();
        assert_eq!(ready[0], "READY=1");
        field(&ready, "STATUS").to_owned()
    };
    assert_eq!(reload("http.max_body = \"2KiB\""), "configuration read again");
    let status = reload("http.path = \"/other\"\nudp.attempts = 2");
    assert_eq!(status, "configuration read again; for a restart are left: http.path, udp.attempts");
    let status = reload("http.max_body = \"none\"");
    assert!(status.contains("faulty: nothing was changed"), "{status}");
}

#[test]
fn a_start_that_has_to_wait_for_its_store_asks_for_patience() {
    let listener = Listener::new();
    let place = tempfile::tempdir().expect("a directory");
    // Opening the lock's file fails, as it would on a disk that is full or broken.
    let obstacle = place.path().join("lock");
    std::fs::create_dir(&obstacle).expect("made");
    let mut daemon =
        listener.start(&format!("store.url = \"file:{}\"", place.path().display()), Some(60_000));
    let waiting = listener.next();
    let extension: u64 = field(&waiting, "EXTEND_TIMEOUT_USEC").parse().expect("a number");
    assert!(extension >= 30_000_000, "{extension}: it is told again long before");
    assert!(field(&waiting, "STATUS").contains("store cannot be opened"));
    std::fs::remove_dir(&obstacle).expect("removed");
    listener.next_with("READY=1");
    daemon.await_ready();
}

/// A ping's status.
fn ping(listener: &Listener) -> String {
    field(&listener.next_with("WATCHDOG=1"), "STATUS").to_owned()
}

/// Waits for a ping with such a status.
fn await_ping(listener: &Listener, wanted: impl Fn(&str) -> bool) {
    let began = Instant::now();
    loop {
        let status = ping(listener);
        if wanted(&status) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
    }
}

#[test]
fn a_disk_that_is_gone_ends_readiness_and_no_pings() {
    let listener = Listener::new();
    let mut daemon = listener.start("", Some(400));
    daemon.await_ready();
    assert_eq!(ping(&listener), "ready; 0 registrations, 0 deliveries open");
    let [store, away] = ["store", "away"].map(|name| daemon.dir.path().join(name));
    std::fs::rename(&store, &away).expect("taken away");
    await_ping(&listener, |status| status.starts_with("not ready: store does not work;"));
    assert_eq!(request(daemon.admin, "GET", "/readyz", &[], b"").status, 503);
    let put = |id: &str| daemon.admin("PUT", &format!("/v1/subscribers/{id}"), Some(&json!({}))).status;
    assert_eq!(put("a"), 503);
    for _ in 0..10 {
        ping(&listener);
    }
    std::fs::rename(&away, &store).expect("brought back");
    await_ping(&listener, |status| status.starts_with("ready;"));
    assert_eq!(put("a"), 201);
}

/// The thread of this name.
fn thread(of: &Daemon, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", of.pid())).expect("its threads");
    for task in tasks {
        let path = task.expect("a thread").path();
        if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            let id = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
            return Pid::from_raw(id.expect("a number"));
        }
    }
    panic!("no thread {name}");
}

#[test]
fn a_committer_that_hangs_ends_the_pings_while_all_else_runs() {
    let listener = Listener::new();
    let mut daemon = listener.start("", Some(800));
    daemon.await_ready();
    ping(&listener);
    // Stopped as by a debugger: a thread that never comes back from the disk.
    let committer = thread(&daemon, "store-commit");
    ptrace::attach(committer).expect("this test needs to be allowed ptrace(2) of its own children");
    waitpid(committer, Some(WaitPidFlag::__WALL)).expect("it stopped");
    let mut late = 0;
    while let Some(message) = listener.within(Duration::from_secs(2)) {
        late += 1;
        assert!(late < 3, "pings go on: {message:?}");
    }
    daemon.await_log("the watchdog gets no pings");
    assert_eq!(request(daemon.admin, "GET", "/healthz", &[], b"").status, 200, "the process lives");
    ptrace::detach(committer, None).expect("it goes on");
    ping(&listener);
    daemon.await_log("answers again");
    // An abort is what systemd sends to a service without pings.
    daemon.signal(Signal::SIGABRT);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&daemon.wait()), Some(Signal::SIGABRT as i32));
}

#[test]
fn pings_go_on_while_it_drains() {
    let listener = Listener::new();
    let mut daemon = listener.start("http.drain = \"60s\"\nhttp.request_timeout = \"60s\"", Some(400));
    daemon.await_ready();
    let mut connection = crate::harness::http::Connection::open(daemon.http);
    connection.send(
        b"POST /keymanagement?requesttype=register HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
        Content-Type: application/mbms-register+xml\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(connection.reply().expect("it is being read").status, 100);
    daemon.signal(Signal::SIGTERM);
    listener.next_with("STOPPING=1");
    for _ in 0..5 {
        assert_eq!(listener.next_with("WATCHDOG=1"), ["WATCHDOG=1"], "the status stays that of the drain");
    }
    connection.send(b"12345");
    assert_eq!(connection.reply().expect("an answer").status, 401);
    assert_eq!(daemon.wait().code(), Some(0));
}
