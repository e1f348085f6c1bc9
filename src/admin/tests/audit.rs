//! What is recorded of calls, and what is refused when it cannot be.

use super::*;
use crate::audit::{AuditLog, Event, Hash, Record, Role, Verifier};

impl World {
    /// The audit log's lines, which form a whole chain.
    fn records(&self) -> Vec<Record> {
        let octets = std::fs::read(self.directory.path().join("audit.log")).expect("a log");
        let (mut verifier, mut records) = (Verifier::default(), Vec::new());
        let checked = verifier.file(&mut octets.as_slice(), |record| records.push(record.clone()));
        checked.expect("it is read").expect("a whole chain");
        records
    }

    /// What was recorded since the log began.
    fn events(&self) -> Vec<Event> {
        self.records().into_iter().skip(1).map(|record| record.event).collect()
    }
}

#[tokio::test]
async fn a_change_has_a_line_before_it_and_one_with_what_it_came_to() {
    let world = World::new().await;
    world.provision().await;
    let rotated = world.call("POST", &format!("{SERVICE}/rotate?"), Value::Null).await;
    assert_eq!(world.call("DELETE", &format!("{SERVICE}?force=true"), Value::Null).await.status, 204);
    assert_eq!(world.call("PUT", "/v1/subscribers/bob?token=hunter2", json!({})).await.status, 422);
    let events = world.events();
    assert_eq!(events.len(), 12, "{events:#?}");
    let Event::Request(call) = &events[4] else { panic!("{:?}", events[4]) };
    assert_eq!((call.method.as_str(), call.path.as_str(), call.who.role), ("PUT", CREDENTIAL, Role::Admin));
    let Event::Answer { of: 6, status: 201, names, .. } = &events[5] else { panic!("{:?}", events[5]) };
    assert_eq!(names["subscriber"], ["alice@example.com"]);
    let Event::Answer { of: 8, status: 202, names, .. } = &events[7] else { panic!("{:?}", events[7]) };
    assert_eq!(names["msk_ids"], [rotated.body["msk_id"].as_str().expect("an id")]);
    let Event::Request(call) = &events[8] else { panic!("{:?}", events[8]) };
    assert_eq!(call.query["force"], "true");
    let Event::Request(call) = &events[10] else { panic!("{:?}", events[10]) };
    assert!(call.query.is_empty(), "what the call does not know is not repeated: {call:?}");
    assert!(matches!(events[11], Event::Answer { of: 12, status: 422, .. }));
}

#[tokio::test]
async fn no_key_and_no_token_is_ever_recorded() {
    let world = World::new().await;
    world.provision().await;
    let key = data_encoding::BASE64.encode(&[0x5A; 32]);
    let line = json!({"credential": {
        "id": "b@bsf", "subscriber": "alice@example.com", "mrk": key, "muk": key, "gba": "u", "expires": null,
    }});
    world.send("admin", "POST", "/v1/import", "application/x-ndjson", line.to_string().into()).await;
    let keys = world.send("reader", "GET", &format!("{SERVICE}/keys?secrets=true"), "", Vec::new()).await;
    let msk = keys.body["items"][0]["msk"].as_str().expect("a key");
    let text = std::fs::read_to_string(world.directory.path().join("audit.log")).expect("a log");
    for secret in [key.as_str(), msk, "Bearer", &"5a".repeat(8), &"90, ".repeat(4)] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let names = text.lines().find(|l| l.contains("\"event\":\"import\"")).expect("the import's line");
    assert!(names.contains("\"credentials\":[\"b@bsf\"]"), "{names}");
}

