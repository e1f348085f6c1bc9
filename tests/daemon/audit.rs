//! The audit log of a real daemon, checked by `ltkmd ctl audit verify`; and what the daemon's own log tells of whom.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::terminal::Terminal;
use crate::harness::{ADMIN_TOKEN, Daemon, write_secret};
use crate::store::Mounted;

const HTTP: Option<&[u8]> = Some(&[2]);

/// What a run of `ltkmd ctl` came to.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ctl(daemon: &Daemon, args: &[&str]) -> Run {
    let admin = format!("http://{}", daemon.admin);
    let run = Command::new(env!("CARGO_BIN_EXE_ltkmd"))
        .args(["ctl", "--admin", &admin, "--token-file"])
        .arg(daemon.dir.path().join("admin_token"))
        .args(args)
        .output()
        .expect("it runs");
    let text = |octets| String::from_utf8(octets).expect("UTF-8");
    Run { code: run.status.code(), out: text(run.stdout), err: text(run.stderr) }
}

/// The check of the daemon's own log, as `--json` tells it.
fn verified(daemon: &Daemon) -> Value {
    let run = ctl(daemon, &["--json", "audit", "verify"]);
    let told: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{}{}", run.out, run.err));
    assert_eq!(run.code, Some(i32::from(told["whole"] != true)), "{told}");
    assert_eq!(told["daemon"]["compared"], true, "{told}");
    told
}

fn log_of(daemon: &Daemon) -> PathBuf {
    daemon.dir.path().join("store/audit.log")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a log");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Checks a copy of the log that this was done to; what is wrong with it.
fn tampered(daemon: &Daemon, tamper: impl FnOnce(&mut Vec<String>)) -> String {
    let text = std::fs::read_to_string(log_of(daemon)).expect("a log");
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    tamper(&mut lines);
    let copy = daemon.dir.path().join("copy.log");
    std::fs::write(&copy, lines.concat()).expect("written");
    let run = ctl(daemon, &["audit", "verify", copy.to_str().expect("UTF-8")]);
    assert_eq!(run.code, Some(1), "{}{}", run.out, run.err);
    run.err
}

#[test]
fn changes_and_reads_of_secrets_are_told_with_who_and_any_edit_of_them_shows() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let msk = daemon.keys("urn:s")[0].clone();
    let log = lines(&log_of(&daemon));
    let put = &log[1];
    assert_eq!(
        (&put["event"], &put["method"], &put["path"]),
        (&json!("request"), &json!("PUT"), &json!("/v1/services/urn%3As"))
    );
    assert_eq!(put["who"]["as"], "admin");
    assert!(put["who"]["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{put}");
    assert_eq!(
        (&log[2]["event"], &log[2]["of"], &log[2]["status"]),
        (&json!("answer"), &put["seq"], &json!(201))
    );
    let read = log.last().expect("lines");
    assert_eq!(
        (&read["event"], &read["who"]["as"], &read["status"]),
        (&json!("read"), &json!("key_reader"), &json!(200))
    );
    assert_eq!(read["names"]["msk_ids"], json!([msk["msk_id"]]));
    let text = std::fs::read_to_string(log_of(&daemon)).expect("a log");
    let base64 = |octets: &[u8]| data_encoding::BASE64.encode(octets);
    for secret in
        [msk["msk"].as_str().expect("a key"), &base64(&terminal.muk), &base64(&terminal.mrk), ADMIN_TOKEN]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }

    let told = verified(&daemon);
    assert_eq!((&told["whole"], &told["lines"]), (&json!(true), &json!(log.len())));
    let run = ctl(&daemon, &["audit", "verify"]);
    assert!(
        run.code == Some(0) && run.out.contains("its end is what the running daemon says"),
        "{}",
        run.out
    );
    let shown = ctl(&daemon, &["audit", "show"]);
    assert!(
        shown.code == Some(0) && shown.out.contains("PUT /v1/services/urn%3As") && shown.out.contains("201"),
        "{}{}",
        shown.out,
        shown.err
    );

    let found = tampered(&daemon, |lines| lines[1] = lines[1].replace("urn%3As", "urn%3At"));
    assert!(found.contains("line 2: the line was changed"), "{found}");
    let found = tampered(&daemon, |lines| drop(lines.remove(2)));
    assert!(found.contains("line 3: number 3 of the log is missing"), "{found}");
    // A cut at the end shows against what the running daemon says.
    let kept: String = text.split_inclusive('\n').take(3).collect();
    std::fs::write(log_of(&daemon), kept).expect("cut");
    let found = verified(&daemon);
    assert!(
        found["fault"]
            .as_str()
            .is_some_and(|f| f.contains("ends at number 3, and the daemon has written up to")),
        "{found}"
    );
}

