//! Who may have what, and what happens when that ends (LTKM profile §3, §4, §7).

use mikey::ltkm::{OpenedLtkm, OpenedValidity};
use serde_json::{Value, json};

use crate::harness::terminal::{Terminal, put_subscriber};
use crate::harness::{Daemon, encoded};

const UDP: Option<&[u8]> = Some(&[0]);
const HTTP: Option<&[u8]> = Some(&[2]);

/// Checks that an LTKM ends a key, and of which octets it is.
fn is_invalidation(ltkm: &OpenedLtkm, msk_id: &str, width: usize) {
    assert_eq!((ltkm.msk_id.to_string().as_str(), ltkm.v), (msk_id, true));
    let key = ltkm.key.as_ref().expect("key data");
    assert_eq!(key.key.expose().len(), 16);
    assert_eq!(key.kv, OpenedValidity::Interval { from: vec![0xFF; width], to: vec![0; width] });
}

/// A terminal that is registered for these services by UDP and holds their keys.
fn holding(daemon: &Daemon, services: &[&str]) -> Terminal {
    let terminal = Terminal::provision(daemon, services);
    hold(daemon, &terminal, services);
    terminal
}

fn hold(daemon: &Daemon, terminal: &Terminal, services: &[&str]) {
    let answer = terminal.registered(services, UDP);
    assert!(answer.items.iter().all(|i| i.code().is_ok()));
    for _ in services {
        terminal.verify(&terminal.receive());
    }
    daemon.await_state("the verification", |daemon| {
        let verified = daemon.terminal(&terminal.btid)["verified"].as_array().map(Vec::len);
        (verified == Some(services.len())).then_some(())
    });
}

fn code(terminal: &Terminal, service: &str) -> u16 {
    terminal.registered(&[service], UDP).items[0].code().number()
}

#[test]
fn a_subscriber_that_loses_a_service_loses_its_key() {
    let daemon = Daemon::start();
    daemon.put_service("urn:a", 1, json!({"open": false}));
    daemon.put_service("urn:b", 2, json!({"open": false}));
    let terminal = holding(&daemon, &["urn:a", "urn:b"]);
    assert_eq!(put_subscriber(&daemon, &terminal.subscriber, &["urn:b"]).status, 200);
    let ltkm = terminal.receive();
    is_invalidation(&ltkm, "00010001", 4);
    assert_eq!(daemon.terminal(&terminal.btid)["services"], json!(["urn:b"]));
    terminal.verify(&ltkm);
    daemon.await_state("the end", |daemon| {
        let all = daemon.deliveries(&terminal.btid);
        all.iter().any(|d| d["kind"] == "invalidate" && d["state"] == "verified").then_some(())
    });
    assert_eq!(terminal.msks(&[("b8709d", "00010000")]).items[0].code().number(), 403);
    assert_eq!(code(&terminal, "urn:a"), 403);
    put_subscriber(&daemon, &terminal.subscriber, &["urn:a", "urn:b"]);
    assert_eq!(code(&terminal, "urn:a"), 200, "and may have it again");
}

#[test]
fn a_service_that_closes_keeps_those_that_are_entitled() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let entitled = holding(&daemon, &["urn:s"]);
    let others: Vec<_> = (0..5).map(|_| Terminal::provision(&daemon, &[])).collect();
    others.iter().for_each(|terminal| hold(&daemon, terminal, &["urn:s"]));
    let closed = json!({"key_domain": "b8709d", "key_group": "0001", "validity": "ntp", "open": false});
    assert_eq!(daemon.admin("PUT", "/v1/services/urn:s", Some(&closed)).status, 200);
    for terminal in &others {
        is_invalidation(&terminal.receive(), "00010001", 4);
        assert_eq!(code(terminal, "urn:s"), 403);
    }
    assert_eq!(entitled.drain().len(), 0);
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 1);
    assert_eq!(daemon.get("/v1/services/urn:s")["open"], false);
}

#[test]
fn a_subscriber_that_is_deleted_is_gone_with_its_terminals() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = holding(&daemon, &["urn:s"]);
    let path = format!("/v1/subscribers/{}", encoded(&terminal.subscriber));
    assert_eq!(daemon.admin("DELETE", &path, None).status, 204);
    is_invalidation(&terminal.receive(), "00010001", 4);
    assert_eq!(terminal.register(&["urn:s"], UDP).status, 401);
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 0);
    assert_eq!(daemon.admin("DELETE", &path, None).status, 404);
}

