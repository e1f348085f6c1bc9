//! Deliveries from end to end: what a terminal gets, by what, and what the daemon knows afterwards.

use serde_json::json;

use crate::harness::Daemon;
use crate::harness::terminal::Terminal;

const UDP: Option<&[u8]> = Some(&[0]);
const HTTP: Option<&[u8]> = Some(&[2]);
const BOTH: Option<&[u8]> = Some(&[0, 2]);

/// Waits until the terminal's record shows these keys as verified.
fn await_verified(daemon: &Daemon, terminal: &Terminal, msk_ids: &[&str]) {
    let path = format!("/v1/terminals/{}", crate::harness::encoded(&terminal.btid));
    daemon.await_state("the verification", |daemon| {
        let record = daemon.get(&path);
        let verified = record["verified"].as_array().expect("a list");
        let has = |id: &&str| verified.iter().any(|v| v["msk_id"] == **id);
        (verified.len() == msk_ids.len() && msk_ids.iter().all(has)).then_some(())
    });
}

#[test]
fn a_terminal_registers_over_udp_verifies_and_follows_a_key_update() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let answer = terminal.registered(&["urn:s"], None);
    assert!(answer.items[0].ltkms().is_empty() && answer.ltkm_delivery.is_none());
    let ltkm = terminal.receive();
    assert_eq!(ltkm.msk_id.to_string(), "00010001");
    terminal.verify(&ltkm);
    await_verified(&daemon, &terminal, &["00010001"]);

    let reply = daemon.admin("POST", "/v1/services/urn:s/rotate", None);
    assert_eq!(reply.status, 202);
    let job = reply.json()["job"].clone();
    let next = terminal.receive();
    assert_eq!(next.msk_id.to_string(), "00010002");
    assert!(next.counter > ltkm.counter, "T rises");
    terminal.verify(&next);
    let done = daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&format!("/v1/jobs/{job}"));
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&done["terminals"], &done["verified"]), (&json!(1), &json!(1)));
    await_verified(&daemon, &terminal, &["00010001", "00010002"]);
}

#[test]
fn keys_ride_in_http_answers_and_an_http_only_terminal_pulls_after_an_update() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let answer = terminal.registered(&["urn:s"], HTTP);
    let ltkm = terminal.open(&answer.items[0].ltkms()[0]);
    terminal.verify(&ltkm);
    await_verified(&daemon, &terminal, &["00010001"]);

    let job = daemon.admin("POST", "/v1/services/urn:s/rotate", None).json()["job"].clone();
    daemon.await_state("the wait for a pull", |daemon| {
        (daemon.get(&format!("/v1/jobs/{job}"))["awaiting_pull"] == 1).then_some(())
    });
    let answer = terminal.msks(&[("b8709d", "00010000")]);
    let next = terminal.open(&answer.items[0].ltkms()[0]);
    assert_eq!(next.msk_id.to_string(), "00010002");
    terminal.verify(&next);
    daemon.await_state("the verification", |daemon| {
        (daemon.get(&format!("/v1/jobs/{job}"))["verified"] == 1).then_some(())
    });
}

#[test]
fn a_lost_ltkm_is_sent_again_with_fresh_values_until_the_attempts_are_spent() {
    let daemon = Daemon::start_with("udp.attempts = 3\nudp.first_timeout = \"100ms\"");
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let attempts: Vec<_> = (0..3).map(|_| terminal.receive()).collect();
    for (earlier, later) in attempts.iter().zip(&attempts[1..]) {
        assert!(earlier.counter < later.counter);
        assert_ne!(earlier.csb_id, later.csb_id);
        assert_ne!(earlier.rand, later.rand);
    }
    let failed = daemon.await_state("the failure", |daemon| {
        daemon.deliveries(&terminal.btid).into_iter().find(|d| d["state"] == "failed")
    });
    assert_eq!((&failed["attempts"], &failed["error"]), (&json!(3), &json!("no_answer")));
    terminal.verify(&attempts[0]);
    await_verified(&daemon, &terminal, &["00010001"]);
}

