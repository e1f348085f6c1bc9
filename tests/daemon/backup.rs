//! Backups as the person on call takes and restores them: by the program, from a daemon under load.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::store::Mounted;
use crate::harness::fleet::{BEHIND_PROXY, Fleet, btid, counter, import, register, register_all};
use crate::harness::http::Connection;
use crate::harness::terminal::Terminal;
use crate::harness::{ADMIN_TOKEN, Daemon, KEY_READER_TOKEN, write_secret};

const TERMINALS: usize = 300;

const UDP: fn(usize) -> &'static [u8] = |_| &[0];

fn ltkmd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ltkmd")).args(args).output().expect("it runs")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).expect("UTF-8")
}

/// Runs `ctl` with a token; its exit code, stdout and stderr.
fn ctl(daemon: &Daemon, token: &str, args: &[&str]) -> (Option<i32>, String, String) {
    ctl_at(daemon.admin, daemon.dir.path(), token, args)
}

fn ctl_at(admin: SocketAddr, dir: &Path, token: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let (admin, token_file) = (format!("http://{admin}"), dir.join("token"));
    write_secret(&token_file, token);
    let fixed = ["ctl", "--admin", &admin, "--token-file", token_file.to_str().expect("UTF-8")];
    let output = ltkmd(&[&fixed, args].concat());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A backup of the daemon, which has to succeed.
fn backup(daemon: &Daemon, name: &str) -> PathBuf {
    backup_at(daemon.admin, daemon.dir.path(), name)
}

fn backup_at(admin: SocketAddr, dir: &Path, name: &str) -> PathBuf {
    let file = dir.join(name);
    let (code, out, err) = ctl_at(admin, dir, ADMIN_TOKEN, &["backup", file.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("store.key of the daemon's machine"), "where the key is has to be said: {out}");
    file
}

/// Runs `restore` under the daemon's configuration.
fn restore(daemon: &Daemon, file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let config = daemon.config_path().to_str().expect("UTF-8");
    let fixed = ["restore", file.to_str().expect("UTF-8"), "--config", config];
    let output = ltkmd(&[&fixed, more].concat());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Lets the daemon's configuration name another store, which has the first one's key.
fn move_store(daemon: &Daemon) -> PathBuf {
    let place = daemon.dir.path().join("other");
    std::fs::create_dir(&place).expect("made");
    std::fs::copy(daemon.dir.path().join("store/store.key"), place.join("store.key")).expect("copied");
    daemon.configure(&format!("store.url = \"file:{}\"", place.display()));
    place
}

#[test]
fn a_backup_taken_under_load_is_restored_elsewhere_and_no_terminal_takes_what_comes_for_a_replay() {
    let mut daemon = Daemon::start_with(&format!("{BEHIND_PROXY}\nudp.first_timeout = \"1s\""));
    let fleet = Fleet::listen(daemon.port);
    daemon.put_service("urn:s", 1, json!({}));
    import(&daemon, TERMINALS);
    register_all(&daemon, &["urn:s"], 0..TERMINALS - 10, UDP);
    // Rotations and registrations go on while the backup is taken, and after it.
    let (admin, dir) = (daemon.admin, daemon.dir.path().to_owned());
    let taken = std::thread::spawn(move || {
        let file = backup_at(admin, &dir, "backup");
        let again = backup_at(admin, &dir, "again");
        assert_ne!(std::fs::read(&file).expect("read"), std::fs::read(&again).expect("read"));
        file
    });
    let (mut connection, mut n) = (Connection::open(daemon.http), 0);
    while !taken.is_finished() {
        daemon.rotate("urn:s", None);
        for _ in 0..20 {
            let reply = register(&mut connection, &["urn:s"], n % (TERMINALS - 10), &[0]);
            assert_eq!(reply.expect("an answer").status, 200);
            n += 1;
        }
    }
    let file = taken.join().expect("two backups");
    // After the backup: those who had nothing yet, and another round for all.
    register_all(&daemon, &["urn:s"], TERMINALS - 10..TERMINALS, UDP);
    let (_, last_key) = daemon.rotate("urn:s", None);
    daemon.await_state("the last key everywhere", |_| (fleet.holding(&last_key) == TERMINALS).then_some(()));
    daemon.kill();

    let place = move_store(&daemon);
    let (code, out, err) = restore(&daemon, &file, &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("every T is 1000000 higher") && out.contains("key rotate"), "{out}");
    let mode = std::fs::metadata(&place).expect("there").permissions().mode();
    assert!(place.join("db").exists() && mode & 0o700 == 0o700);
    // How many LTKMs each had until then, and the highest T among them.
    let until: HashMap<usize, (usize, u32)> = {
        let seen = fleet.seen();
        let highest = |t: &[u32]| *t.iter().max().expect("at least one");
        seen.counters.iter().map(|(n, t)| (*n, (t.len(), highest(t)))).collect()
    };
    assert_eq!(until.len(), TERMINALS);
    daemon.restart();
    register_all(&daemon, &["urn:s"], 0..TERMINALS, UDP);
    // By number it is one that was given out after the backup already: keys made since are unknown.
    let (job, new_key) = daemon.rotate("urn:s", None);
    daemon.await_state("the new key everywhere", |daemon| {
        let job = daemon.get(&format!("/v1/jobs/{job}"));
        (job["verified"] == TERMINALS).then_some(())
    });
    assert!(fleet.holding(&new_key) == TERMINALS);
    let seen = fleet.seen();
    seen.assert_fresh();
    for (n, (had, highest)) in &until {
        // The replay rule: a terminal takes what is above all that it took.
        let after = &seen.counters[n][*had..];
        assert!(after.len() >= 2, "terminal {n} was sent its keys: {after:?}");
        assert!(after.iter().all(|t| t > highest), "terminal {n} drops some of {after:?} behind {highest}");
    }
    drop(seen);
    // Inside an answer too.
    let mut connection = Connection::open(daemon.http);
    let reply = register(&mut connection, &["urn:s"], 7, &[2]).expect("an answer");
    assert!(counter(7, &reply) > until[&7].1 && counter(7, &reply) > 1_000_000);
}

#[test]
fn what_was_out_at_the_moment_of_the_backup_is_still_answered_after_it() {
    let mut daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let mut terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], Some(&[0]));
    let out = terminal.receive();
    let file = backup(&daemon, "backup");
    daemon.kill();
    move_store(&daemon);
    let (code, _, err) = restore(&daemon, &file, &["--margin", "5000"]);
    assert_eq!(code, Some(0), "{err}");
    daemon.restart();
    terminal.follow(&daemon);
    terminal.verify(&out);
    daemon.await_state("the verification", |daemon| {
        (daemon.deliveries(&terminal.btid)[0]["state"] == "verified").then_some(())
    });
    let answer = terminal.registered(&["urn:s"], Some(&[2]));
    assert_eq!(terminal.open(&answer.items[0].ltkms()[0]).counter, out.counter + 5000 + 1);
    // One that the backup does not know, provisioned anew, begins ahead as well.
    let late = Terminal::provision(&daemon, &[]);
    let answer = late.registered(&["urn:s"], Some(&[2]));
    assert_eq!(late.open(&answer.items[0].ltkms()[0]).counter, 5001);
}

#[test]
fn a_file_is_whole_and_private_and_another_one_is_not_replaced() {
    let daemon = Daemon::start();
    import(&daemon, 20);
    let file = backup(&daemon, "backup");
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o600);
    let path = file.to_str().expect("UTF-8");
    let (code, _, err) = ctl(&daemon, ADMIN_TOKEN, &["backup", path]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--force"), "{err}");
    let (code, out, err) = ctl(&daemon, ADMIN_TOKEN, &["--json", "backup", "--force", path]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&told["credentials"], &told["subscribers"]), (&json!(20), &json!(20)));
    assert_eq!(told["octets"], std::fs::metadata(&file).expect("there").len());
    // To a pipe.
    let (admin, token) = (format!("http://{}", daemon.admin), daemon.dir.path().join("token"));
    let piped =
        ltkmd(&["ctl", "--admin", &admin, "--token-file", token.to_str().expect("UTF-8"), "backup", "-"]);
    assert_eq!(piped.status.code(), Some(0));
    assert!(text(&piped.stderr).contains("store key"), "{}", text(&piped.stderr));
    let other = daemon.dir.path().join("piped");
    std::fs::write(&other, &piped.stdout).expect("written");
    for file in [&file, &other] {
        let (code, out, err) = restore(&daemon, file, &["--dry-run"]);
        assert_eq!(code, Some(0), "the daemon may run: {err}");
        assert!(out.contains("20 credentials") && out.contains("nothing was written"), "{out}");
    }
}

