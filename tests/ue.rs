//! The terminal of the command line, `ltkmd ue`, and `ltkmd demo`: against the real daemon, as users run them.

mod harness;
#[path = "ue/smsc.rs"]
mod smsc;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use data_encoding::BASE64;
use harness::{Daemon, encoded};
use serde_json::{Value, json};

const SERVICE: &str = "urn:s";

static NEXT: AtomicU8 = AtomicU8::new(1);

/// A terminal that the daemon knows: a credential file and an address.
struct Ue<'a> {
    daemon: &'a Daemon,
    subscriber: String,
    btid: String,
    credential: PathBuf,
    state: PathBuf,
    address: String,
}

impl<'a> Ue<'a> {
    /// Makes subscriber and credential known.
    fn provision(daemon: &'a Daemon, services: &[&str]) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let (subscriber, btid) = (format!("{n}@ims.example.com"), format!("ue+{n}/=@bsf.example.com"));
        let document = json!({ "msisdn": null, "services": services });
        let path = format!("/v1/subscribers/{}", encoded(&subscriber));
        assert_eq!(daemon.admin("PUT", &path, Some(&document)).status, 201);
        let key = |octet: u8| BASE64.encode(&[octet; 32]);
        let mut document = json!({
            "subscriber": subscriber, "mrk": key(n), "muk": key(n ^ 0x80), "gba": "u", "expires": null,
        });
        let path = format!("/v1/credentials/{}", encoded(&btid));
        assert_eq!(daemon.admin("PUT", &path, Some(&document)).status, 201);
        document["btid"] = json!(btid);
        let file = |name: &str| daemon.dir.path().join(format!("{name}-{n}.json"));
        let credential = file("credential");
        std::fs::write(&credential, document.to_string()).expect("the credential is written");
        Self {
            daemon,
            subscriber,
            btid,
            credential,
            state: file("state"),
            address: format!("127.8.0.{n}:{}", daemon.port),
        }
    }

    /// The command with what all commands of this terminal take.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
        command.args(["ue", name, "--json", "--bsm", &self.daemon.udp.to_string()]);
        command.args(["--url", &format!("http://{}/keymanagement", self.daemon.http)]);
        command.arg("--credential").arg(&self.credential).arg("--state").arg(&self.state);
        command.args(["--listen", &self.address]);
        command
    }

    /// Runs a command to its end.
    fn run(&self, name: &str, args: &[&str]) -> Run {
        Run::of(self.command(name).args(args))
    }

    /// Waits until the daemon knows so many keys of this terminal as verified.
    fn await_verified(&self, keys: usize) {
        let path = format!("/v1/terminals/{}", encoded(&self.btid));
        self.daemon.await_state("the verification", |daemon| {
            let verified = daemon.get(&path)["verified"].as_array().map(Vec::len);
            (verified == Some(keys)).then_some(())
        });
    }
}

/// How a command ended.
struct Run {
    code: Option<i32>,
    json: Value,
    out: String,
    err: String,
}

impl Run {
    fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the program runs");
        let text = |octets| String::from_utf8(octets).expect("text");
        let (out, err) = (text(stdout), text(stderr));
        let json = serde_json::from_str(&out).unwrap_or_default();
        Self { code: status.code(), json, out, err }
    }

    /// Fails the test unless the command did what it was asked for.
    #[track_caller]
    fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    /// (method, MSK ID, what) of each LTKM.
    fn received(&self) -> Vec<(&str, &str, &str)> {
        let list = self.json["received"].as_array().expect("a list of LTKMs");
        list.iter()
            .map(|record| {
                let text = |name: &str| record[name].as_str().unwrap_or_default();
                (text("method"), text("msk_id"), text("what"))
            })
            .collect()
    }
}

fn daemon() -> Daemon {
    let daemon = Daemon::start();
    daemon.put_service(SERVICE, 1, json!({}));
    daemon
}

