//! The OpenAPI document says what is: every call, every status, every field.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

/// Statuses that a walk cannot bring about: 408 takes the time it is about.
const TAKES_TIME: u16 = 408;

fn documented() -> BTreeSet<(String, u16)> {
    let mut all = BTreeSet::new();
    for item in schema::DOCUMENT["paths"].as_object().expect("paths").values() {
        for operation in item.as_object().expect("operations").values() {
            let id = operation["operationId"].as_str().expect("an id");
            for status in operation["responses"].as_object().expect("responses").keys() {
                all.insert((id.to_owned(), status.parse().expect("a status")));
            }
        }
    }
    all
}

/// Each call in a form that succeeds on a world with a service, a subscriber, a registered terminal and a job that
/// waits for its answer. In an
/// order in which none takes away what a later one needs.
fn calls(job: &Value) -> Vec<(&'static str, String, Value)> {
    let subscriber = "/v1/subscribers/alice%40example.com".to_owned();
    vec![
        ("GET", "/v1/services".to_owned(), Value::Null),
        ("PUT", SERVICE.to_owned(), service()),
        ("GET", SERVICE.to_owned(), Value::Null),
        ("POST", format!("/v1/jobs/{job}/pause"), Value::Null),
        ("POST", format!("/v1/jobs/{job}/resume"), Value::Null),
        ("POST", format!("/v1/jobs/{job}/cancel"), Value::Null),
        ("POST", format!("{SERVICE}/rotate"), json!({})),
        ("GET", format!("{SERVICE}/keys"), Value::Null),
        ("GET", "/v1/jobs".to_owned(), Value::Null),
        ("GET", format!("/v1/jobs/{job}"), Value::Null),
        ("PUT", subscriber.clone(), json!({"services": [SERVICE_ID]})),
        ("GET", subscriber.clone(), Value::Null),
        ("PUT", CREDENTIAL.to_owned(), credential()),
        ("GET", CREDENTIAL.to_owned(), Value::Null),
        ("POST", "/v1/import".to_owned(), json!({"subscriber": {"id": "bob"}})),
        ("GET", "/v1/export".to_owned(), Value::Null),
        ("GET", "/v1/backup".to_owned(), Value::Null),
        ("GET", "/v1/terminals".to_owned(), Value::Null),
        ("GET", TERMINAL.to_owned(), Value::Null),
        ("POST", format!("{TERMINAL}/trigger"), json!({"procedure": "register"})),
        ("GET", "/v1/deliveries".to_owned(), Value::Null),
        ("GET", "/v1/status".to_owned(), Value::Null),
        ("GET", "/v1/cluster".to_owned(), Value::Null),
        ("POST", "/v1/freeze".to_owned(), json!({"by": "a", "for": "60s"})),
        ("POST", "/v1/moved".to_owned(), json!({"by": "a", "to": "there"})),
        ("POST", "/v1/thaw?back=true".to_owned(), Value::Null),
        ("GET", "/v1/audit/head".to_owned(), Value::Null),
        ("GET", "/metrics".to_owned(), Value::Null),
        ("GET", "/healthz".to_owned(), Value::Null),
        ("GET", "/readyz".to_owned(), Value::Null),
        ("GET", "/openapi.json".to_owned(), Value::Null),
        ("GET", "/status/overview".to_owned(), Value::Null),
        ("GET", "/status/services".to_owned(), Value::Null),
        ("GET", "/status/hour".to_owned(), Value::Null),
        ("GET", "/".to_owned(), Value::Null),
        ("GET", "/page/style.css".to_owned(), Value::Null),
        ("GET", "/page/main.js".to_owned(), Value::Null),
        ("GET", "/page/parts.js".to_owned(), Value::Null),
        ("GET", "/page/plots.js".to_owned(), Value::Null),
        ("GET", "/page/terminal.js".to_owned(), Value::Null),
        ("DELETE", CREDENTIAL.to_owned(), Value::Null),
        ("DELETE", subscriber, Value::Null),
        ("DELETE", SERVICE.to_owned(), Value::Null),
    ]
}