#[test]
fn deregistration_brings_the_invalidation_and_ends_the_membership() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    let answer = terminal.registered(&["urn:s"], BOTH);
    terminal.verify(&terminal.open(&answer.items[0].ltkms()[0]));
    await_verified(&daemon, &terminal, &["00010001"]);
    let reply = terminal.deregister(&["urn:s"]);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (answer, _) = ltkmd::document::DeregistrationResponse::read(&reply.body, &Default::default())
        .expect("a deregistration answer");
    let ltkm = terminal.open(&answer.items[0].ltkms()[0]);
    assert_eq!(ltkm.msk_id.to_string(), "00010001");
    terminal.verify(&ltkm);
    await_verified(&daemon, &terminal, &[]);
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 0);
}

#[test]
fn nothing_acknowledged_is_lost_and_t_never_goes_back_when_the_daemon_is_killed() {
    let mut daemon = Daemon::start_with("udp.first_timeout = \"300ms\"");
    daemon.put_service("urn:s", 1, json!({}));
    let mut terminal = Terminal::provision(&daemon, &[]);
    let mut highest = None;
    for round in 0..5 {
        terminal.registered(&["urn:s"], UDP);
        let ltkm = terminal.receive();
        assert!(Some(ltkm.counter) > highest, "T went back in round {round}");
        highest = Some(ltkm.counter);
        daemon.kill();
        daemon.restart();
        terminal.follow(&daemon);
        let again = terminal.receive();
        assert!(Some(again.counter) > highest, "what was due goes on after the restart");
        highest = Some(again.counter);
        assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["udp"], 1);
    }
    terminal.verify(&terminal.receive());
    await_verified(&daemon, &terminal, &["00010001"]);
}

#[test]
fn no_declared_method_is_403_on_the_status_line_and_the_earlier_registration_stays() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
    let reply = terminal.register(&["urn:s"], Some(&[1, 77]));
    assert_eq!((reply.status, reply.header("content-type")), (403, Some("text/plain; charset=utf-8")));
    assert!(reply.header("authentication-info").is_some(), "the request was authenticated");
    let record = daemon.get(&format!("/v1/terminals/{}", crate::harness::encoded(&terminal.btid)));
    assert_eq!((&record["methods"], &record["services"]), (&json!(["http"]), &json!(["urn:s"])));
}

#[test]
fn a_drained_daemon_ends_with_0_and_goes_on_where_it_was() {
    let mut daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], HTTP);
    assert_eq!(daemon.terminate().code(), Some(0));
    daemon.restart();
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["http"], 1);
}

#[test]
fn attempts_survive_a_restart() {
    let mut daemon = Daemon::start_with("udp.attempts = 3\nudp.first_timeout = \"500ms\"");
    daemon.put_service("urn:s", 1, json!({}));
    let mut terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    terminal.receive();
    terminal.receive();
    daemon.kill();
    daemon.restart();
    terminal.follow(&daemon);
    terminal.receive();
    let failed = daemon.await_state("the failure", |daemon| {
        daemon.deliveries(&terminal.btid).into_iter().find(|d| d["state"] == "failed")
    });
    assert_eq!((&failed["attempts"], terminal.drain().len()), (&json!(3), 0));
}

#[test]
fn deregistration_cancels_what_is_under_way() {
    let daemon = Daemon::start_with("udp.first_timeout = \"100ms\"\nudp.attempts = 2");
    daemon.put_service("urn:s", 1, json!({"invalidate_on_deregister": false}));
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], UDP);
    let ltkm = terminal.receive();
    assert_eq!(terminal.deregister(&["urn:s"]).status, 200);
    let all = daemon.deliveries(&terminal.btid);
    assert_eq!((all.len(), &all[0]["state"], &all[0]["next_due"]), (1, &json!("cancelled"), &json!(null)));
    let sent = daemon.metric("ltkmd_ltkm_sent_total{method=\"udp\"}");
    // A late answer is harmless, and the time of a resend passes without one.
    terminal.verify(&ltkm);
    daemon.await_metric("ltkmd_udp_received_total{outcome=\"duplicate\"}", 1.0);
    let other = Terminal::provision(&daemon, &[]);
    other.registered(&["urn:s"], UDP);
    other.receive();
    other.receive();
    daemon.await_metric("ltkmd_ltkm_sent_total{method=\"udp\"}", sent + 2.0);
    assert_eq!(daemon.deliveries(&terminal.btid)[0]["attempts"], all[0]["attempts"]);
}
