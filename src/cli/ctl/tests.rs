//! `ctl` against a real daemon's admin side.

use std::io::Write;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

use super::*;
use crate::admin::tests::{BTID, SERVICE, SERVICE_ID, World};

#[derive(Debug, Parser)]
#[command(name = "ctl")]
struct Program {
    #[command(flatten)]
    ctl: Ctl,
}

/// What a run came to.
struct Outcome {
    code: u8,
    out: String,
    err: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("JSON alone on stdout")
    }
}

/// A file in the world's directory.
fn file(world: &World, name: &str, text: &str) -> String {
    let path: PathBuf = world.directory.path().join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// What is written, for who looks at it meanwhile.
#[derive(Clone, Default)]
struct Buffer(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }
}

impl Write for Buffer {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A screen that writes here.
fn screen<'a>(out: &'a mut Vec<u8>, err: &'a mut Vec<u8>, terminal: bool) -> impl FnOnce(bool) -> Screen<'a> {
    move |json| Screen { out, err, json, terminal, bars: false }
}

async fn ctl_with(world: &World, token: &str, args: &[&str]) -> Outcome {
    let (admin, token_file) = (world.endpoint().to_string(), file(world, "token", &format!("{token}\n")));
    let fixed = ["ctl", "--admin", &admin, "--token-file", &token_file];
    let program = Program::try_parse_from(fixed.iter().chain(args)).expect("right usage");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = execute(program.ctl, screen(&mut out, &mut err, false)).await;
    let text = |octets| String::from_utf8(octets).expect("UTF-8");
    Outcome { code, out: text(out), err: text(err) }
}

async fn ctl(world: &World, args: &[&str]) -> Outcome {
    ctl_with(world, "admin", args).await
}

async fn done(world: &World, args: &[&str]) -> String {
    let outcome = ctl(world, args).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{args:?}: {}", outcome.out);
    outcome.out
}

/// A service, a subscriber and a credential, all put by `ctl`.
async fn provision(world: &World) {
    done(world, &["service", "put", SERVICE_ID, "--key-domain", "b8709d", "--key-group", "68c9"]).await;
    done(world, &["subscriber", "put", "alice@example.com", "--msisdn", "+4917", "--service", SERVICE_ID])
        .await;
    let key = file(world, "key", &format!("{}\n", data_encoding::BASE64.encode(&[1; 32])));
    let keys = ["--mrk-file", &key, "--muk-file", &key, "--gba", "u"];
    let put = ["credential", "put", BTID, "--subscriber", "alice@example.com"];
    done(world, &[&put[..], &keys].concat()).await;
}

#[test]
fn every_command_and_every_flag_is_explained() {
    fn walk(command: &clap::Command) {
        let name = command.get_name();
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
        }
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{name} {}", sub.get_name());
            walk(sub);
        }
    }
    Program::command().debug_assert();
    walk(&Program::command());
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    for args in [
        &["ctl"][..],
        &["ctl", "service", "put", "x"],
        &["ctl", "service", "put", "x", "--file", "f", "--open"],
        &["ctl", "credential", "put", "b", "--subscriber", "s"],
        &["ctl", "credential", "put", "b", "--subscriber", "s", "--mrk-file", "f"],
        &["ctl", "credential", "put", "b", "--subscriber", "s", "--ks-file", "f"],
        &["ctl", "delivery", "list", "--state", "lost"],
        &["ctl", "service", "list", "--limit", "0"],
        &["ctl", "key", "rotate", "x", "--mtk-ids", "1"],
        &["ctl", "--admin", "ftp://a", "status"],
    ] {
        let refused = Program::try_parse_from(args).expect_err("a refusal");
        assert_eq!(refused.exit_code(), 2, "{args:?}");
    }
}