#[tokio::test]
async fn reading_secrets_is_recorded_with_the_keys_that_were_read_and_reading_the_rest_is_not() {
    let world = World::new().await;
    world.provision().await;
    let before = world.events().len();
    let secrets = format!("{SERVICE}/keys?secrets=true");
    let read = world.send("reader", "GET", &secrets, "", Vec::new()).await;
    let head = format!(
        "HEAD {secrets} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer reader\r\nConnection: close\r\n\r\n"
    );
    assert!(world.raw(head.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(world.send("admin", "GET", &secrets, "", Vec::new()).await.status, 401);
    assert_eq!(world.send("reader", "GET", SERVICE, "", Vec::new()).await.status, 401);
    assert_eq!(world.send("", "GET", &secrets, "", Vec::new()).await.status, 401);
    assert_eq!(world.get(&format!("{SERVICE}/keys")).await.status, 200);
    assert_eq!(world.get("/v1/status").await.status, 200);
    let events = world.events().split_off(before);
    assert_eq!(events.len(), 4, "{events:#?}");
    let Event::Read { call, status: 200, names } = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!((call.who.role, call.query["secrets"].as_str()), (Role::KeyReader, "true"));
    assert_eq!(names["service"], [SERVICE_ID]);
    assert_eq!(names["msk_ids"], [read.body["items"][0]["msk_id"].as_str().expect("an id")]);
    assert!(matches!(&events[1], Event::Read { call, status: 200, .. } if call.method == "HEAD"));
    assert!(matches!(&events[2], Event::Read { call, status: 401, .. } if call.who.role == Role::Admin));
    assert!(matches!(&events[3], Event::Refused { call, status: 401 } if call.who.role == Role::KeyReader));
}

#[tokio::test]
async fn over_a_unix_socket_the_kernel_says_who_it_was() {
    let world = World::listening(true).await;
    assert_eq!(
        world.send("", "PUT", SERVICE, "application/json", service().to_string().into()).await.status,
        201
    );
    let line = std::fs::read_to_string(world.directory.path().join("audit.log")).expect("a log");
    let request: Value = serde_json::from_str(line.lines().nth(1).expect("a request")).expect("JSON");
    let us = nix::unistd::getuid().as_raw();
    assert_eq!(request["who"]["as"], "unix");
    assert_eq!(request["who"]["uid"], us);
    assert_eq!(request["who"]["pid"], std::process::id());
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done_and_no_secret_leaves() {
    let directory = tempfile::tempdir().expect("a directory");
    // Nobody can write a file here, whoever runs the tests, as long as the directory is not there.
    let place = directory.path().join("not-there");
    let log = AuditLog::open(&place.join("audit.log"), "test", Box::new(Forgetful), Arc::default())
        .expect("a thread");
    let world = World::recording(false, directory, Some(log)).await;
    let refused = world.call("PUT", SERVICE, service()).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let detail = refused.body["detail"].as_str().expect("a sentence");
    assert!(detail.contains("audit log") && detail.contains("not-there"), "{detail}");
    assert_eq!(world.get(SERVICE).await.status, 404, "it was not done");
    let head = world.get("/v1/audit/head").await;
    assert!(head.body["trouble"].is_string() && head.body["seq"] == 0, "{head:?}");
    // With a place to write to everything goes on without a restart.
    std::fs::create_dir(&place).expect("made");
    assert_eq!(world.call("PUT", SERVICE, service()).await.status, 201);
    let head = world.get("/v1/audit/head").await;
    assert_eq!((&head.body["trouble"], &head.body["seq"]), (&Value::Null, &json!(3)));
    // And stops again.
    std::fs::remove_dir_all(&place).expect("removed");
    let keys = world.send("reader", "GET", &format!("{SERVICE}/keys?secrets=true"), "", Vec::new()).await;
    assert_eq!(keys.status, 503, "{keys:?}");
    assert_eq!(world.get(&format!("{SERVICE}/keys")).await.status, 200, "ids are no secrets");
}

#[tokio::test]
async fn the_head_is_the_files_last_line() {
    let world = World::new().await;
    world.provision().await;
    let head = world.get("/v1/audit/head").await.body;
    let records = world.records();
    let text = std::fs::read_to_string(world.directory.path().join("audit.log")).expect("a log");
    let last = text.lines().last().expect("a line");
    assert_eq!(head["seq"], records.len());
    assert!(last.ends_with(&format!("\"hash\":{}}}", head["hash"])), "{last}");
    // As anybody can compute it.
    let (signed, _) = last.rsplit_once(",\"hash\":").expect("a hash");
    assert_eq!(head["hash"], Hash::of(signed.as_bytes()).to_string());
}

#[tokio::test]
async fn without_a_log_nothing_is_recorded_and_everything_works() {
    let world = World::recording(false, tempfile::tempdir().expect("a directory"), None).await;
    world.provision().await;
    assert_eq!(world.get("/v1/audit/head").await.status, 404);
}
