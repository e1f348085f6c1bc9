//! Any daemon takes any request: what one has said or written, the others know at once.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::harness::Daemon;
use crate::harness::http::Reply;
use crate::harness::terminal::{Terminal, deregistration, msk_request, put_subscriber, registration};
use crate::nodes::{Cluster, alone};
use crate::server::shared;

const SETTINGS: &str = "udp.first_timeout = \"30s\"";

fn status(reply: &Reply) -> u16 {
    reply.status
}

/// The state of a terminal's only delivery.
fn only_delivery(daemon: &Daemon, terminal: &Terminal) -> Value {
    let deliveries = daemon.deliveries(&terminal.btid);
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
    deliveries[0]["state"].clone()
}

#[test]
fn each_step_of_a_terminals_life_may_be_at_another_daemon() {
    let _alone = alone();
    let database = shared().database();
    let cluster = Cluster::new(&shared().url_of("postgres", &database), SETTINGS);
    let [a, b, c] = cluster.start(["a", "b", "c"]);

    // What operators put in at one is used by another with its next breath.
    a.put_service("urn:s", 1, json!({"open": false}));
    assert_eq!(b.get("/v1/services/urn:s")["id"], "urn:s");
    assert_eq!(put_subscriber(&b, "1@ims.example.com", &["urn:s"]).status, 201);
    let terminal = Terminal::provision_for(&c, "1@ims.example.com");
    assert_eq!(a.get("/v1/subscribers/1%40ims.example.com")["services"], json!(["urn:s"]));

    // It registers at A, and goes on at B with A's nonce.
    let connect =
        |daemon: &Daemon| crate::harness::http::Connection::open_from(terminal.address, daemon.http);
    let (mut at_a, mut at_b, mut at_c) = (connect(&a), connect(&b), connect(&c));
    let challenge = terminal.challenge(&mut at_a, "register");
    let body = registration(&["urn:s"], Some(&[0]));
    let reply = terminal.send(&mut at_a, "register", body.as_bytes(), &challenge, 1);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let first = terminal.receive();
    let asked = msk_request(&[("b8709d", "00010001")]);
    let reply = terminal.send(&mut at_b, "msk-request", asked.as_bytes(), &challenge, 2);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let second = terminal.receive();
    assert!(second.counter > first.counter, "{} and {}", first.counter, second.counter);

    // The same again is a replay at each of them, whoever took it before.
    let mut connections = [&mut at_a, &mut at_b, &mut at_c];
    for (at, nc) in [(2, 2), (2, 1), (1, 1), (0, 2), (1, 2)] {
        let connection = &mut connections[at];
        let reply = terminal.send(connection, "msk-request", asked.as_bytes(), &challenge, nc);
        assert_eq!(reply.status, 401, "count {nc}: {}", reply.text());
    }
    assert!(terminal.drain().is_empty(), "a replay brings nothing");

    // B has sent the LTKM, C takes the answer.
    assert_eq!(only_delivery(&a, &terminal), "sent");
    terminal.socket.send_to(&terminal.verification(&second), c.udp).expect("sent");
    a.await_state("the verification", |a| (only_delivery(a, &terminal) == "verified").then_some(()));
    c.await_metric("ltkmd_udp_received_total{outcome=\"verified\"}", 1.0);

    // It leaves at C, and A knows.
    let body = deregistration(&["urn:s"]);
    let reply = terminal.send(&mut at_c, "deregister", body.as_bytes(), &challenge, 3);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(a.terminal(&terminal.btid)["services"], json!([]));
    let reply = terminal.send(&mut at_a, "msk-request", asked.as_bytes(), &challenge, 4);
    assert!(!reply.text().contains("Success"), "{}", reply.text());

    // A credential that is taken out at one is nobody's at another.
    assert_eq!(
        b.admin("DELETE", &format!("/v1/credentials/{}", crate::harness::encoded(&terminal.btid)), None)
            .status,
        204
    );
    let reply = terminal.send(&mut at_c, "msk-request", asked.as_bytes(), &challenge, 5);
    assert_eq!(reply.status, 401, "{}", reply.text());
}

#[test]
fn of_one_request_sent_to_three_daemons_at_once_one_serves_it() {
    const ROUNDS: u32 = 20;
    let _alone = alone();
    let database = shared().database();
    let cluster = Cluster::new(&shared().url_of("postgres", &database), SETTINGS);
    let daemons = cluster.start(["a", "b", "c"]);
    daemons[0].put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemons[1], &[]);
    let open = |daemon: &Daemon| crate::harness::http::Connection::open_from(terminal.address, daemon.http);
    let mut connections = daemons.each_ref().map(open);
    let challenge = terminal.challenge(&mut connections[2], "register");
    let body = registration(&["urn:s"], Some(&[0, 2]));
    let mut counters = Vec::new();
    for nc in 1..=ROUNDS {
        let at_once = Barrier::new(daemons.len());
        let replies: Vec<Reply> = std::thread::scope(|scope| {
            let sending = connections.iter_mut().map(|connection| {
                let (at_once, terminal, challenge, body) = (&at_once, &terminal, &challenge, &body);
                scope.spawn(move || {
                    at_once.wait();
                    terminal.send(connection, "register", body.as_bytes(), challenge, nc)
                })
            });
            let sending: Vec<_> = sending.collect();
            sending.into_iter().map(|s| s.join().expect("an answer")).collect()
        });
        let mut statuses: Vec<u16> = replies.iter().map(status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401, 401], "count {nc}");
        let served = replies.iter().find(|r| r.status == 200).expect("one of them");
        let (answer, _) = ltkmd::document::RegistrationResponse::read(&served.body, &Default::default())
            .expect("a registration answer");
        counters.extend(answer.items[0].ltkms().iter().map(|ltkm| terminal.open(ltkm).counter));
    }
    assert_eq!(counters.len(), ROUNDS as usize);
    assert!(counters.is_sorted_by(|a, b| a < b), "{counters:?}");
}
