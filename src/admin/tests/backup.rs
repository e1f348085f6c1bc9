//! Backups and exports over the API.

use serde_json::json;

use super::*;
use crate::store::backup::{Kind, Parser, Piece};

const MSISDN: &str = "4917012345678";

async fn put_more(world: &World) {
    world.provision().await;
    world.register(&[0]).await;
    for n in 0..300 {
        let path = format!("/v1/subscribers/s{n}");
        assert_eq!(world.call("PUT", &path, json!({"services": []})).await.status, 201);
    }
}

async fn import(world: &World, lines: &Value) -> Value {
    let text: String = lines.as_array().expect("lines").iter().map(|line| format!("{line}\n")).collect();
    let told = world.send("admin", "POST", "/v1/import", "application/x-ndjson", text.into()).await;
    assert_eq!(told.status, 200);
    told.body
}

#[tokio::test]
async fn what_is_exported_with_secrets_is_imported_elsewhere_and_exported_the_same() {
    let world = World::new().await;
    put_more(&world).await;
    let exported = world.send("reader", "GET", "/v1/export?secrets=true", "", Vec::new()).await;
    assert_eq!(exported.status, 200);
    let lines = exported.body.as_array().expect("lines");
    assert_eq!(lines.len(), 1 + 301 + 1);
    assert!(exported.header("ltkmd-lines").parse::<usize>().is_ok_and(|n| n >= 303));
    let kinds: Vec<_> =
        lines.iter().map(|l| l.as_object().expect("an object").keys().next().cloned()).collect();
    assert!(kinds.is_sorted_by_key(|k| {
        ["service", "subscriber", "credential"].iter().position(|n| Some(*n) == k.as_deref())
    }));
    let credential = &lines[302]["credential"];
    assert_eq!((&credential["id"], &credential["mrk"]), (&json!(BTID), &super::credential()["mrk"]));
    assert_eq!(credential["t"], 1, "one LTKM was made");
    let alice = lines.iter().find(|l| l["subscriber"]["id"] == "alice@example.com").expect("alice");
    assert_eq!(
        (&alice["subscriber"]["msisdn"], &alice["subscriber"]["services"]),
        (&json!(MSISDN), &json!([SERVICE_ID]))
    );

    let other = World::new().await;
    let told = import(&other, &exported.body).await;
    assert_eq!(told["counts"], json!({"service": 1, "subscriber": 301, "credential": 1}), "{told}");
    assert_eq!(told["failed"], 0);
    let again = other.send("reader", "GET", "/v1/export?secrets=true", "", Vec::new()).await;
    assert_eq!(again.body, exported.body);
    other.register(&[0]).await;
    assert_eq!(other.get(CREDENTIAL).await.body["t"], 2, "T goes on");
}

#[tokio::test]
async fn keys_are_exported_to_the_key_reader_alone_and_only_when_they_are_asked_for() {
    for unix in [false, true] {
        let world = World::listening(unix).await;
        world.provision().await;
        let export = async |token: &str, query: &str| {
            world.send(token, "GET", &format!("/v1/export{query}"), "", Vec::new()).await
        };
        let plain = export("admin", "").await;
        assert_eq!(plain.status, 200);
        let credential = plain.body[2]["credential"].as_object().expect("a credential");
        assert!(!credential.contains_key("mrk") && !credential.contains_key("muk"), "{credential:?}");
        assert_eq!(export("admin", "?secrets=true").await.status, 401);
        assert_eq!(export("", "?secrets=true").await.status, 401);
        assert_eq!(export("reader", "?secrets=true").await.status, 200);
        assert_eq!(export("reader", "?secrets=maybe").await.field(), "secrets");
        if !unix {
            assert_eq!(export("reader", "").await.status, 401);
            assert_eq!(world.send("reader", "GET", "/v1/backup", "", Vec::new()).await.status, 401);
        }
    }
}

#[tokio::test]
async fn an_entitlement_to_a_service_that_is_gone_does_not_keep_a_subscriber_from_being_imported() {
    let world = World::new().await;
    world.provision().await;
    assert_eq!(world.call("DELETE", SERVICE, Value::Null).await.status, 204);
    let exported = world.send("reader", "GET", "/v1/export?secrets=true", "", Vec::new()).await;
    let told = import(&World::new().await, &exported.body).await;
    assert_eq!((&told["failed"], &told["counts"]["credential"]), (&json!(0), &json!(1)), "{told}");
}

#[tokio::test]
async fn a_backup_is_whole_and_shows_no_key() {
    let world = World::new().await;
    put_more(&world).await;
    let answer = world.get("/v1/backup").await;
    let octets =
        data_encoding::BASE64.decode(answer.body.as_str().expect("octets").as_bytes()).expect("base64");
    assert!(!octets.windows(32).any(|w| w == [0x5A; 32]), "MRK and MUK are sealed");
    let mut parser = Parser::new();
    parser.feed(&octets);
    let mut end = None;
    while let Some(piece) = parser.piece().expect("whole") {
        if let Piece::End(found) = piece {
            end = Some(found);
        }
    }
    let end = end.expect("an end");
    assert!(parser.finish().is_ok());
    assert!(end.check_seal(world.engine.store().sealer()).is_ok());
    let counts =
        [Kind::Service, Kind::Key, Kind::Subscriber, Kind::Credential, Kind::State].map(|k| end.counts.of(k));
    assert_eq!(counts, [1, 1, 301, 1, 1]);
}
