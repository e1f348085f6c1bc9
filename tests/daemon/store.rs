//! A store without room: no promise is broken, and room heals it without a restart.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::http::request;
use crate::harness::terminal::Terminal;
use crate::harness::{Daemon, free_port};

const HTTP: Option<&[u8]> = Some(&[2]);

/// A small file system that is there as long as this value; `None` where mounting is not allowed.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    pub(crate) fn of(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        mount.is_ok_and(|o| o.status.success()).then_some(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves so many octets free.
    pub(crate) fn fill(&self, left: u64) {
        let stat = nix::sys::statvfs::statvfs(self.path()).expect("a file system");
        let free = stat.blocks_available() * stat.fragment_size();
        std::fs::write(self.path().join("ballast"), vec![1; (free - left) as usize]).expect("filled");
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).expect("freed");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn ready(daemon: &Daemon) -> u16 {
    request(daemon.admin, "GET", "/readyz", &[], b"").status
}

fn await_ready(daemon: &Daemon, status: u16) {
    daemon.await_state(&format!("/readyz {status}"), |daemon| (ready(daemon) == status).then_some(()));
}

#[test]
fn a_full_disk_takes_readiness_away_and_gives_503_until_there_is_room_again() {
    let Some(mounted) = Mounted::of("160m") else {
        eprintln!("mounting is not allowed here: tests/store proves the store's part without it");
        return;
    };
    let mut daemon = Daemon::start_with(&format!("store.url = \"file:{}/store\"", mounted.path().display()));
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let answer = terminal.registered(&["urn:s"], HTTP);
    let ltkm = terminal.open(&answer.items[0].ltkms()[0]);
    await_ready(&daemon, 200);

    mounted.fill(20 << 20);
    await_ready(&daemon, 503);
    assert_eq!(request(daemon.admin, "GET", "/healthz", &[], b"").status, 200, "the process lives");
    let why = daemon.get("/v1/status")["checks"]["store"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("64 MiB are kept in reserve")), "{why}");
    let told = request(daemon.admin, "GET", "/readyz", &[], b"").text();
    assert!(
        told.contains("store: does not work now") && !told.contains("reserve"),
        "no path without a token: {told}"
    );
    let mut connection = terminal.connect();
    let digest = terminal.digest(&mut connection, "register");
    let body = crate::harness::terminal::registration(&["urn:s"], HTTP);
    for nc in 1..=3 {
        let digest = digest.count(nc);
        let reply = terminal.send_as(&mut connection, "register", body.as_bytes(), &digest);
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.header("retry-after").is_some() && !reply.text().contains("LTKM"));
        digest.prove(&reply);
    }
    let closed = json!({"key_domain": "b8709d", "key_group": "0001", "validity": "ntp", "open": false});
    let errors = daemon.metric("ltkmd_store_errors_total");
    assert!(errors >= 3.0, "{errors}");
    for (method, path, body) in [
        ("PUT", "/v1/subscribers/new", Some(json!({}))),
        ("DELETE", "/v1/services/urn:s?force=true", None),
        ("POST", "/v1/services/urn:s/rotate", None),
        ("PUT", "/v1/services/urn:s", Some(closed)),
    ] {
        let reply = daemon.admin(method, path, body.as_ref());
        assert_eq!(reply.status, 503, "{method} {path}: {}", reply.text());
    }
    // What is only read is still told.
    assert_eq!(daemon.terminal(&terminal.btid)["services"], json!(["urn:s"]));
    terminal.verify(&ltkm);
    daemon.await_metric("ltkmd_udp_received_total{outcome=\"unrecorded\"}", 1.0);

    mounted.free();
    await_ready(&daemon, 200);
    let after = terminal.registered(&["urn:s"], HTTP);
    let after = terminal.open(&after.items[0].ltkms()[0]);
    assert!(after.counter > ltkm.counter);
    assert_eq!(after.msk_id, ltkm.msk_id, "the rotation that was refused did not happen");
    assert_eq!(daemon.keys("urn:s").len(), 1);
    assert_eq!(daemon.get("/v1/services/urn:s")["open"], true, "nor did it close");
    assert_eq!(daemon.admin("GET", "/v1/subscribers/new", None).status, 404);
    terminal.verify(&after);
    daemon.await_state("the verification", |daemon| {
        (daemon.deliveries(&terminal.btid)[0]["state"] == "verified").then_some(())
    });
    let log = daemon.end_and_read_log();
    assert!(log.iter().any(|l| l.contains("not ready")) && log.iter().any(|l| l.contains("the store works")));
}

