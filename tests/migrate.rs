//! A running daemon's store into a real PostgreSQL.

mod harness;

#[path = "migrate/gate.rs"]
mod gate;
#[path = "harness/postgres.rs"]
mod postgres;

use std::collections::{BTreeMap, HashMap};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use gate::Gate;
use harness::fleet::{BEHIND_PROXY, Fleet, btid, counter, import, register, register_all};
use harness::http::{Connection, Reply};
use harness::terminal::{Terminal, media_type, registration, target};
use harness::{Daemon, KEY_READER_TOKEN, PROGRAM, encoded, write_secret};
use postgres::Postgres;

const UDP: fn(usize) -> &'static [u8] = |_| &[0];
const HTTP: fn(usize) -> &'static [u8] = |_| &[2];

/// Starts `ltkmd migrate` under the daemon's configuration.
fn migrate(daemon: &Daemon, admin: &str, to: &str, more: &[&str]) -> Child {
    Command::new(PROGRAM)
        .args(["migrate", "--config", daemon.config_path().to_str().expect("UTF-8")])
        .args(["--admin", admin, "--to", to])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Its exit code, stdout and stderr.
fn ended(child: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = |octets| String::from_utf8(octets).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn admin(daemon: &Daemon) -> String {
    format!("http://{}", daemon.admin)
}

/// A terminal's request, which nobody answers who is frozen.
fn asked(daemon: &Daemon) -> Reply {
    let headers = [("Content-Type", media_type("register"))];
    let body = registration(&["urn:s"], None);
    harness::http::request(daemon.http, "POST", &target("register"), &headers, body.as_bytes())
}

/// What operators see of a store, in an order of its own.
fn facts(daemon: &Daemon) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    for path in ["/v1/services", "/v1/jobs", "/v1/terminals", "/v1/deliveries"] {
        let page = daemon.get(&format!("{path}?limit=1000"));
        assert_eq!(page["next"], Value::Null, "one page is all of {path}");
        let mut items = page["items"].as_array().expect("items").clone();
        items.sort_by_key(Value::to_string);
        assert!(!items.is_empty(), "there is something to compare at {path}");
        facts.insert(path.to_owned(), items.into());
    }
    for service in ["urn:s", "urn:t"] {
        let path = format!("/v1/services/{}/keys?secrets=true", encoded(service));
        let reply = daemon.admin_as(KEY_READER_TOKEN, "GET", &path, None);
        assert_eq!(reply.status, 200, "{}", reply.text());
        facts.insert(path, reply.json());
    }
    let status = daemon.get("/v1/status");
    for field in ["registrations", "deliveries_open", "jobs_running", "jobs_paused"] {
        facts.insert(field.to_owned(), status[field].clone());
    }
    let reply = harness::http::request(daemon.admin, "GET", "/status/services", &[], b"");
    facts.insert("who holds which key".to_owned(), reply.json());
    facts
}

/// Points a configuration to the database, as `ltkmd migrate` tells its operator to.
fn point_to(daemon: &Daemon, url: &str, told: &str) {
    let path = |name: &str| daemon.dir.path().join(name).display().to_string();
    for line in [format!("url = \"{url}\""), format!("store_key_file = \"{}\"", path("store/store.key"))] {
        assert!(told.contains(&line), "{line} in {told}");
    }
    assert!(told.contains("cluster_secret_file") && told.contains(&path("store/audit.log")), "{told}");
    write_secret(&daemon.dir.path().join("cluster_secret"), &"ab".repeat(32));
    daemon.configure(&format!(
        "store.url = \"{url}\"\nstore.store_key_file = \"{}\"\nnode.cluster_secret_file = \"{}\"\n\
         audit.file = \"{}\"",
        path("store/store.key"),
        path("cluster_secret"),
        path("store/audit.log")
    ));
}

/// Nothing waits for an answer.
fn await_answers(daemon: &Daemon) {
    daemon.await_state("every answer", |daemon| {
        (daemon.get("/v1/status")["deliveries_open"]["sent"] == 0).then_some(())
    });
}

fn job(daemon: &Daemon, id: &Value) -> Value {
    daemon.get(&format!("/v1/jobs/{id}"))
}

#[test]
fn a_store_moves_with_all_that_happens_meanwhile_and_no_t_comes_again() {
    const TERMINALS: usize = 300;
    let server = postgres::shared();
    let url = server.url_of("postgres", &server.database());
    let mut daemon = Daemon::start_with(&format!("{BEHIND_PROXY}\nudp.rate = 100"));
    let fleet = Fleet::listen(daemon.port);
    daemon.put_service("urn:s", 1, json!({}));
    daemon.put_service("urn:t", 2, json!({}));
    import(&daemon, TERMINALS);
    register_all(&daemon, &["urn:s"], 0..150, UDP);
    register_all(&daemon, &["urn:t"], 150..200, HTTP);
    // One job is over, another is held on its way.
    let (over, _) = daemon.rotate("urn:t", None);
    let (held, _) = daemon.rotate("urn:s", None);
    daemon
        .await_state("some have it", |daemon| (job(daemon, &held)["verified"].as_u64()? >= 10).then_some(()));
    let paused = daemon.admin("POST", &format!("/v1/jobs/{held}/pause"), None).json();
    assert_eq!(paused["state"], "paused", "{paused}");
    daemon
        .await_state("the end of the first", |daemon| (job(daemon, &over)["state"] == "done").then_some(()));

    let gate = Gate::holding(1, daemon.admin);
    let moving = migrate(&daemon, &gate.url(), &url, &[]);
    gate.await_begun();
    // The first pass does not see any of it.
    register_all(&daemon, &["urn:s"], 200..260, UDP);
    register_all(&daemon, &["urn:s"], 0..20, UDP);
    let gone: Vec<usize> = (28..35).collect();
    let place = |n: usize| match n {
        28 | 29 => format!("/v1/subscribers/s{n}"),
        _ => format!("/v1/credentials/{}", encoded(&btid(n))),
    };
    for n in &gone {
        assert_eq!(daemon.admin("DELETE", &place(*n), None).status, 204, "{}", place(*n));
    }
    assert_eq!(daemon.admin("DELETE", "/v1/subscribers/s299", None).status, 204);
    assert_eq!(daemon.admin("PUT", "/v1/subscribers/late", Some(&json!({"msisdn": "491"}))).status, 201);
    daemon.put_service("urn:late", 3, json!({}));
    await_answers(&daemon);
    gate.go();
    let (code, out, err) = ended(moving);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("moved. The daemon takes no changes"), "{out}");

    // The daemon tells everybody, and changes nothing.
    let refused = asked(&daemon);
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true), "{}", refused.text());
    let unready = daemon.admin("GET", "/readyz", None);
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("moved to postgres://"), "{}", unready.text());
    assert_eq!(daemon.admin("PUT", "/v1/subscribers/later", Some(&json!({}))).status, 503);
    let before = facts(&daemon);
    let t_of = |daemon: &Daemon, n: usize| {
        daemon.get(&format!("/v1/credentials/{}", encoded(&btid(n))))["t"].as_u64().expect("a T")
    };
    let left: Vec<usize> = (0..260).filter(|n| !gone.contains(n)).collect();
    let reached: HashMap<usize, u64> = left.iter().map(|n| (*n, t_of(&daemon, *n))).collect();
    daemon.terminate();

    // The directory is closed.
    daemon.spawn();
    daemon.await_log("this store has moved to postgres://");
    assert!(!daemon.wait().success());

    point_to(&daemon, &url, &out);
    daemon.restart();
    let after = facts(&daemon);
    for (what, wanted) in &before {
        assert_eq!(&after[what], wanted, "{what}");
    }
    assert_eq!(daemon.get("/v1/subscribers/late")["msisdn"], "491");
    for n in &gone {
        assert_eq!(daemon.admin("GET", &place(*n), None).status, 404, "{}", place(*n));
    }
    assert_eq!(daemon.get("/v1/audit/head")["trouble"], Value::Null);
    for (n, t) in &reached {
        assert_eq!(t_of(&daemon, *n), *t, "T of terminal {n}");
    }
    // The job goes on with those whom it has not visited, and everybody's next T is above all before.
    assert_eq!(daemon.admin("POST", &format!("/v1/jobs/{held}/resume"), None).status, 202);
    let done = daemon.await_state("the job's end", |daemon| {
        let job = job(daemon, &held);
        (job["state"] == "done").then_some(job)
    });
    assert!(done["verified"].as_u64() >= Some(120), "{done}");
    let mut connection = Connection::open(daemon.http);
    for n in left {
        let service = if (150..200).contains(&n) { "urn:t" } else { "urn:s" };
        let reply = register(&mut connection, &[service], n, &[2]).expect("an answer");
        assert!(
            u64::from(counter(n, &reply)) > reached[&n],
            "terminal {n}: {} after {}",
            counter(n, &reply),
            reached[&n]
        );
    }
    fleet.seen().assert_fresh();
}

