//! Machines that are wrong about the time: the database's counts.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::http::Connection;
use crate::harness::terminal::{Terminal, msk_request, registration};
use crate::harness::{Daemon, PROGRAM};
use crate::nodes::{Cluster, RANGES, alone, await_shares, leases};
use crate::server::{process::poll, shared};

const HOUR: i64 = 3_600;

/// The library that makes a program's clock wrong: Debian's libfaketime.
fn library() -> PathBuf {
    let of = |entry: std::fs::DirEntry| entry.path().join("faketime/libfaketimeMT.so.1");
    let found =
        std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(of).find(|path| path.exists());
    found.expect("libfaketime is there: ./test installs it")
}

/// The program with a clock that is so far from the machine's, in faketime's words.
fn wrong_by(offset: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env("LD_PRELOAD", library()).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

fn seconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// A time of the API, in seconds since 1970.
fn seconds(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    text.parse::<jiff::Timestamp>().expect("a time").as_second()
}

#[track_caller]
fn assert_now(time: &Value) {
    let off = seconds(time) - seconds_now();
    assert!(off.abs() <= 10, "{time} is {off} s from now");
}

#[test]
fn a_daemon_whose_clock_is_an_hour_wrong_goes_by_the_databases() {
    let _alone = alone();
    let database = shared().database();
    let cluster =
        Cluster::new(&shared().url_of("postgres", &database), "udp.first_timeout = \"2s\"\nudp.attempts = 3");
    let mut right = cluster.unready("a");
    let mut ahead = cluster.unready_by("b", || wrong_by("+1h"));
    let mut behind = cluster.unready_by("c", || wrong_by("-1h"));
    right.await_ready();
    for (daemon, offset) in [(&mut ahead, -HOUR), (&mut behind, HOUR)] {
        let line = daemon.await_log("this machine's clock differs from the database's");
        let event: Value = serde_json::from_str(&line).expect("a JSON line");
        let told = event["fields"]["offset_ms"].as_i64().expect("a number");
        assert!((told / 1000 - offset).abs() <= 2, "{line}");
        assert_eq!(event["level"], "WARN", "{line}");
        // Its clock is wrong indeed.
        assert!((seconds(&event["timestamp"]) - seconds_now() + offset).abs() <= 10, "{line}");
        daemon.await_ready();
    }
    await_shares(shared(), &database, &["a", "b", "c"]);

    // Keys of any of them are good from now on.
    let daemons = [&right, &ahead, &behind];
    for (daemon, group) in daemons.into_iter().zip(1..) {
        let service = format!("urn:{group}");
        daemon.put_service(&service, group, json!({"lifetime": "30m"}));
        daemon.rotate(&service, None);
        let keys = daemon.get(&format!("/v1/services/urn%3A{group}/keys"))["items"].clone();
        let states: Vec<&str> =
            keys.as_array().expect("items").iter().filter_map(|k| k["state"].as_str()).collect();
        assert_eq!(states.iter().filter(|s| **s == "current").count(), 1, "{keys}");
        let newest =
            keys.as_array().expect("items").iter().max_by_key(|k| k["msk_id"].to_string()).expect("keys");
        assert_now(&newest["valid_from"]);
        assert!((seconds(&newest["valid_to"]) - seconds_now() - HOUR / 2).abs() <= 10, "{newest}");
    }

    // Nonces of each are good at the others, though none has lived for an hour.
    let terminals: Vec<Terminal> = (0..9).map(|_| Terminal::provision(&ahead, &[])).collect();
    for terminal in &terminals {
        let at = |daemon: &Daemon| Connection::open_from(terminal.address, daemon.http);
        let body = registration(&["urn:1", "urn:2", "urn:3"], Some(&[2]));
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let challenge = terminal.challenge(&mut at(daemons[from]), "register");
            let reply = terminal.send(&mut at(daemons[to]), "register", body.as_bytes(), &challenge, 1);
            assert_eq!(reply.status, 200, "a nonce of {from} at {to}: {}", reply.text());
        }
        assert_now(&right.terminal(&terminal.btid)["registered_at"]);
    }

    // Whoever looks after a terminal sends again two seconds after a request was served by another, not in an hour and
    // not at once.
    for (terminal, daemon) in terminals.iter().zip(daemons.iter().cycle()) {
        let mut connection = Connection::open_from(terminal.address, daemon.http);
        let challenge = terminal.challenge(&mut connection, "register");
        let body = registration(&["urn:1"], Some(&[0]));
        assert_eq!(terminal.send(&mut connection, "register", body.as_bytes(), &challenge, 1).status, 200);
        let asked = msk_request(&[("b8709d", "00010002")]);
        assert_eq!(
            terminal.send(&mut connection, "msk-request", asked.as_bytes(), &challenge, 2).status,
            200
        );
    }
    let begun = Instant::now();
    for terminal in &terminals {
        let first = terminal.receive();
        let mut last = first.counter;
        let again = poll(begun + Duration::from_secs(20), || {
            let ltkm = terminal.receive();
            assert!(ltkm.counter > last, "T went back: {} after {last}", ltkm.counter);
            last = ltkm.counter;
            let attempts =
                right.deliveries(&terminal.btid).iter().filter_map(|d| d["attempts"].as_u64()).max();
            (attempts >= Some(2)).then_some(ltkm)
        });
        terminal.verify(&again.expect("it is sent again"));
    }
    // Nobody took a wrong clock for the end of a lease.
    assert_eq!(leases(shared(), &database).values().sum::<usize>(), RANGES);
    for name in ["a", "b", "c"] {
        let text = format!("SELECT epoch, expires > now() FROM ltkmd.node WHERE name = '{name}'");
        assert_eq!(shared().sql_in(&database, &text), "1|t");
    }
    let offsets = shared().sql_in(&database, "SELECT clock_offset_ms / 60000 FROM ltkmd.node ORDER BY name");
    let offsets: Vec<i64> = offsets.lines().map(|n| n.parse().expect("a number")).collect();
    let near = |n: i64, wanted: i64| (n - wanted).abs() <= 1;
    assert!(near(offsets[0], 0) && near(offsets[1], -60) && near(offsets[2], 60), "{offsets:?}");
}