#[test]
fn nothing_is_restored_over_a_running_daemon_or_from_what_is_no_whole_backup_of_this_key() {
    let mut daemon = Daemon::start();
    import(&daemon, 50);
    let file = backup(&daemon, "backup");
    let whole = std::fs::read(&file).expect("read");
    let fails = |daemon: &Daemon, file: &Path, more: &[&str], wanted: &str| {
        let (code, out, err) = restore(daemon, file, more);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{wanted}: {err}");
        assert!(err.contains(wanted), "{err}");
        assert_eq!(err.lines().count(), 1, "one sentence: {err}");
    };
    fails(&daemon, &file, &["--force"], "another process has this store open");
    daemon.terminate();
    fails(&daemon, &file, &[], "--force moves it aside");
    let broken = daemon.dir.path().join("broken");
    for (octets, wanted) in [
        (whole[..whole.len() - 10].to_vec(), "cut off"),
        (whole[..whole.len() / 2].to_vec(), "cut off"),
        ([&whole[..], b"more"].concat(), "something follows"),
        ([&whole[..whole.len() / 2], b"!", &whole[whole.len() / 2 + 1..]].concat(), "damaged at frame"),
        (b"PK".to_vec(), "no backup of ltkmd"),
    ] {
        std::fs::write(&broken, octets).expect("written");
        fails(&daemon, &broken, &["--force"], wanted);
    }
    fails(&daemon, &daemon.dir.path().join("none"), &[], "cannot be read");
    let key = daemon.dir.path().join("key");
    write_secret(&key, &"ab".repeat(32));
    let text = std::fs::read_to_string(daemon.config_path()).expect("read");
    daemon.configure(&format!("store.store_key_file = \"{}\"", key.display()));
    fails(&daemon, &file, &["--force"], "the store key is not the one");
    std::fs::write(daemon.config_path(), text).expect("written");
    // The store is as it was all along.
    daemon.restart();
    assert_eq!(daemon.get(&format!("/v1/credentials/{}", crate::harness::encoded(&btid(49))))["t"], 0);
    daemon.terminate();
    let (code, out, err) = restore(&daemon, &file, &["--force"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("db.before-"), "{out}");
    daemon.restart();
    assert_eq!(
        daemon.get(&format!("/v1/credentials/{}", crate::harness::encoded(&btid(49))))["t"],
        1_000_000
    );
}

/// A connection on which a request came.
fn requested(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    let (mut head, mut octet) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet).expect("a request");
        head.push(octet[0]);
    }
    stream
}