#[test]
fn a_registration_brings_the_key_by_udp_and_it_is_verified() {
    let daemon = daemon();
    let ue = Ue::provision(&daemon, &[SERVICE]);
    let run = ue.run("register", &["--service", SERVICE]).done();
    assert_eq!(run.received(), [("udp", "00010001", "new key")]);
    let told = &run.json;
    assert_eq!(
        (&told["status"], &told["proof"], &told["delivery"]),
        (&json!(200), &json!("given"), &json!(null))
    );
    assert_eq!((&told["algorithm"], &told["qop"]), (&json!("SHA-256"), &json!("auth-int")));
    ue.await_verified(1);
}

#[test]
fn every_dialect_of_a_registration_is_understood_by_both_sides() {
    let daemon = daemon();
    for options in [
        ["--qop", "auth", "--algorithm", "MD5", "--form", "base64", "--children", "default-namespace"],
        ["--qop", "auth-int", "--algorithm", "MD5", "--form", "plain", "--children", "qualified"],
        ["--qop", "auth", "--algorithm", "SHA-256", "--form", "base64", "--children", "qualified"],
    ] {
        let ue = Ue::provision(&daemon, &[SERVICE]);
        let command = ["--service", SERVICE, "--methods", "http,udp", "--type", "200"];
        let run = ue.run("register", &[&command[..], &options].concat()).done();
        assert_eq!(run.received(), [("http", "00010001", "new key")], "{options:?}");
        assert_eq!(run.json["delivery"], json!(["udp", "http"]), "{options:?}");
        assert_eq!((&run.json["algorithm"], &run.json["qop"]), (&json!(options[3]), &json!(options[1])));
    }
}

#[test]
fn an_msk_request_brings_the_current_key_and_a_deregistration_ends_it() {
    let daemon = daemon();
    let ue = Ue::provision(&daemon, &[SERVICE]);
    ue.run("register", &["--service", SERVICE, "--methods", "http"]).done();
    let run = ue.run("msk-request", &["--key", "b8709d:00010000"]).done();
    assert_eq!(run.received(), [("http", "00010001", "known key")]);
    let unknown = ue.run("msk-request", &["--key", "b8709d:00010009"]);
    assert_eq!((unknown.code, &unknown.json["items"][0]["code"]), (Some(1), &json!(404)));
    assert!(unknown.err.contains("1 of 1 items were refused"), "{}", unknown.err);
    let run = ue.run("deregister", &["--service", SERVICE]).done();
    assert_eq!(run.received(), [("http", "00010001", "key ended")]);
    let again = ue.run("deregister", &["--service", SERVICE]);
    assert_eq!((again.code, &again.json["items"][0]["code"]), (Some(1), &json!(403)));
}

#[test]
fn keys_are_shown_only_when_asked_for_and_are_the_daemons() {
    let daemon = daemon();
    let ue = Ue::provision(&daemon, &[SERVICE]);
    let register = ["--service", SERVICE, "--methods", "http"];
    let hidden = ue.run("register", &register).done();
    assert!(hidden.json["received"][0].get("key").is_none());
    let shown = ue.run("register", &[&register[..], &["--show-keys"]].concat()).done();
    let path = format!("/v1/services/{}/keys?secrets=true", encoded(SERVICE));
    let keys = daemon.admin_as(harness::KEY_READER_TOKEN, "GET", &path, None).json();
    let msk = BASE64.decode(keys["items"][0]["msk"].as_str().expect("the MSK").as_bytes()).expect("base64");
    assert_eq!(shown.json["received"][0]["key"], json!(data_encoding::HEXLOWER.encode(&msk)));
    assert!(!hidden.out.contains(&data_encoding::HEXLOWER.encode(&msk)));
}

#[test]
fn the_state_file_keeps_keys_from_run_to_run() {
    let daemon = daemon();
    let ue = Ue::provision(&daemon, &[SERVICE]);
    let register = ["--service", SERVICE, "--methods", "http"];
    let first = ue.run("register", &register).done();
    let second = ue.run("register", &register).done();
    assert_eq!(first.received(), [("http", "00010001", "new key")]);
    assert_eq!(second.received(), [("http", "00010001", "known key")]);
    let t = |run: &Run| run.json["received"][0]["t"].as_u64();
    assert!(t(&second) > t(&first));
}