#[test]
fn a_credential_that_is_deleted_gets_one_invalidation_and_keeps_its_counter() {
    let daemon = Daemon::start_with("udp.first_timeout = \"100ms\"");
    daemon.put_service("urn:s", 1, json!({}));
    let mut terminal = holding(&daemon, &["urn:s"]);
    let path = format!("/v1/credentials/{}", encoded(&terminal.btid));
    assert_eq!(daemon.admin("DELETE", &path, None).status, 204);
    let last = terminal.receive();
    is_invalidation(&last, "00010001", 4);
    assert_eq!(terminal.register(&["urn:s"], UDP).status, 401);
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 0);
    // The same B-TID with other keys: T goes on.
    terminal.mrk.reverse();
    terminal.muk.reverse();
    assert_eq!(terminal.put(&daemon, json!({})).status, 201);
    terminal.registered(&["urn:s"], UDP);
    assert!(terminal.receive().counter > last.counter);
}

#[test]
fn other_keys_for_the_same_b_tid_keep_t_rising() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let mut terminal = Terminal::provision(&daemon, &[]);
    let mut last = 0;
    for round in 0..3_u8 {
        terminal.muk = vec![round + 1; 32];
        assert_eq!(terminal.put(&daemon, json!({})).status, 200);
        let answer = terminal.registered(&["urn:s"], HTTP);
        let counter = terminal.open(&answer.items[0].ltkms()[0]).counter;
        assert!(counter > last);
        last = counter;
    }
    // From another BM-SC, which tells its highest value; a lower one changes nothing.
    for (given, least) in [(1_000_000, 1_000_001), (5, 1_000_002)] {
        assert_eq!(terminal.put(&daemon, json!({"t": given})).status, 200);
        let answer = terminal.registered(&["urn:s"], HTTP);
        assert_eq!(terminal.open(&answer.items[0].ltkms()[0]).counter, least);
    }
}

#[test]
fn a_new_b_tid_of_the_same_subscriber_ends_the_old_one() {
    let daemon = Daemon::start_with("udp.first_timeout = \"100ms\"");
    daemon.put_service("urn:s", 1, json!({}));
    let old = Terminal::provision(&daemon, &[]);
    old.registered(&["urn:s"], UDP);
    old.receive();
    let new = Terminal::provision_for(&daemon, &old.subscriber);
    // Nobody is registered by a request that is refused as a whole.
    assert_eq!(new.register(&["urn:s"], Some(&[77])).status, 403);
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 1);
    hold(&daemon, &new, &["urn:s"]);
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 1);
    let states: Vec<Value> = daemon.deliveries(&old.btid).iter().map(|d| d["state"].clone()).collect();
    assert_eq!(states, [json!("cancelled")]);
    old.drain();
    daemon.rotate("urn:s", None);
    new.verify(&new.receive());
    assert_eq!(old.drain().len(), 0, "nothing more goes to the old one");
}

#[test]
fn pushes_stop_when_the_b_tid_expires() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = holding(&daemon, &["urn:s"]);
    assert_eq!(terminal.put(&daemon, json!({"expires": "2020-01-01T00:00:00Z"})).status, 200);
    let job = daemon.rotate("urn:s", None).0;
    let done = daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&format!("/v1/jobs/{job}"));
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&done["failed"], terminal.drain().len()), (&json!(1), 0), "{done}");
    let failed = daemon.deliveries(&terminal.btid).into_iter().find(|d| d["msk_id"] == "00010002");
    assert_eq!(failed.expect("a delivery")["error"], "credential_expired");
    assert_eq!(daemon.metric("ltkmd_ltkm_failed_total{reason=\"credential_expired\"}"), 1.0);
    // Prolonged, it gets what it lacks at its next contact.
    assert_eq!(terminal.put(&daemon, json!({})).status, 200);
    terminal.msks(&[("b8709d", "00090000")]);
    assert_eq!(terminal.receive().msk_id.to_string(), "00010002");
}