/// The status of a request, none while nobody listens.
fn status(to: SocketAddr, method: &str, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(to).ok()?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_store_that_cannot_be_opened_yet_is_waited_for() {
    let place = tempfile::tempdir().expect("a directory");
    // Opening the lock's file fails, as it would on a disk that is full or broken.
    let obstacle = place.path().join("lock");
    std::fs::create_dir(&obstacle).expect("made");
    let [http, admin] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut daemon = Daemon::start_unready(&format!(
        "store.url = \"file:{}\"\nhttp.listen = [\"{http}\"]\nadmin.listen = \"{admin}\"",
        place.path().display()
    ));
    daemon.await_log("not ready");
    let told = |to, method, path, wanted| {
        daemon.await_state("an answer", |_| (status(to, method, path) == Some(wanted)).then_some(()));
    };
    told(admin, "GET", "/readyz", 503);
    told(admin, "GET", "/healthz", 200);
    told(admin, "GET", "/v1/services", 503);
    told(http, "POST", "/keymanagement?requesttype=register", 503);
    std::fs::remove_dir(&obstacle).expect("removed");
    daemon.await_ready();
    await_ready(&daemon, 200);
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
}

#[test]
fn every_series_of_the_contract_is_there_from_the_start() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let text = request(daemon.admin, "GET", "/metrics", &[], b"").text();
    let has = |series: &str| assert!(text.lines().any(|l| l.starts_with(series)), "{series} in\n{text}");
    for procedure in ["register", "deregister", "msk_request"] {
        for status in [200, 400, 401, 403, 404, 405, 408, 411, 413, 415, 429, 431, 500, 501, 503, 505] {
            has(&format!("ltkmd_http_requests_total{{procedure=\"{procedure}\",status=\"{status}\"}} 0"));
        }
        has(&format!(
            "ltkmd_http_request_duration_seconds_bucket{{le=\"0.005\",procedure=\"{procedure}\"}} 0"
        ));
        has(&format!("ltkmd_http_request_duration_seconds_count{{procedure=\"{procedure}\"}} 0"));
    }
    for method in ["http", "udp", "sms"] {
        has(&format!("ltkmd_ltkm_sent_total{{method=\"{method}\"}} 0"));
        has(&format!("ltkmd_ltkm_verified_total{{method=\"{method}\"}} 0"));
        has(&format!("ltkmd_delivery_duration_seconds_count{{method=\"{method}\"}} 0"));
    }
    for reason in ["missing", "scheme", "malformed", "uri", "userhash", "realm", "algorithm", "unknown_user"]
    {
        has(&format!("ltkmd_digest_failures_total{{reason=\"{reason}\"}} 0"));
    }
    for reason in ["wrong_response", "stale", "replay", "expired"] {
        has(&format!("ltkmd_digest_failures_total{{reason=\"{reason}\"}} 0"));
    }
    for reason in ["no_answer", "no_method", "credential_expired", "counter_spent", "key_over"] {
        has(&format!("ltkmd_ltkm_failed_total{{reason=\"{reason}\"}} 0"));
    }
    for state in ["queued", "sent", "awaiting_pull"] {
        has(&format!("ltkmd_deliveries_open{{state=\"{state}\"}} 0"));
    }
    for outcome in ["verified", "duplicate", "malformed", "error", "unknown", "stale", "wrong_mac", "shed"] {
        has(&format!("ltkmd_udp_received_total{{outcome=\"{outcome}\"}} 0"));
    }
    for series in [
        "ltkmd_registered_terminals{service=\"urn:s\"} 0",
        "ltkmd_key_expires_timestamp_seconds{service=\"urn:s\"} 1",
        "ltkmd_ltkm_built_total 0",
        "ltkmd_sms_submitted_total{outcome=",
        "ltkmd_smsc_up 0",
        "ltkmd_fanout_jobs_running 0",
        "ltkmd_fanout_duration_seconds_count 0",
        "ltkmd_store_commit_duration_seconds_count",
        "ltkmd_store_errors_total 0",
        "ltkmd_build_info{",
    ] {
        has(series);
    }
}