fn media(path: &str) -> &'static str {
    if path == "/v1/import" { "application/x-ndjson" } else { "application/json" }
}

#[tokio::test]
async fn every_documented_status_of_every_call_is_answered_and_no_other() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[0]).await;
    let rotated = world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    let calls = calls(&rotated.body["job"]);
    let send = async |token: &str, method: &str, path: &str, document: &Value| {
        let media = if document.is_null() { "" } else { media(path) };
        let octets = if document.is_null() { Vec::new() } else { document.to_string().into() };
        world.send(token, method, path, media, octets).await
    };
    // Refused before anything is done.
    for (method, path, document) in &calls {
        let with = |query: &str| format!("{path}?{query}");
        send("", method, path, document).await;
        send("reader", method, path, document).await;
        send("admin", method, &with("bogus=1"), document).await;
        send("admin", method, &with("%ff"), document).await;
        if !document.is_null() {
            world.send("admin", method, path, "text/plain", document.to_string().into()).await;
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin\r\n\
                 Content-Type: {}\r\nContent-Length: 9999999\r\nConnection: close\r\n\r\n",
                media(path)
            );
            if path != "/v1/import" {
                let told = world.raw(head.as_bytes()).await;
                assert!(told.starts_with("HTTP/1.1 413 "), "{told}");
                world.saw(method, path, 413);
            }
        }
    }
    // What the calls in plain text have frozen and moved.
    assert_eq!(send("admin", "POST", "/v1/thaw?back=true", &Value::Null).await.status, 204);
    // The store fails in each of its ways.
    let broken = || "broken".to_owned();
    for error in [StoreError::Unavailable(broken()), StoreError::Damaged(broken())] {
        world.break_store(Some(error));
        for (method, path, document) in &calls {
            // A service that is put as it is needs no commit: another one does.
            let mut document = document.clone();
            if document.get("key_domain").is_some() {
                document["open"] = json!(true);
            }
            send("admin", method, path, &document).await;
        }
        send("admin", "DELETE", &format!("{SERVICE}?force=true"), &Value::Null).await;
        world.break_store(None);
    }
    // What is not there.
    for (method, path, document) in &calls {
        let gone = path.replace("news%201", "none").replace("alice", "nobody").replace("q83v", "none");
        let gone = gone.replace("/jobs/", "/jobs/99999");
        if gone != *path && *method != "PUT" {
            let answer = send("admin", method, &gone, document).await;
            assert_eq!(answer.status, 404, "{method} {gone}: {answer:?}");
        }
    }
    // Contradictions.
    let mut other_group = service();
    other_group["key_group"] = json!("ffff");
    assert_eq!(send("admin", "PUT", SERVICE, &other_group).await.status, 409);
    assert_eq!(send("admin", "DELETE", SERVICE, &Value::Null).await.status, 409);
    world.register(&[2]).await;
    let trigger = json!({"procedure": "register"});
    assert_eq!(send("admin", "POST", &format!("{TERMINAL}/trigger"), &trigger).await.status, 409);
    world.register(&[0]).await;
    let act = async |job: &Value, action: &str| {
        send("admin", "POST", &format!("/v1/jobs/{job}/{action}"), &Value::Null).await.status
    };
    // Over by then, if it was not before.
    act(&rotated.body["job"], "cancel").await;
    for action in ["pause", "resume", "cancel"] {
        assert_eq!(act(&rotated.body["job"], action).await, 409, "{action}");
    }
    let freeze =
        async |by: &str| send("admin", "POST", "/v1/freeze", &json!({"by": by, "for": "60s"})).await.status;
    let moved =
        async |by: &str| send("admin", "POST", "/v1/moved", &json!({"by": by, "to": "there"})).await.status;
    assert_eq!((moved("a").await, freeze("a").await, freeze("b").await), (409, 202, 409));
    assert_eq!((moved("b").await, moved("a").await), (409, 204));
    assert_eq!(send("admin", "POST", "/v1/thaw", &Value::Null).await.status, 409);
    assert_eq!(send("admin", "POST", "/v1/thaw?back=true", &Value::Null).await.status, 204);
    status::fill_streams(&world).await;
    let latch = world.engine.add_latch("udp");
    assert_eq!(send("", "GET", "/readyz", &Value::Null).await.status, 503);
    latch.store(true, std::sync::atomic::Ordering::Relaxed);
    // Success, last.
    let rotated = world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    let calls = self::calls(&rotated.body["job"]);
    for (method, path, document) in &calls {
        let answer = send("admin", method, path, document).await;
        assert!((200..300).contains(&answer.status), "{method} {path} → {answer:?}");
    }
    for (method, path, document) in &calls {
        if *method == "PUT" {
            assert_eq!(send("admin", method, path, document).await.status, 201, "{path}");
        }
    }
    // 404 without an audit log, and 503 with one that cannot be written: tests of their own.
    world.saw("GET", "/v1/audit/head", 404);
    world.saw("GET", &format!("{SERVICE}/keys"), 503);
    // 409 of a rotation: nothing but 65,535 retained keys brings it about.
    world.saw("POST", &format!("{SERVICE}/rotate"), 409);
    let seen = world.seen.lock().expect("no panic").clone();
    let missing: Vec<_> =
        documented().difference(&seen).filter(|(_, status)| *status != TAKES_TIME).cloned().collect();
    assert_eq!(missing, [], "documented, and never answered");
}