#[test]
fn what_the_daemon_refuses_is_a_failure_that_says_what_to_do() {
    let daemon = daemon();
    let ue = Ue::provision(&daemon, &[SERVICE]);
    let run = ue.run("register", &["--service", SERVICE, "--type", "77"]);
    assert_eq!((run.code, &run.json["status"]), (Some(1), &json!(403)));
    let other = Ue::provision(&daemon, &[SERVICE]);
    std::fs::write(&ue.credential, {
        let text = std::fs::read_to_string(&other.credential).expect("a credential");
        text.replace(&other.btid, &ue.btid)
    })
    .expect("written");
    let run = ue.run("register", &["--service", SERVICE]);
    assert_eq!((run.code, &run.json["status"]), (Some(1), &json!(401)));
    assert!(run.err.contains("look at B-TID and MRK"), "{}", run.err);
    let run = ue.run("register", &["--service", SERVICE, "--qop", "none"]);
    assert_eq!(run.code, Some(2), "{}", run.err);
    std::fs::write(&ue.credential, "{}").expect("written");
    let run = ue.run("register", &["--service", SERVICE]);
    assert_eq!(run.code, Some(2), "{}", run.err);
    assert!(run.err.contains("is no credential") && run.err.lines().count() == 1, "{}", run.err);
}