/// Answers one request with these octets as a backup and goes away.
fn pretend(octets: Vec<u8>, length: usize) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let thread = std::thread::spawn(move || {
        let mut stream = requested(&listener);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(&octets)).expect("taken");
    });
    (address, thread)
}

#[test]
fn a_backup_that_breaks_off_leaves_nothing_behind() {
    let daemon = Daemon::start();
    import(&daemon, 20);
    let whole = std::fs::read(backup(&daemon, "backup")).expect("read");
    let place = tempfile::tempdir().expect("a directory");
    let half = whole[..whole.len() / 2].to_vec();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for (octets, length, wanted) in [
        (half.clone(), whole.len(), "broke"),
        (half.clone(), half.len(), "cut off"),
        (damaged, whole.len(), "damaged at frame"),
        (b"<html>".to_vec(), 6, "no backup"),
    ] {
        let (admin, server) = pretend(octets, length);
        let file = place.path().join("file");
        let output = ltkmd(&["ctl", "--admin", &admin, "backup", file.to_str().expect("UTF-8")]);
        server.join().expect("it answered");
        assert_eq!(output.status.code(), Some(1), "{wanted}");
        assert!(text(&output.stderr).contains(wanted), "{wanted}: {}", text(&output.stderr));
        assert_eq!(std::fs::read_dir(place.path()).expect("there").count(), 0, "{wanted}");
    }
}