#[test]
fn every_route_is_documented_and_every_reference_leads_somewhere() {
    use crate::admin::routes::operations;
    for operation in operations() {
        let described = &schema::DOCUMENT["paths"][operation.path][operation.method];
        assert_eq!(described["operationId"], operation.id, "{}", operation.path);
    }
    let ids: BTreeSet<_> = operations().map(|o| o.id).collect();
    assert_eq!(ids.len(), operations().count(), "operation ids are unique");
    let text = schema::DOCUMENT.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(schema::DOCUMENT["components"]["schemas"][name].is_object(), "nothing is called {name}");
    }
}

/// Documents with every field that their schema has.
fn full() -> Vec<(&'static str, &'static str, String, Value)> {
    let key = data_encoding::BASE64.encode(&[0x5A; 32]);
    let time = "2030-01-01T00:00:00Z";
    vec![
        (
            "ServiceDocument",
            "PUT",
            SERVICE.to_owned(),
            json!({
                "id": SERVICE_ID, "key_domain": "b8709d", "key_group": "68c9", "validity": "mtk-id",
                "lifetime": "2h", "rotate_every": "1h", "open": true, "ext_bcast": "AQ==",
                "invalidate_on_deregister": false, "mtk_ids": [1, 2], "salt": true, "lead_time": "5m",
                "srtp": {
                    "streams": [{"policy": 0, "ssrc": 1, "roc": 0}],
                    "policies": [{"policy": 0, "parameters": {"0": 1}}]
                }
            }),
        ),
        (
            "SubscriberDocument",
            "PUT",
            "/v1/subscribers/alice%40example.com".to_owned(),
            json!({"id": "alice@example.com", "msisdn": "4917", "services": [SERVICE_ID]}),
        ),
        (
            "CredentialDocument",
            "PUT",
            CREDENTIAL.to_owned(),
            json!({
                "id": BTID, "subscriber": "alice@example.com", "mrk": key, "muk": key, "gba": "me",
                "expires": time, "t": 1
            }),
        ),
        (
            "CredentialDocument",
            "PUT",
            CREDENTIAL.to_owned(),
            json!({
                "id": BTID, "subscriber": "alice@example.com", "ks": key, "impi": "alice@example.com",
                "rand": data_encoding::BASE64.encode(&[1; 16]), "gba": "me", "expires": time, "t": 1
            }),
        ),
        (
            "RotateDocument",
            "POST",
            format!("{SERVICE}/rotate"),
            json!({
                "msk": data_encoding::BASE64.encode(&[1; 16]), "valid_from": time,
                "valid_to": "2030-02-01T00:00:00Z", "mtk_ids": [1, 2]
            }),
        ),
        (
            "TriggerDocument",
            "POST",
            format!("{TERMINAL}/trigger"),
            json!({"procedure": "msk-request", "service": SERVICE_ID}),
        ),
        // Last: the store takes no changes from here on.
        (
            "FreezeDocument",
            "POST",
            "/v1/freeze".to_owned(),
            json!({"by": "a", "for": "60s", "prolong": false}),
        ),
        ("MovedDocument", "POST", "/v1/moved".to_owned(), json!({"by": "a", "to": "there"})),
    ]
}