#[test]
fn deregistration_invalidates_each_key_that_the_terminal_may_hold() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = holding(&daemon, &["urn:s"]);
    daemon.rotate("urn:s", None);
    terminal.receive();
    assert!(terminal.deregistered(&["urn:s"]).items[0].ltkms().is_empty(), "HTTP is not in the set");
    let mut ltkms = [terminal.receive(), terminal.receive()];
    ltkms.sort_by_key(|ltkm| ltkm.msk_id.number());
    is_invalidation(&ltkms[0], "00010001", 4);
    is_invalidation(&ltkms[1], "00010002", 4);
    let keys = daemon.keys("urn:s");
    for (ltkm, key) in ltkms.iter().zip(&keys) {
        let sent = ltkm.key.as_ref().expect("key data").key.expose();
        assert_ne!(data_encoding::BASE64.encode(sent), key["msk"].as_str().expect("a key"));
    }
    // Registering again takes precedence over an invalidation that is under way.
    terminal.registered(&["urn:s"], HTTP);
    let open = daemon.deliveries(&terminal.btid);
    let open = open.iter().filter(|d| d["kind"] == "invalidate" && d["state"] == "sent").count();
    assert_eq!(open, 0);
}

#[test]
fn a_service_may_leave_the_keys_of_those_that_go() {
    let daemon = Daemon::start();
    let mtk = json!({"validity": "mtk-id"});
    daemon.put_service("urn:kept", 1, json!({"invalidate_on_deregister": false}));
    daemon.put_service("urn:mtk", 2, mtk);
    let terminal = holding(&daemon, &["urn:kept", "urn:mtk"]);
    let before = daemon.metric("ltkmd_ltkm_built_total");
    terminal.deregistered(&["urn:kept"]);
    assert_eq!(daemon.metric("ltkmd_ltkm_built_total"), before);
    terminal.deregistered(&["urn:mtk"]);
    is_invalidation(&terminal.receive(), "00020001", 2);
}

#[test]
fn a_service_that_is_deleted_takes_its_keys_back() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = holding(&daemon, &["urn:s"]);
    let waiting = Terminal::provision(&daemon, &[]);
    waiting.registered(&["urn:s"], HTTP);
    assert_eq!(daemon.admin("DELETE", "/v1/services/urn:s", None).status, 409);
    assert_eq!(daemon.admin("DELETE", "/v1/services/urn:s?force=true", None).status, 204);
    let ltkm = terminal.receive();
    is_invalidation(&ltkm, "00010001", 4);
    terminal.verify(&ltkm);
    assert_eq!(code(&terminal, "urn:s"), 404);
    assert_eq!(terminal.msks(&[("b8709d", "00010001")]).items[0].code().number(), 404);
    // The group is free for another service, whose numbers go on.
    daemon.put_service("urn:t", 1, json!({}));
    assert_eq!(daemon.get("/v1/services/urn:t")["msk_id"], "00010002");
}

#[test]
fn an_invalidation_is_sent_again_like_any_delivery() {
    let daemon = Daemon::start_with("udp.first_timeout = \"200ms\"\nudp.attempts = 2");
    daemon.put_service("urn:a", 1, json!({"open": false}));
    daemon.put_service("urn:b", 2, json!({}));
    let terminal = holding(&daemon, &["urn:a", "urn:b"]);
    terminal.drain();
    put_subscriber(&daemon, &terminal.subscriber, &[]);
    let attempts = [terminal.receive(), terminal.receive()];
    attempts.iter().for_each(|ltkm| is_invalidation(ltkm, "00010001", 4));
    assert!(attempts[0].counter < attempts[1].counter);
    let state = |daemon: &Daemon| {
        let all = daemon.deliveries(&terminal.btid);
        let invalidation = all.iter().find(|d| d["kind"] == "invalidate").expect("a delivery");
        invalidation["state"].clone()
    };
    daemon.await_state("the failure", |daemon| (state(daemon) == "failed").then_some(()));
    // At its next contact it is told again.
    terminal.msks(&[("b8709d", "00020000")]);
    let again = terminal.receive();
    if again.msk_id.to_string() == "00020001" {
        is_invalidation(&terminal.receive(), "00010001", 4);
    } else {
        is_invalidation(&again, "00010001", 4);
    }
    terminal.verify(&attempts[0]);
    daemon.await_state("the end", |daemon| (state(daemon) == "verified").then_some(()));
}