#[test]
fn every_answered_change_is_in_the_log_whenever_the_daemon_is_killed_and_a_torn_line_is_told() {
    let mut daemon = Daemon::start();
    let mut answered = 0;
    for round in 0..3 {
        for n in 0..5 {
            let path = format!("/v1/subscribers/{round}-{n}");
            assert_eq!(daemon.admin("PUT", &path, Some(&json!({}))).status, 201);
            answered += 1;
        }
        daemon.kill();
        // As a power cut leaves a line that was being written.
        let mut log = std::fs::OpenOptions::new().append(true).open(log_of(&daemon)).expect("a log");
        std::io::Write::write_all(&mut log, b"{\"seq\":99,\"prev\":\"0000").expect("torn");
        daemon.restart();
        let told = verified(&daemon);
        assert_eq!((&told["whole"], &told["torn"]), (&json!(true), &json!(round + 1)), "{told}");
    }
    let log = lines(&log_of(&daemon));
    let of = |event: &str| log.iter().filter(|line| line["event"] == event).count();
    assert_eq!((of("request"), of("answer"), of("torn")), (answered, answered, 3));
    assert!(daemon.logged.iter().any(|line| line.contains("broke off in the middle of a line")));
}

#[test]
fn what_is_cut_off_while_the_daemon_is_down_is_told_for_good() {
    let mut daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    daemon.terminate();
    let text = std::fs::read_to_string(log_of(&daemon)).expect("a log");
    assert_eq!(lines(&log_of(&daemon)).last().expect("lines")["event"], "ended");
    let kept: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(log_of(&daemon), kept).expect("cut");
    daemon.restart();
    assert!(
        daemon.logged.iter().any(|line| line.contains("missing or were replaced")),
        "{:?}",
        daemon.logged
    );
    let told = verified(&daemon);
    assert!(
        told["fault"].as_str().is_some_and(|f| f.contains("numbers 3 to 4 of the log are missing")),
        "{told}"
    );
    assert_eq!(daemon.admin("PUT", "/v1/subscribers/a", Some(&json!({}))).status, 201, "it goes on");
}

#[test]
fn a_rotated_log_is_one_chain_over_its_files() {
    let mut daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let older = daemon.dir.path().join("store/audit.log.1");
    std::fs::rename(log_of(&daemon), &older).expect("rotated");
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("configuration read again");
    daemon.await_state("the new file", |daemon| log_of(daemon).exists().then_some(()));
    daemon.put_service("urn:t", 2, json!({}));
    let newer = log_of(&daemon);
    assert_eq!(lines(&newer)[0]["event"], "continued");
    assert_eq!(lines(&newer)[0]["prev"], lines(&older).last().expect("lines")["hash"]);
    let run = ctl(&daemon, &["audit", "verify"]);
    assert!(
        run.code == Some(0) && run.out.contains("it continues an earlier file, which ended at number 3"),
        "{}",
        run.out
    );
    let both = [older.to_str().expect("UTF-8"), newer.to_str().expect("UTF-8")];
    let run = ctl(&daemon, &["audit", "verify", both[0], both[1]]);
    assert!(run.code == Some(0) && run.out.contains("numbers 1 to 6"), "{}{}", run.out, run.err);
    assert_eq!(ctl(&daemon, &["audit", "verify", both[1], both[0]]).code, Some(1), "in the wrong order");
}