#[tokio::test]
async fn an_operator_provisions_watches_rotates_and_deletes() {
    let world = World::new().await;
    provision(&world).await;
    world.register(&[2]).await;
    let services = done(&world, &["service", "list"]).await;
    assert!(services.contains(SERVICE_ID) && services.contains("68c90001"), "{services}");
    let terminals = done(&world, &["terminal", "list", "--service", SERVICE_ID, "--method", "http"]).await;
    assert!(terminals.contains(BTID), "{terminals}");
    assert!(done(&world, &["terminal", "show", BTID]).await.contains("192.0.2.1"));
    // HTTP alone: the key waits for the terminal's next request, so the job is over at once.
    let followed = done(&world, &["key", "rotate", SERVICE_ID, "--follow"]).await;
    assert!(followed.contains("done") && followed.contains("awaiting_pull 1"), "{followed}");
    let deliveries =
        done(&world, &["delivery", "list", "--state", "awaiting_pull", "--terminal", BTID]).await;
    assert!(deliveries.contains("68c90002"), "{deliveries}");
    assert!(done(&world, &["job", "list"]).await.contains("68c90002"));
    assert!(done(&world, &["key", "rotate", SERVICE_ID]).await.contains("brings key 68c90003"));
    assert!(done(&world, &["service", "keys", SERVICE_ID]).await.contains("past"));
    let refused = ctl(&world, &["terminal", "trigger", BTID, "--msk-request", SERVICE_ID]).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    let refused = ctl(&world, &["service", "delete", SERVICE_ID]).await;
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.starts_with("ltkmd ctl: the daemon answered 409 Conflict: 1 terminals "),
        "{}",
        refused.err
    );
    assert_eq!(refused.err.lines().count(), 1);
    assert!(done(&world, &["service", "delete", SERVICE_ID, "--force"]).await.contains("is deleted"));
    done(&world, &["credential", "delete", BTID]).await;
    done(&world, &["subscriber", "delete", "alice@example.com"]).await;
    assert_eq!(ctl(&world, &["subscriber", "show", "alice@example.com"]).await.code, 1);
}

/// A rotation whose terminal has UDP and never answers: its job runs on. Its number.
async fn endless(world: &World) -> String {
    world.register(&[0]).await;
    let rotated = ctl(world, &["key", "rotate", SERVICE_ID, "--json"]).await;
    rotated.json()["job"].to_string()
}

#[tokio::test]
async fn a_job_is_paused_resumed_and_cancelled_and_says_so() {
    let world = World::new().await;
    provision(&world).await;
    let job = endless(&world).await;
    for (action, state) in [("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")] {
        let told = done(&world, &["job", action, &job]).await;
        assert!(told.starts_with(&format!("job {job} is {state}: ")), "{told}");
        let listed = done(&world, &["job", "list", "--state", state]).await;
        assert!(listed.contains(SERVICE_ID), "{listed}");
    }
    let refused = ctl(&world, &["job", "resume", &job]).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(
        refused.err.contains("409 Conflict") && refused.err.contains("is cancelled already"),
        "{}",
        refused.err
    );
    let followed = ctl(&world, &["job", "follow", &job]).await;
    assert_eq!(followed.code, 1);
    assert!(followed.out.contains("cancelled"), "{}", followed.out);
    assert!(followed.err.starts_with(&format!("ltkmd ctl: job {job} is cancelled: ")), "{}", followed.err);
    assert_eq!(ctl(&world, &["job", "follow", "77"]).await.code, 1);
}

#[tokio::test]
async fn who_follows_a_job_is_told_each_turn_and_with_json_each_change() {
    let world = World::new().await;
    provision(&world).await;
    let job = endless(&world).await;
    let (lines, documents) = (Buffer::default(), Buffer::default());
    let follow = async |buffer: &Buffer, json: bool| {
        let (endpoint, token) = (world.endpoint().to_string(), file(&world, "token", "admin"));
        let args = ["ctl", "--admin", &endpoint, "--token-file", &token, "job", "follow", &job];
        let json = json.then_some("--json");
        let program = Program::try_parse_from(args.into_iter().chain(json)).expect("right usage");
        let (mut out, mut err) = (buffer.clone(), Vec::new());
        let (terminal, bars) = (false, false);
        execute(program.ctl, |json| Screen { out: &mut out, err: &mut err, json, terminal, bars }).await
    };
    let steps = async {
        for (action, state) in [("pause", "paused"), ("resume", "running")] {
            done(&world, &["job", action, &job]).await;
            // The next step is taken once this one was told.
            let told =
                |buffer: &Buffer| buffer.text().lines().last().is_some_and(|line| line.contains(state));
            while !told(&lines) || !told(&documents) {
                tokio::task::yield_now().await;
            }
        }
        done(&world, &["job", "cancel", &job]).await;
    };
    let codes = tokio::join!(follow(&lines, false), follow(&documents, true), steps);
    assert_eq!((codes.0, codes.1), (1, 1), "a cancelled job is no success");
    let (lines, documents) = (lines.text(), documents.text());
    let turns: Vec<_> = lines.lines().filter_map(|l| l.split_whitespace().nth(1)).take(2).collect();
    assert_eq!(turns, ["paused", "running"], "{lines}");
    assert!(lines.contains("cancelled"), "{lines}");
    let documents: Vec<Value> =
        documents.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    assert_eq!(documents.last().expect("a line")["state"], "cancelled");
    assert!(documents.windows(2).all(|pair| pair[0] != pair[1]), "one line a change");
}