#[test]
fn a_database_that_stops_in_the_pause_leaves_the_daemon_serving_and_is_filled_anew_by_the_next_run() {
    let mut server = Postgres::start();
    let url = server.url_of("postgres", &server.database());
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], Some(&[2]));
    let gate = Gate::holding(2, daemon.admin);
    let moving = migrate(&daemon, &gate.url(), &url, &[]);
    gate.await_begun();
    assert_eq!(asked(&daemon).status, 503, "the second pass is in the pause");
    server.kill_9();
    gate.go();
    let (code, out, err) = ended(moving);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("the daemon goes on as before") && err.contains("unfinished"), "{err}");
    assert_eq!(daemon.admin("GET", "/readyz", None).status, 200);
    terminal.registered(&["urn:s"], Some(&[2]));

    // No daemon opens what is half there.
    server.start_again();
    let mut early = Daemon::start_unready("");
    early.signal(nix::sys::signal::Signal::SIGKILL);
    early.wait();
    let key = daemon.dir.path().join("store/store.key").display().to_string();
    write_secret(&early.dir.path().join("cluster_secret"), &"ab".repeat(32));
    early.configure(&format!(
        "store.url = \"{url}\"\nstore.store_key_file = \"{key}\"\nnode.cluster_secret_file = \"{}\"\n\
         audit.enabled = false",
        early.dir.path().join("cluster_secret").display()
    ));
    early.spawn();
    early.await_log("is being filled by ltkmd migrate");
    assert!(!early.wait().success());

    let (code, out, err) = ended(migrate(&daemon, &admin(&daemon), &url, &[]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("begun anew"), "{out}");
    // It is somebody's store now.
    let other = Daemon::start();
    let (code, _, err) = ended(migrate(&other, &admin(&other), &url, &[]));
    assert_eq!(code, Some(1));
    assert!(err.contains("has a store already"), "{err}");
    assert_eq!(other.admin("GET", "/readyz", None).status, 200);
}