#[tokio::test]
async fn documents_take_the_fields_of_their_schemas_and_refuse_any_other_by_name() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[0]).await;
    let mut shown: std::collections::BTreeMap<_, BTreeSet<String>> = Default::default();
    for (name, method, path, document) in full() {
        let described = &schema::DOCUMENT["components"]["schemas"][name];
        schema::validate(described, &document).expect(name);
        let answer = world.call(method, &path, document.clone()).await;
        assert!((200..300).contains(&answer.status), "{name}: {answer:?}");
        let mut bogus = document.clone();
        bogus["bogus"] = json!(1);
        let refused = world.call(method, &path, bogus).await;
        assert_eq!((refused.status, refused.field()), (422, "bogus"), "{name}");
        let members = document.as_object().expect("an object");
        shown.entry(name).or_default().extend(members.keys().cloned());
        for (field, value) in members {
            // Of the wrong type: it is named.
            let mut wrong = document.clone();
            wrong[field] = json!({"a": 1});
            let refused = world.call(method, &path, wrong).await;
            assert_eq!(refused.status, 422, "{name}.{field}");
            assert!(refused.field().starts_with(field.as_str()), "{name}.{field}: {refused:?}");
            // Null where the schema says so, and only there.
            let property = &described["properties"][field];
            let mut null = document.clone();
            null[field] = Value::Null;
            let nullable = property["type"].as_array().is_some_and(|t| t.contains(&json!("null")));
            let answer = world.call(method, &path, null).await;
            if nullable || field == "id" {
                assert_ne!(answer.status, 422, "{name}.{field}: {answer:?}");
            } else {
                assert_eq!(answer.status, 422, "{name}.{field}: {answer:?}");
            }
            // Left out: named when it is required.
            let mut short = document.clone();
            short.as_object_mut().expect("an object").remove(field);
            let answer = world.call(method, &path, short.clone()).await;
            match schema::validate(described, &short) {
                Err(_) => assert_eq!(answer.status, 422, "{name}.{field} from {value}"),
                Ok(()) if name == "TriggerDocument" => {}
                Ok(()) => assert!((200..300).contains(&answer.status), "{name}.{field}: {answer:?}"),
            }
        }
    }
    for (name, fields) in shown {
        let described = schema::DOCUMENT["components"]["schemas"][name]["properties"].as_object();
        let described: BTreeSet<_> = described.expect("properties").keys().cloned().collect();
        assert_eq!(fields, described, "{name}: fields that were tried and fields that are described");
    }
}

#[tokio::test]
async fn deep_faults_are_named_by_their_place() {
    let world = World::new().await;
    let mut broken = full()[0].3.clone();
    broken["srtp"]["streams"][0]["ssrc"] = json!(-1);
    assert_eq!(world.call("PUT", SERVICE, broken.clone()).await.field(), "srtp.streams[0].ssrc");
    broken["srtp"]["streams"][0] = json!({"policy": 0, "ssrc": 1, "x": 1});
    assert_eq!(world.call("PUT", SERVICE, broken).await.field(), "srtp.streams[0].x");
    let services = json!({"services": ["urn:a", "urn:b", ""]});
    assert_eq!(world.call("PUT", "/v1/subscribers/a", services).await.field(), "services[2]");
    assert_eq!(world.call("PUT", "/v1/credentials/a%20b", credential()).await.field(), "btid");
    let other = json!({"id": "b"});
    assert_eq!(world.call("PUT", "/v1/subscribers/a", other).await.field(), "id");
}