#[tokio::test]
async fn json_is_what_the_api_gave() {
    let world = World::new().await;
    provision(&world).await;
    let shown = ctl(&world, &["--json", "service", "show", SERVICE_ID]).await;
    assert_eq!(shown.json(), world.get(SERVICE).await.body);
    let list = ctl(&world, &["service", "list", "--json"]).await;
    assert_eq!(list.json(), world.get("/v1/services").await.body);
    let rotated = ctl(&world, &["key", "rotate", SERVICE_ID, "--json"]).await;
    assert_eq!(rotated.json()["msk_id"], "68c90002");
    let job = rotated.json()["job"].to_string();
    assert_eq!(ctl(&world, &["job", "show", &job, "--json"]).await.json()["id"], rotated.json()["job"]);
    let deleted = ctl(&world, &["subscriber", "delete", "alice@example.com", "--json"]).await;
    assert_eq!((deleted.code, deleted.out.as_str()), (0, ""));
}

#[tokio::test]
async fn lists_are_fetched_page_by_page_up_to_the_limit() {
    let world = World::new().await;
    let lines = (0..23).map(|n| {
        let id = format!("s{n:04}");
        json!({"service": {"id": id, "key_domain": "b8709d", "key_group": format!("{n:04x}"), "validity": "ntp"}})
    });
    let lines: Vec<_> = lines.map(|line| line.to_string()).collect();
    let path = file(&world, "lines", &lines.join("\n"));
    done(&world, &["import", &path]).await;
    let ids = |outcome: &Outcome| -> Vec<String> {
        let items = outcome.json()["items"].as_array().expect("items").clone();
        items.iter().map(|s| s["id"].as_str().expect("an id").to_owned()).collect()
    };
    let list = ctl(&world, &["service", "list", "--limit", "22", "--json"]).await;
    assert_eq!(ids(&list), (0..22).map(|n| format!("s{n:04}")).collect::<Vec<_>>());
    assert_eq!(list.json()["next"], "s0021");
    let rest = ctl(&world, &["service", "list", "--after", "s0021", "--json"]).await;
    assert_eq!((ids(&rest).len(), &rest.json()["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn an_import_with_a_faulty_line_tells_it_and_fails() {
    let world = World::new().await;
    let path = file(&world, "lines", "{\"subscriber\": {\"id\": \"a\"}}\n\n{\"subscriber\": {\"id\": 7}}\n");
    let outcome = ctl(&world, &["import", &path]).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.err, "line 3: subscriber.id has to be a string, not a number\n");
    assert!(outcome.out.contains("subscribers"), "{}", outcome.out);
    let outcome = ctl(&world, &["import", &path, "--json"]).await;
    assert_eq!((outcome.code, &outcome.json()["counts"]["subscriber"]), (1, &json!(1)));
    let missing = ctl(&world, &["import", "/nonexistent/lines"]).await;
    assert_eq!((missing.code, missing.err.lines().count()), (2, 1));
}

#[tokio::test]
async fn secrets_come_to_the_key_readers_token_alone() {
    let world = World::new().await;
    provision(&world).await;
    let keys = ["service", "keys", SERVICE_ID, "--secrets", "--json"];
    let refused = ctl(&world, &keys).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("401 Unauthorized"), "{}", refused.err);
    let shown = ctl_with(&world, "reader", &keys).await;
    assert!(shown.json()["items"][0]["msk"].is_string());
}

#[tokio::test]
async fn a_wrong_token_and_a_daemon_that_is_not_there_are_one_sentence_each() {
    let world = World::new().await;
    let refused = ctl_with(&world, "wrong", &["status"]).await;
    assert_eq!((refused.code, refused.err.lines().count()), (1, 1));
    assert!(refused.err.contains("the token file holds another one"), "{}", refused.err);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let program = Program::try_parse_from(["ctl", "--admin", "unix:/nonexistent/admin.sock", "status"]);
    let code = execute(program.expect("right usage").ctl, screen(&mut out, &mut err, false)).await;
    let err = String::from_utf8(err).expect("UTF-8");
    assert!(err.starts_with("ltkmd ctl: unix:/nonexistent/admin.sock cannot be reached: "), "{err}");
    assert!(err.ends_with(": start the daemon, or name its admin.listen with --admin\n"), "{err}");
    assert_eq!((code, err.lines().count()), (1, 1));
}

#[tokio::test]
async fn status_fails_while_the_daemon_is_not_ready() {
    let world = World::listening(true).await;
    assert!(done(&world, &["status"]).await.contains("unix:"));
    let _latch = world.engine.add_latch("udp");
    let outcome = ctl(&world, &["status"]).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (1, "ltkmd ctl: the daemon is not ready\n"));
}