#[test]
fn a_full_disk_under_the_log_refuses_changes_and_serves_terminals_until_there_is_room() {
    let Some(mounted) = Mounted::of("1m") else {
        eprintln!("mounting is not allowed here: the log's own tests prove the refusal without it");
        return;
    };
    let file = mounted.path().join("audit.log");
    let daemon = Daemon::start_with(&format!("audit.file = \"{}\"", file.display()));
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    mounted.fill(0);
    let put = |id: &str| daemon.admin("PUT", &format!("/v1/subscribers/{id}"), Some(&json!({})));
    // What is left of the last block takes some lines yet.
    let refused = daemon.await_state("a refusal", |_| {
        let reply = put("filler");
        (reply.status == 503).then_some(reply)
    });
    assert!(refused.text().contains("nothing is changed without a record of it"), "{}", refused.text());
    assert_eq!(put("new").status, 503);
    assert_eq!(daemon.admin("GET", "/v1/subscribers/new", None).status, 404, "it was not done");
    assert!(daemon.get("/v1/audit/head")["trouble"].is_string());
    assert_eq!(daemon.metric("ltkmd_audit_up"), 0.0);
    terminal.registered(&["urn:s"], HTTP);
    mounted.free();
    assert_eq!(put("new").status, 201);
    let told = verified(&daemon);
    assert_eq!(told["whole"], true, "{told}");
}

#[test]
fn the_daemons_log_names_terminals_by_the_rule_and_never_a_key() {
    let mut daemon = Daemon::start_with("log.filter = \"info,ltkmd=trace\"\nlog.btid = \"hash\"");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
    let number = daemon.rotate("urn:s", None).0.to_string();
    daemon.await_log("\"took_ms\"");
    let msk = daemon.keys("urn:s")[0]["msk"].clone();
    let (btid, mrk, muk) = (terminal.btid.clone(), terminal.mrk.clone(), terminal.muk.clone());
    let log = daemon.end_and_read_log().to_vec();
    let shown = data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(&btid)[..8]);
    let spans = |name: &str| {
        let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["span"]["name"] == name).collect::<Vec<_>>()
    };
    let requests = spans("request");
    let answered =
        requests.iter().find(|event| event["span"]["btid"].is_string()).expect("an authenticated request");
    assert_eq!(answered["span"]["btid"], shown);
    assert_eq!(answered["span"]["procedure"], "register");
    assert_eq!(answered["fields"]["status"], 200);
    assert!(answered["fields"]["took_ms"].is_number(), "{answered}");
    assert!(
        spans("job").iter().any(|event| event["span"]["job"].as_str() == Some(number.as_str())),
        "{log:#?}"
    );
    assert!(spans("admin").iter().any(|event| event["span"]["path"] == "/v1/credentials/{btid}"));
    let (base64, hex) = (data_encoding::BASE64, data_encoding::HEXLOWER);
    let secrets = [
        msk.as_str().expect("a key").to_owned(),
        base64.encode(&mrk),
        base64.encode(&muk),
        hex.encode(&mrk),
        hex.encode(&muk),
        format!("{mrk:?}"),
        ADMIN_TOKEN.to_owned(),
        btid,
    ];
    for line in &log {
        for secret in &secrets {
            assert!(!line.contains(secret.as_str()), "{secret} in {line}");
        }
    }
}

#[test]
fn without_a_journal_the_daemon_says_so_and_does_not_start() {
    if Path::new("/run/systemd/journal/socket").exists() {
        eprintln!("journald runs here: the layer's own tests prove the refusal");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    write_secret(&dir.path().join("token"), ADMIN_TOKEN);
    let config = dir.path().join("ltkmd.toml");
    let text = format!(
        "node.fqdn = \"bmsc.example.com\"\nstore.url = \"file:{0}/store\"\nadmin.listen = \"127.0.0.1:0\"\n\
         admin.admin_token_file = \"{0}/token\"\nlog.format = \"journald\"\n",
        dir.path().display()
    );
    std::fs::write(&config, text).expect("written");
    let run = Command::new(env!("CARGO_BIN_EXE_ltkmd"))
        .args(["serve", "--config"])
        .arg(&config)
        .output()
        .expect("run");
    let err = String::from_utf8(run.stderr).expect("UTF-8");
    assert_eq!(run.status.code(), Some(1), "{err}");
    assert!(
        err.contains("/run/systemd/journal/socket") && err.contains("is systemd-journald running?"),
        "{err}"
    );
}
