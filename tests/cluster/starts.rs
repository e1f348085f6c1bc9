//! `ltkmd serve` and a database that it cannot use, or not yet: one sentence, and it waits or ends.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::http::request;
use crate::harness::terminal::{media_type, target};
use crate::harness::{Daemon, free_port, write_secret};
use crate::nodes::{Cluster, alone, readyz};
use crate::server::process::poll;
use crate::server::{BY_PASSWORD, Postgres, shared};

/// The daemon ends with exit code 1, and its last line is one sentence that has all of this.
#[track_caller]
fn assert_refuses(daemon: &mut Daemon, told: &[&str]) {
    let status = daemon.wait();
    let log = daemon.rest_of_log().join("\n");
    assert_eq!(status.code(), Some(1), "{log}");
    let sentences: Vec<&str> = log.lines().filter(|line| line.starts_with("ltkmd: ")).collect();
    assert_eq!(sentences.len(), 1, "{log}");
    assert!(told.iter().all(|part| sentences[0].contains(part)), "{told:?} is not all in {log}");
}

#[test]
fn a_wrong_password_ends_it_with_a_sentence_that_has_no_password() {
    const WRONG: &str = "tr0ub4dor";
    let _alone = alone();
    shared().sql(&format!("CREATE ROLE keeper LOGIN PASSWORD 'hunter2' IN ROLE {BY_PASSWORD}"));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    write_secret(&file, WRONG);
    let database = shared().database();
    let overrides = format!("store.store_password_file = \"{}\"", file.display());
    let cluster = Cluster::new(&shared().url_of("keeper", &database), &overrides);
    let mut daemon = cluster.unready("a");
    let place = format!("127.0.0.1:{}/{database}", shared().port());
    assert_refuses(&mut daemon, &["refuses the password", &place, "store.store_password_file"]);
    assert!(!daemon.logged.join("\n").contains(WRONG));

    // Who may connect and not make a schema is told so, too.
    write_secret(&file, "hunter2");
    assert_refuses(&mut cluster.unready("a"), &["does not let the user work", "grant it the right"]);
    shared().sql(&format!("GRANT CREATE ON DATABASE {database} TO keeper"));
    cluster.start(["a"]);
}

#[test]
fn a_schema_of_a_newer_version_and_another_store_key_end_it_with_a_sentence() {
    let _alone = alone();
    let database = shared().database();
    let url = shared().url_of("postgres", &database);
    let cluster = Cluster::new(&url, "");
    drop(cluster.start(["a"]));
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("store_key");
    write_secret(&key, &"08".repeat(32));
    let other = format!("store.store_key_file = \"{}\"", key.display());
    let mut stranger = Daemon::start_unready(&cluster.settings_with("b", &other));
    assert_refuses(&mut stranger, &["the store key is not the one", "store.store_key_file"]);

    shared().sql_in(&database, "UPDATE ltkmd.meta SET format = 99, accepts = 99");
    assert_refuses(&mut cluster.unready("a"), &["format 99", "use a newer ltkmd"]);
    shared().sql_in(&database, "UPDATE ltkmd.meta SET accepts = 1");
    // One that is newer and says that this program may go on with it is no obstacle.
    cluster.start(["a"]);
}

#[test]
fn a_second_daemon_of_a_name_gives_up_and_one_that_is_started_again_does_not_wait() {
    let _alone = alone();
    let database = shared().database();
    let cluster = Cluster::new(&shared().url_of("postgres", &database), "");
    let [mut first] = cluster.start(["a"]);
    let begun = Instant::now();
    assert_refuses(&mut cluster.unready("a"), &["another daemon is in the cluster as a", "node.name"]);
    let took = begun.elapsed();
    assert!((10..25).contains(&took.as_secs()), "it gave up after {took:?}");
    first.put_service("urn:s", 1, json!({}));

    first.kill();
    let begun = Instant::now();
    first.restart();
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited {:?} for itself", begun.elapsed());
    assert_eq!(first.get("/v1/services/urn:s")["id"], "urn:s");
}

#[test]
fn a_server_that_is_not_there_yet_is_awaited_with_503_and_served_from_once_it_comes() {
    let _alone = alone();
    let mut server = Postgres::start();
    let (http, admin) = (free_port(), free_port());
    let fixed = format!("http.listen = [\"127.0.0.1:{http}\"]\nadmin.listen = \"127.0.0.1:{admin}\"");
    let cluster = Cluster::new(&server.url(), &fixed);
    server.stop_fast();
    let mut daemon = cluster.unready("a");
    let line = daemon.await_log("not ready; trying again each second");
    assert!(
        line.contains("is not there") && line.contains(&format!("127.0.0.1:{}", server.port())),
        "{line}"
    );
    daemon.http.set_port(http);
    daemon.admin.set_port(admin);
    let answered = |daemon: &Daemon| {
        let headers = [("Content-Type", media_type("register"))];
        request(daemon.http, "POST", &target("register"), &headers, b"").status
    };
    for _ in 0..3 {
        assert_eq!((answered(&daemon), readyz(&daemon)), (503, 503));
    }
    server.start_again();
    daemon.await_ready();
    assert_eq!((answered(&daemon), readyz(&daemon)), (401, 200));

    // One that hangs is no reason to let terminals hang.
    assert!(daemon.terminate().success());
    server.freeze();
    daemon.spawn();
    daemon.await_state("its listener", |daemon| std::net::TcpStream::connect(daemon.http).ok());
    assert_eq!(answered(&daemon), 503);
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!((answered(&daemon), readyz(&daemon)), (503, 503));
        assert!(begun.elapsed() < Duration::from_secs(3), "answered after {:?}", begun.elapsed());
        // As long as it is there to be asked.
        let next = begun + Duration::from_secs(1);
        poll(next, || (Instant::now() >= next).then_some(()));
    }
    server.thaw();
    daemon.await_ready();
}