#[tokio::test]
async fn on_a_terminal_tables_have_frames() {
    let world = World::new().await;
    let program = Program::try_parse_from(["ctl", "--admin", &world.endpoint().to_string(), "job", "list"]);
    let mut ctl = program.expect("right usage").ctl;
    ctl.token_file = Some(PathBuf::from(file(&world, "token", "admin")));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(execute(ctl, screen(&mut out, &mut err, true)).await, 0);
    assert!(String::from_utf8(out).expect("UTF-8").starts_with('┌'));
}

/// Two daemons on a database, one of them gone, on which a worker does not answer.
fn cluster_of_two() -> crate::store::cluster::Cluster {
    use std::time::Duration;

    use crate::store::cluster::{Citus, Cluster, Database, Node, NodeState, Standby, Worker};
    use crate::time::Timestamp;
    let node = |name: &str, here, state, leases| Node {
        name: Some(name.to_owned()),
        here,
        state,
        http: Some("10.0.0.1:8080".to_owned()),
        started: Some(Timestamp::from_secs(1_700_000_000)),
        seen: Timestamp::from_secs(1_700_000_100),
        version: "0.1.0".to_owned(),
        format: Some(1),
        leases,
        leads: here,
        overdue: Duration::from_millis(1_500),
        clock_offset_ms: -250,
    };
    let worker = |address: &str, size| Worker { address: address.to_owned(), active: true, size };
    let standby = Standby {
        name: "db2".to_owned(),
        address: "10.0.0.9".to_owned(),
        state: "sync".to_owned(),
        behind: Some(2048),
        late: Some(Duration::from_millis(700)),
    };
    Cluster {
        shared: true,
        nodes: vec![node("bsm-1", true, NodeState::Alive, 62), node("bsm-2", false, NodeState::Gone, 0)],
        ranges: 64,
        unheld: vec![5, 6],
        database: Some(Database {
            version: "16.4".to_owned(),
            size: 3 << 30,
            synchronous: true,
            standbys: Some(vec![standby]),
            citus: Some(Citus {
                version: "13.2-1".to_owned(),
                workers: vec![worker("w1:5432", Some(5 << 20)), worker("w2:5432", None)],
            }),
        }),
    }
}

#[tokio::test]
async fn a_cluster_of_one_daemon_is_told_plainly_and_nothing_is_amiss() {
    let world = World::new().await;
    let told = done(&world, &["cluster"]).await;
    assert!(told.starts_with("one daemon: its store is a directory of its own"), "{told}");
    let outcome = ctl(&world, &["cluster", "--json"]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let cluster = outcome.json();
    assert_eq!((&cluster["shared"], &cluster["database"]), (&json!(false), &Value::Null));
    assert_eq!((&cluster["ranges"], &cluster["unheld"]), (&json!(1), &json!([])));
    let node = &cluster["nodes"][0];
    assert_eq!((&node["state"], &node["leads"], &node["leases"]), (&json!("alive"), &json!(true), &json!(1)));
    assert_eq!(cluster["nodes"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_cluster_is_a_table_of_its_daemons_and_what_is_amiss_is_told_with_exit_code_1() {
    let world = World::new().await;
    world.show_cluster(cluster_of_two());
    let outcome = ctl(&world, &["cluster"]).await;
    assert_eq!(outcome.code, 1);
    for told in [
        "2 of 64 shard ranges have no holder",
        "bsm-2 stopped without a word, last seen 2023-11-14T22:15:00Z",
        "the database's worker w2:5432 does not answer",
    ] {
        assert!(outcome.err.contains(told), "{told}: {}", outcome.err);
    }
    let line = |start: &str| {
        let found = outcome.out.lines().find(|line| line.trim_start().starts_with(start));
        found.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    assert!(
        line("bsm-1").starts_with("bsm-1 (here) alive, leads 62 of 64 1.5 s -0.2 s 2023-11-14T22:15:00Z")
    );
    assert!(line("bsm-2").starts_with("bsm-2 gone 0 of 64"), "{}", outcome.out);
    assert_eq!(line("database"), "database PostgreSQL 16.4, 3.00 GiB");
    assert_eq!(line("commits"), "commits wait for a standby");
    assert_eq!(line("standbys"), "standbys db2 at 10.0.0.9, sync, behind by 2.00 KiB, 0.7 s");
    assert_eq!(line("distributed"), "distributed Citus 13.2-1: w1:5432, 5.00 MiB; w2:5432, does not answer");
    let mut well = cluster_of_two();
    well.unheld.clear();
    well.nodes.pop();
    well.database =
        well.database.map(|d| crate::store::cluster::Database { standbys: None, citus: None, ..d });
    world.show_cluster(well);
    let told = done(&world, &["cluster"]).await;
    assert!(told.contains("not to be seen by this role"), "{told}");
    assert!(!told.contains("distributed"), "{told}");
}