#[test]
fn a_dry_run_says_what_the_configuration_needs_and_writes_nothing() {
    let server = postgres::shared();
    let database = server.database();
    let url = server.url_of("postgres", &database);
    let daemon = Daemon::start();
    let (code, out, err) = ended(migrate(&daemon, &admin(&daemon), &url, &["--dry-run"]));
    assert_eq!(code, Some(0), "{out}{err}");
    point_to(&daemon, &url, &out);
    assert_eq!(server.sql_in(&database, "SELECT to_regnamespace('ltkmd') IS NULL"), "t");
    assert_eq!(daemon.admin("GET", "/readyz", None).status, 200);
}

#[test]
#[ignore = "a measurement, whose numbers are in docs/migrate.md: it takes minutes"]
fn many_terminals_move_within_a_pause_of_seconds() {
    let terminals = std::env::var("TERMINALS").map_or(100_000, |n| n.parse().expect("a number"));
    let server = postgres::shared();
    let url = server.url_of("postgres", &server.database());
    let daemon = Daemon::start_with(BEHIND_PROXY);
    daemon.put_service("urn:s", 1, json!({}));
    import(&daemon, terminals);
    register_all(&daemon, &["urn:s"], 0..terminals, HTTP);
    let begun = std::time::Instant::now();
    let (code, out, err) = ended(migrate(&daemon, &admin(&daemon), &url, &[]));
    assert_eq!(code, Some(0), "{out}{err}");
    println!("{terminals} terminals in {:?} over all:\n{out}", begun.elapsed());
    assert!(out.contains(&format!("{terminals} terminals")), "{out}");
}

#[test]
fn in_a_freeze_answers_wait_and_one_that_nobody_prolongs_ends_by_itself() {
    let mut daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], Some(&[0]));
    let ltkm = terminal.receive();
    let freeze = |by: &str, span: &str| {
        let document = json!({"by": by, "for": span});
        daemon.admin("POST", "/v1/freeze", Some(&document)).status
    };
    assert_eq!(freeze("a test", "60s"), 202);
    assert_eq!(freeze("another", "60s"), 409);
    terminal.verify(&ltkm);
    assert_eq!(asked(&daemon).status, 503);
    let unready = daemon.admin("GET", "/readyz", None);
    assert!(unready.status == 503 && unready.text().contains("frozen by a test"), "{}", unready.text());
    let rotated = daemon.admin("POST", "/v1/services/urn%3As/rotate", Some(&json!({})));
    assert_eq!(rotated.status, 503, "{}", rotated.text());
    assert_eq!(daemon.deliveries(&terminal.btid)[0]["state"], "sent");
    assert_eq!(daemon.admin("POST", "/v1/thaw", None).status, 204);
    let verified = daemon.await_state("the answer", |daemon| {
        let delivery = daemon.deliveries(&terminal.btid).remove(0);
        (delivery["state"] == "verified").then_some(delivery)
    });
    assert_eq!(verified["attempts"], 1, "it was not asked again: {verified}");

    assert_eq!(freeze("a test", "1s"), 202);
    daemon.await_log("was not prolonged");
    assert_eq!(daemon.admin("GET", "/readyz", None).status, 200);
    terminal.registered(&["urn:s"], Some(&[2]));
    let lines = std::fs::read_to_string(daemon.dir.path().join("store/audit.log")).expect("the audit log");
    assert!(lines.contains("/v1/freeze") && lines.contains("/v1/thaw"), "who froze it is recorded");
}