#[test]
fn a_key_that_does_not_come_in_time_is_a_failure() {
    let daemon = daemon();
    let ue = Ue::provision(&daemon, &[SERVICE]);
    let elsewhere = ue.address.replace(&daemon.port.to_string(), "0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
    command.args(["ue", "register", "--service", SERVICE, "--wait", "0.3", "--listen", &elsewhere]);
    command.args(["--url", &format!("http://{}/keymanagement", daemon.http)]);
    let run = Run::of(command.arg("--credential").arg(&ue.credential));
    assert_eq!(run.code, Some(1), "{}", run.out);
    assert!(run.err.contains("0 of 1 keys arrived"), "{}", run.err);
}

/// A listening terminal; killed when the test ends early.
struct Listening {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listening {
    fn start(ue: &Ue<'_>, args: &[&str]) -> Self {
        let mut child = ue.command("listen").args(args).stdout(Stdio::piped()).spawn().expect("it listens");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        let mut listening = Self { child, lines };
        assert_eq!(listening.next()["listening"], json!(ue.address));
        listening
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("a JSON line")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It has ended when the test was good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_listening_terminal_takes_updates_and_follows_a_trigger() {
    // Nothing is lost here, so nothing is to be sent again.
    let daemon = Daemon::start_with("udp.first_timeout = \"60s\"");
    daemon.put_service(SERVICE, 1, json!({}));
    let ue = Ue::provision(&daemon, &[SERVICE]);
    ue.run("register", &["--service", SERVICE, "--methods", "http,udp"]).done();
    ue.await_verified(1);
    let again = ["--service", SERVICE, "--methods", "udp,http"];
    let mut listening = Listening::start(&ue, &[&["--count", "5", "--wait", "60"][..], &again].concat());
    let rotated = daemon.admin("POST", &format!("/v1/services/{}/rotate", encoded(SERVICE)), None);
    assert_eq!(rotated.status, 202);
    let update = listening.next();
    assert_eq!((&update["method"], &update["msk_id"]), (&json!("udp"), &json!("00010002")));
    ue.await_verified(2);
    let trigger = json!({ "procedure": "msk-request", "service": SERVICE });
    let path = format!("/v1/terminals/{}/trigger", encoded(&ue.btid));
    assert_eq!(daemon.admin("POST", &path, Some(&trigger)).status, 202);
    assert_eq!(listening.next()["what"], "asks for a pull");
    let reply = listening.next();
    assert_eq!((&reply["procedure"], &reply["status"]), (&json!("msk-request"), &json!(200)));
    let pulled = listening.next();
    assert_eq!((&pulled["method"], &pulled["msk_id"]), (&json!("http"), &json!("00010002")));
    assert_eq!(daemon.admin("POST", &path, Some(&json!({ "procedure": "register" }))).status, 202);
    assert_eq!(listening.next()["what"], "asks to register");
    let reply = listening.next();
    assert_eq!((&reply["procedure"], &reply["delivery"]), (&json!("register"), &json!(["udp", "http"])));
    assert_eq!(listening.next()["what"], "known key");
    assert!(listening.child.wait().expect("it ends").success());
}

#[test]
fn a_terminal_that_no_datagram_reaches_is_woken_by_sms_and_follows_each_trigger() {
    let mut smsc = smsc::Smsc::start(&["--system-id", "ltkmd", "--deliver-all", "127.8.9.1"]);
    let sms = format!("sms.smsc = \"smpp://{}\"", smsc.address);
    let daemon =
        Daemon::start_with(&format!("{sms}\nsms.source = \"12345\"\nsms.terminal_interval = \"0s\""));
    daemon.put_service(SERVICE, 1, json!({}));
    assert_eq!(smsc.await_event("bound")["system_id"], "ltkmd");
    let mut ue = Ue::provision(&daemon, &[SERVICE]);
    ue.address = format!("127.8.9.1:{}", daemon.port);
    let document = json!({ "msisdn": "491701234567", "services": [SERVICE] });
    let path = format!("/v1/subscribers/{}", encoded(&ue.subscriber));
    assert_eq!(daemon.admin("PUT", &path, Some(&document)).status, 200);
    let declared = ["--service", SERVICE, "--methods", "http,sms"];
    let run = ue.run("register", &declared).done();
    assert_eq!(run.json["delivery"], json!(["sms", "http"]));
    ue.await_verified(1);

    let mut listening = Listening::start(&ue, &[&["--count", "4", "--wait", "60"][..], &declared].concat());
    let rotated = daemon.admin("POST", &format!("/v1/services/{}/rotate", encoded(SERVICE)), None);
    assert_eq!(rotated.status, 202);
    let message = smsc.await_event("message");
    assert_eq!((&message["to"], &message["ltkm"]["pull"]), (&json!("491701234567"), &json!("msk-request")));
    assert_eq!((&message["ltkm"]["btid"], &message["ltkm"]["key"]), (&json!(ue.btid), &json!(false)));
    let woken = listening.next();
    assert_eq!((&woken["what"], &woken["acknowledged"]), (&json!("asks for a pull"), &json!(false)));
    assert_eq!(listening.next()["procedure"], "msk-request");
    let pulled = listening.next();
    assert_eq!(
        (&pulled["method"], &pulled["msk_id"], &pulled["acknowledged"]),
        (&json!("http"), &json!("00010002"), &json!(true))
    );
    // The verification message went to the daemon, though the trigger came from the centre.
    ue.await_verified(2);

    let path = format!("/v1/terminals/{}/trigger", encoded(&ue.btid));
    assert_eq!(daemon.admin("POST", &path, Some(&json!({ "procedure": "register" }))).status, 202);
    assert_eq!(smsc.await_event("message")["ltkm"]["pull"], "register");
    assert_eq!(listening.next()["what"], "asks to register");
    let reply = listening.next();
    assert_eq!((&reply["procedure"], &reply["delivery"]), (&json!("register"), &json!(["sms", "http"])));
    assert_eq!(listening.next()["what"], "known key");
    assert!(listening.child.wait().expect("it ends").success());
}

#[test]
fn https_is_spoken_with_a_server_that_the_authority_vouches_for_alone() {
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    for (name, names) in [("server", ["127.0.0.1"]), ("other", ["127.0.0.1"])] {
        let made = rcgen::generate_simple_self_signed(names.map(str::to_owned)).expect("a certificate");
        std::fs::write(path(&format!("{name}.pem")), made.cert.pem()).expect("written");
        std::fs::write(path(&format!("{name}.key")), made.signing_key.serialize_pem()).expect("written");
    }
    let tls = format!(
        "http.tls = {{ certificate = \"{}\", key = \"{}\" }}",
        path("server.pem"),
        path("server.key")
    );
    let daemon = Daemon::start_with(&tls);
    daemon.put_service(SERVICE, 1, json!({}));
    let ue = Ue::provision(&daemon, &[SERVICE]);
    let register = |ca: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
        command.args(["ue", "register", "--json", "--service", SERVICE, "--methods", "http"]);
        command.args([
            "--url",
            &format!("https://{}/keymanagement", daemon.http),
            "--bsm",
            &daemon.udp.to_string(),
        ]);
        Run::of(command.arg("--credential").arg(&ue.credential).args(ca))
    };
    let run = register(&["--ca", &path("server.pem")]).done();
    assert_eq!(run.received(), [("http", "00010001", "new key")]);
    ue.await_verified(1);
    let run = register(&["--ca", &path("other.pem")]);
    assert_eq!(run.code, Some(1), "{}", run.out);
    let run = register(&[]);
    assert!(run.code == Some(2) && run.err.contains("--ca"), "{}", run.err);
}

#[test]
fn verification_messages_that_come_one_by_one_faster_than_commits_are_all_recorded() {
    // Nothing is sent again in time: what is not recorded at once is missing.
    let daemon = Daemon::start_with("udp.first_timeout = \"60s\"");
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
    command.args(["ue", "load", "--json", "--service", SERVICE, "--bsm", &daemon.udp.to_string()]);
    command.args(["--url", &format!("http://{}/keymanagement", daemon.http)]);
    command.args(["--admin", &format!("http://{}", daemon.admin)]);
    command.arg("--token-file").arg(daemon.dir.path().join("admin_token"));
    command.args(["--source", &format!("127.8.3.{n}"), "--sources", "1"]);
    command.args(["--ltkm-port", &daemon.port.to_string(), "--terminals", "1000", "--connections", "32"]);
    let told = Run::of(&mut command).done().json;
    assert_eq!((&told["ltkms"]["udp"], &told["ltkms"]["verified"]), (&json!(1000), &json!(1000)), "{told}");
}

#[test]
fn a_load_runs_without_a_fault_and_the_daemon_counts_every_key_as_verified() {
    let daemon = daemon();
    let token = daemon.dir.path().join("admin_token");
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let saved = daemon.dir.path().join("terminals.ndjson");
    let load = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
        command.args(["ue", "load", "--json", "--service", SERVICE, "--bsm", &daemon.udp.to_string()]);
        command.args(["--url", &format!("http://{}/keymanagement", daemon.http)]);
        command.args(["--admin", &format!("http://{}", daemon.admin)]).arg("--token-file").arg(&token);
        command.args(["--source", &format!("127.8.1.{n}"), "--sources", "2"]);
        command.args(["--ltkm-port", &daemon.port.to_string(), "--connections", "4"]);
        Run::of(command.args(args)).done().json
    };
    let saved = saved.to_str().expect("a path");
    let told = load(&["--terminals", "40", "--save", saved]);
    assert_eq!((&told["requests"], &told["errors"]), (&json!(40), &json!({})));
    assert!(
        told["ltkms"]["udp"].as_u64() >= Some(40) && told["ltkms"]["verified"].as_u64() >= Some(40),
        "{told}"
    );
    let mix = "register=1,msk-request=1,deregister=1";
    let told = load(&["--credentials", saved, "--methods", "http", "--passes", "5", "--mix", mix]);
    assert_eq!((&told["requests"], &told["errors"]), (&json!(200), &json!({})));
    assert_eq!(told["items"], json!({ "200": 200 }));
    let unreachable = Run::of(
        Command::new(env!("CARGO_BIN_EXE_ltkmd"))
            .args(["ue", "load", "--url", "http://127.0.0.1:9", "--service", SERVICE, "--credentials", saved])
            .args(["--source", &format!("127.8.2.{n}"), "--ltkm-port", &daemon.port.to_string()]),
    );
    assert_eq!(unreachable.code, Some(1), "{}", unreachable.out);
    assert!(unreachable.out.contains("no connection"), "{}", unreachable.out);
}

#[test]
fn the_demo_holds_every_step() {
    let run = Run::of(Command::new(env!("CARGO_BIN_EXE_ltkmd")).arg("demo")).done();
    for told in [
        "403 Forbidden to dave",
        "401 Unauthorized to mallory",
        "1 awaiting a pull",
        "is asked by SMS",
        "Every step held",
    ] {
        assert!(run.out.contains(told), "no {told:?} in\n{}", run.out);
    }
    assert!(!run.out.contains('\x1b') && run.err.is_empty(), "{}", run.err);
}