#[test]
fn a_backup_that_is_stopped_leaves_nothing_behind() {
    let daemon = Daemon::start();
    import(&daemon, 20);
    let whole = std::fs::read(backup(&daemon, "backup")).expect("read");
    let place = tempfile::tempdir().expect("a directory");
    for stop in [Signal::SIGINT, Signal::SIGTERM] {
        // It sends half of a backup, and then nothing.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let admin = format!("http://{}", listener.local_addr().expect("bound"));
        let file = place.path().join("file");
        let child = Command::new(env!("CARGO_BIN_EXE_ltkmd"))
            .args(["ctl", "--admin", &admin, "backup"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut stream = requested(&listener);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len());
        stream.write_all(head.as_bytes()).expect("taken");
        stream.write_all(&whole[..whole.len() / 2]).expect("taken");
        let written = || {
            let mut entries = std::fs::read_dir(place.path()).expect("there");
            entries.any(|e| e.expect("an entry").metadata().is_ok_and(|m| m.len() > 0))
        };
        daemon.await_state("half a file", |_| written().then_some(()));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        nix::sys::signal::kill(pid, stop).expect("signalled");
        let output = child.wait_with_output().expect("it ended");
        assert_eq!(output.status.code(), Some(1), "{stop}");
        assert!(text(&output.stderr).contains("stopped: nothing was kept"), "{}", text(&output.stderr));
        assert_eq!(std::fs::read_dir(place.path()).expect("there").count(), 0, "{stop}");
    }
}

#[test]
fn what_is_exported_is_imported_elsewhere_and_t_goes_on() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let mut terminal = Terminal::provision(&daemon, &["urn:s"]);
    import(&daemon, 1200);
    let answer = terminal.registered(&["urn:s"], Some(&[2]));
    let before = terminal.open(&answer.items[0].ltkms()[0]).counter;
    let file = daemon.dir.path().join("export");
    let path = file.to_str().expect("UTF-8");
    let (code, _, err) = ctl(&daemon, ADMIN_TOKEN, &["export", "--secrets", path]);
    assert_eq!(code, Some(1), "the admin token reads no keys");
    assert!(err.contains("key_reader_token") && !file.exists(), "{err}");
    let (code, out, err) = ctl(&daemon, ADMIN_TOKEN, &["export", path]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("keys of credentials were left out"), "{err}");
    assert!(
        out.contains("2403 lines") && !text(&std::fs::read(&file).expect("read")).contains("mrk"),
        "{out}"
    );
    let (code, _, err) = ctl(&daemon, KEY_READER_TOKEN, &["export", "--secrets", "--force", path]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o600);

    let other = Daemon::start_with(&format!("udp.port = {}", daemon.port));
    let (code, out, err) = ctl(&other, ADMIN_TOKEN, &["import", path]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    terminal.follow(&other);
    let answer = terminal.registered(&["urn:s"], Some(&[2]));
    assert_eq!(terminal.open(&answer.items[0].ltkms()[0]).counter, before + 1);
    let copy = other.dir.path().join("export");
    let path = copy.to_str().expect("UTF-8");
    assert_eq!(ctl(&other, KEY_READER_TOKEN, &["export", "--secrets", path]).0, Some(0));
    // The same but for the one counter that went on, in an order of the store's own.
    let lines = |file: &Path| {
        let mut lines: Vec<String> =
            text(&std::fs::read(file).expect("read")).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (a, b) = (lines(&file), lines(&copy));
    let differ: Vec<_> = a.iter().filter(|line| b.binary_search(line).is_err()).collect();
    assert_eq!((a.len(), b.len(), differ.len()), (2403, 2403, 1));
    assert!(differ[0].contains(&terminal.btid), "{differ:?}");
}

#[test]
fn a_full_disk_keeps_nothing_of_a_backup_or_of_a_restore() {
    let Some(mounted) = Mounted::of("8m") else {
        eprintln!("mounting is not allowed here");
        return;
    };
    let mut daemon = Daemon::start();
    import(&daemon, 3000);
    let file = backup(&daemon, "backup");
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).expect("there");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    mounted.fill(64 << 10);
    let place = mounted.path().join("backup");
    let (code, _, err) = ctl(&daemon, ADMIN_TOKEN, &["backup", place.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot be written") && err.contains("No space left"), "{err}");
    assert_eq!(names(mounted.path()), ["ballast"]);
    daemon.terminate();
    let other = mounted.path().join("store");
    std::fs::create_dir(&other).expect("made");
    std::fs::copy(daemon.dir.path().join("store/store.key"), other.join("store.key")).expect("copied");
    daemon.configure(&format!("store.url = \"file:{}\"", other.display()));
    let (code, _, err) = restore(&daemon, &file, &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("No space left"), "{err}");
    assert_eq!(names(&other), ["lock", "store.key"]);
}
