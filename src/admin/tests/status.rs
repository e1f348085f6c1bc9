//! What the page shows, and the stream that feeds it.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;
use crate::admin::events::STREAMS;

/// A stream of events, read by its lines.
struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(world: &World) -> Self {
        let mut stream = TcpStream::connect(world.address.expect("TCP")).await.expect("a connection");
        let request = b"GET /status/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
        stream.write_all(request).await.expect("it is taken");
        Self(BufReader::new(stream))
    }

    /// The next line; `None`: the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await.expect("text");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    async fn line_with(&mut self, what: &str) -> String {
        loop {
            let line = self.line().await.expect("the stream goes on");
            if line.starts_with(what) {
                return line;
            }
        }
    }

    async fn overview(&mut self) -> Value {
        self.line_with("event: overview").await;
        let data = self.line_with("data: ").await;
        serde_json::from_str(&data["data: ".len()..]).expect("JSON")
    }
}

/// Opens streams until there is no place for one, and gives them back.
pub(super) async fn fill_streams(world: &World) {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = Stream::open(world).await;
        assert_eq!(stream.line().await.as_deref(), Some("HTTP/1.1 200 OK"));
        streams.push(stream);
    }
    world.saw("GET", "/status/events", 200);
    let full = world.send("", "GET", "/status/events", "", Vec::new()).await;
    assert_eq!((full.status, full.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn events_bring_the_overview_without_a_token_and_follow_what_changes() {
    let world = World::new().await;
    let mut stream = Stream::open(&world).await;
    assert_eq!(stream.line_with("content-type").await, "content-type: text/event-stream");
    let empty = stream.overview().await;
    assert_eq!((&empty["services"], &empty["jobs"]), (&json!(0), &json!([])));
    world.provision().await;
    world.register(&[0]).await;
    let rotated = world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    loop {
        let overview = stream.overview().await;
        let schema = json!({"$ref": "#/components/schemas/Overview"});
        schema::validate(&schema, &overview).expect("as documented");
        if overview["jobs"][0]["states"]["sent"] == 1 {
            assert_eq!(overview["jobs"][0]["id"], rotated.body["job"]);
            assert_eq!((&overview["jobs_open"], &overview["services"]), (&json!(1), &json!(1)));
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_daemon_and_frees_its_place_with_its_reader() {
    let world = World::new().await;
    fill_streams(&world).await;
    // All of them hung up; the places come back once the daemon noticed.
    let mut stream = loop {
        let mut stream = Stream::open(&world).await;
        if stream.line().await.as_deref() == Some("HTTP/1.1 200 OK") {
            break stream;
        }
    };
    stream.overview().await;
    world.stop.send_replace(true);
    while stream.line().await.is_some() {}
    world.server.await.expect("it ends").expect("in order");
}

#[tokio::test]
async fn what_is_open_says_nothing_of_a_subscriber() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[0]).await;
    world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    for path in ["/status/overview", "/status/services", "/status/hour"] {
        let told = world.send("", "GET", path, "", Vec::new()).await;
        assert_eq!(told.status, 200, "{path}");
        let text = told.body.to_string();
        for one in ["alice", "q83v", "4917012345678", "192.0.2.1"] {
            assert!(!text.contains(one), "{one} in {path}: {text}");
        }
    }
}

#[tokio::test]
async fn who_holds_the_current_key_is_counted_until_the_next_one() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[0]).await;
    let held = |told: &Answer| told.body["items"][0]["holders"].clone();
    let none = json!({"udp": 0, "http": 0, "sms": 0, "total": 0, "assumed": 0});
    let coverage = world.get("/status/services").await;
    assert_eq!((held(&coverage), &coverage.body["items"][0]["terminals"]["udp"]), (none.clone(), &json!(1)));
    let now = world.engine.now();
    let scope = crate::store::Scope::Terminal(BTid::new(BTID).expect("a B-TID"));
    let answered = move |view: &mut crate::store::View| {
        view.terminals[0].answered(1, now);
    };
    world.engine.store().update(scope, Box::new(answered)).await.expect("the store works");
    let one = json!({"udp": 1, "http": 0, "sms": 0, "total": 1, "assumed": 0});
    let coverage = world.get("/status/services").await;
    assert_eq!(held(&coverage), one);
    assert_eq!(world.get(SERVICE).await.body["holders"], one);
    world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    assert_eq!(held(&world.get("/status/services").await), none);
}

#[tokio::test]
async fn services_come_in_pages_and_the_hour_counts_what_failed() {
    let world = World::new().await;
    for n in 0..3 {
        let document = json!({"key_domain": "b8709d", "key_group": format!("{n:04x}"), "validity": "ntp"});
        assert_eq!(world.call("PUT", &format!("/v1/services/urn%3A{n}"), document).await.status, 201);
    }
    let first = world.get("/status/services?limit=2").await;
    assert_eq!(first.body["next"], "urn:1");
    let last = world.get("/status/services?limit=2&after=urn%3A1").await;
    assert_eq!((&last.body["items"][0]["id"], &last.body["next"]), (&json!("urn:2"), &Value::Null));
    world.engine.metrics().failed(crate::delivery::Reason::NoAnswer, 3);
    let hour = world.get("/status/hour").await;
    let failed: u64 = hour.body["minutes"]
        .as_array()
        .expect("minutes")
        .iter()
        .filter_map(|m| m["failed"]["no_answer"].as_u64())
        .sum();
    assert_eq!(failed, 3);
}
