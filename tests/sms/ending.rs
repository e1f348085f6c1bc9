//! How it ends and begins again: SIGTERM and kill with messages in flight, SIGHUP to another centre.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::Daemon;
use crate::peer::{Message, Smsc};
use crate::phone::{Phone, all_triggered, daemon};

/// Waits until each phone has an accepted message; gives all messages, of all centres in order.
fn await_all(daemon: &Daemon, phones: &[Phone], centres: &[&Smsc]) -> Vec<Message> {
    daemon.await_state("a trigger to everybody", |_| {
        let messages: Vec<_> = centres.iter().flat_map(|c| c.messages()).collect();
        let accepted = |p: &Phone| messages.iter().any(|m| m.accepted && m.to == p.msisdn);
        phones.iter().all(accepted).then_some(messages)
    })
}

#[test]
fn a_daemon_that_ends_with_a_window_of_unanswered_messages_ends_in_time_and_sends_them_after_its_start() {
    let smsc = Smsc::start();
    let mut daemon = daemon(&[&smsc], "sms.window = 8\nhttp.drain = \"1s\"");
    let mut phones = Phone::many(&daemon, 20);
    smsc.tell(json!({"do": "hold"}));
    let (job, msk_id) = daemon.rotate("urn:s", None);
    smsc.await_submits(8);
    let before = Instant::now();
    assert_eq!(daemon.terminate().code(), Some(0));
    let took = before.elapsed();
    // `http.drain`, and the eight seconds that all the rest gets.
    assert!(took < Duration::from_secs(15), "it took {took:?}");
    smsc.await_event("unbind", |e| e["command"] == "unbind" && e["link"] == 1);
    smsc.await_event("the end of the link", |e| e["event"] == "closed" && e["link"] == 1);
    assert_eq!(smsc.submits().len(), 8);

    smsc.tell(json!({"do": "release"}));
    daemon.restart();
    phones.iter_mut().for_each(|p| p.terminal.follow(&daemon));
    all_triggered(&phones, &await_all(&daemon, &phones, &[&smsc]));
    for phone in &phones {
        phone.pull(&daemon);
        phone.await_delivery(&daemon, &msk_id, "verified");
    }
    daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&format!("/v1/jobs/{job}"));
        (job["state"] == "done" && job["verified"] == 20).then_some(())
    });
}

#[test]
fn a_centre_that_answers_nothing_any_more_does_not_hold_the_end_up_and_costs_no_message() {
    let smsc = Smsc::start();
    let mut daemon = daemon(&[&smsc], "sms.window = 4\nhttp.drain = \"3s\"\nsms.response_timeout = \"60s\"");
    let mut phones = Phone::many(&daemon, 8);
    smsc.await_bound(1);
    smsc.tell(json!({"do": "deaf", "on": true}));
    daemon.rotate("urn:s", None);
    smsc.await_submits(4);
    let before = Instant::now();
    assert_eq!(daemon.terminate().code(), Some(0));
    let took = before.elapsed();
    assert!(took < Duration::from_secs(17), "it took {took:?}");
    smsc.await_event("unbind", |e| e["command"] == "unbind");
    smsc.tell(json!({"do": "deaf", "on": false}));
    daemon.restart();
    phones.iter_mut().for_each(|p| p.terminal.follow(&daemon));
    all_triggered(&phones, &await_all(&daemon, &phones, &[&smsc]));
}

#[test]
fn answers_that_come_while_it_ends_are_kept() {
    let smsc = Smsc::start();
    let mut daemon = daemon(&[&smsc], "sms.window = 8\nhttp.drain = \"20s\"");
    let mut phones = Phone::many(&daemon, 8);
    smsc.tell(json!({"do": "hold"}));
    daemon.rotate("urn:s", None);
    smsc.await_submits(8);
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| daemon.terminate());
        smsc.tell(json!({"do": "release"}));
        assert_eq!(ending.join().expect("it ended").code(), Some(0));
    });
    daemon.restart();
    phones.iter_mut().for_each(|p| p.terminal.follow(&daemon));
    all_triggered(&phones, &await_all(&daemon, &phones, &[&smsc]));
    for phone in &phones {
        let deliveries = daemon.deliveries(&phone.terminal.btid);
        assert!(
            deliveries.iter().any(|d| d["state"] == "sent" && !d["message_ids"][0].is_null()),
            "{deliveries:?}"
        );
    }
    assert_eq!(smsc.submits().len(), 8, "what was accepted is not sent again");
}

#[test]
fn nothing_is_lost_when_the_daemon_is_killed_with_messages_in_flight() {
    let smsc = Smsc::start();
    let mut daemon = daemon(&[&smsc], "sms.window = 8\nsms.pull_timeout = \"1s\"\nsms.attempts = 16");
    let mut phones = Phone::many(&daemon, 20);
    smsc.tell(json!({"do": "hold"}));
    let (_, msk_id) = daemon.rotate("urn:s", None);
    for round in 1..=2 {
        smsc.await_submits(8 * round);
        daemon.kill();
        daemon.restart();
        smsc.await_bound(round + 1);
    }
    phones.iter_mut().for_each(|p| p.terminal.follow(&daemon));
    smsc.tell(json!({"do": "release"}));
    all_triggered(&phones, &await_all(&daemon, &phones, &[&smsc]));
    for phone in &phones {
        phone.pull(&daemon);
        phone.await_delivery(&daemon, &msk_id, "verified");
    }
    all_triggered(&phones, &smsc.messages());
}

#[test]
fn a_receipt_that_comes_after_a_restart_finds_its_delivery() {
    let smsc = Smsc::start();
    let mut daemon = daemon(&[&smsc], "");
    let phone = Phone::behind_nat(&daemon, 1);
    daemon.rotate("urn:s", None);
    let message = smsc.await_accepted(1).remove(0);
    daemon.await_state("the message's name", |daemon| {
        let all = daemon.deliveries(&phone.terminal.btid);
        all.into_iter().find(|d| d["message_ids"] == json!(message.ids))
    });
    assert_eq!(daemon.terminate().code(), Some(0));
    daemon.restart();
    smsc.await_bound(2);
    smsc.receipt(&message.ids[0], "DELIVRD", "both");
    daemon.await_state("the receipt", |daemon| {
        daemon.deliveries(&phone.terminal.btid).into_iter().find(|d| d["receipt"]["state"] == "delivered")
    });
    assert_eq!(smsc.submits().len(), 1);
}

#[test]
fn a_new_centre_in_the_configuration_is_moved_to_at_sighup_and_nobody_is_sent_two() {
    let (old, new) = (Smsc::start(), Smsc::start());
    let mut daemon = daemon(&[&old], "sms.window = 4");
    let phones = Phone::many(&daemon, 10);
    old.await_bound(1);
    old.tell(json!({"do": "hold"}));
    let (_, msk_id) = daemon.rotate("urn:s", None);
    old.await_submits(4);
    daemon.configure(&format!("sms.smsc = [{:?}]", new.url()));
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("configuration read again");
    // What is under way is waited for.
    old.tell(json!({"do": "release"}));
    old.await_event("unbind", |e| e["command"] == "unbind");
    new.await_bound(1);
    let messages = await_all(&daemon, &phones, &[&old, &new]);
    all_triggered(&phones, &messages);
    assert_eq!(old.submits().len() + new.submits().len(), 10);
    assert!(!new.submits().is_empty(), "those that had to wait");
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    for phone in &phones {
        phone.pull(&daemon);
        phone.await_delivery(&daemon, &msk_id, "verified");
    }
}

#[test]
fn a_new_centre_is_bound_to_at_once_while_the_old_one_refuses_and_so_is_the_end() {
    let (old, new) = (Smsc::start(), Smsc::start());
    old.tell(json!({"do": "refuse_binds", "status": "ESME_RINVSYSID"}));
    let mut daemon = daemon(&[&old], "");
    let phone = Phone::behind_nat(&daemon, 1);
    daemon.rotate("urn:s", None);
    old.await_events("a refused bind", 2, |e| e["event"] == "refused");
    daemon.configure(&format!("sms.smsc = [{:?}]", new.url()));
    daemon.signal(Signal::SIGHUP);
    phone.trigger(&new.await_accepted(1)[0]);
    // Back again, and the end comes while nobody is bound.
    daemon.configure(&format!("sms.smsc = [{:?}]", old.url()));
    let refused = old.events().iter().filter(|e| e["event"] == "refused").count();
    daemon.signal(Signal::SIGHUP);
    old.await_events("a refused bind", refused + 1, |e| e["event"] == "refused");
    let before = Instant::now();
    assert_eq!(daemon.terminate().code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(5), "it took {:?}", before.elapsed());
}

#[test]
fn with_throttling_cuts_slow_answers_and_kills_together_everybody_has_the_newest_key_in_the_end() {
    let smsc = Smsc::start();
    let overrides = "sms.window = 8\nsms.rate = 200\nsms.pull_timeout = \"2s\"\nsms.attempts = 16";
    let mut daemon = daemon(&[&smsc], overrides);
    let mut phones = Phone::many(&daemon, 40);
    smsc.tell(json!({"do": "delay", "ms": 20}));
    smsc.tell(json!({"do": "allow", "submits": 20, "ms": 300}));
    smsc.tell(json!({"do": "drop_after", "submits": [15, 20]}));
    daemon.rotate("urn:s", None);
    smsc.await_submits(25);
    let (_, newest) = daemon.rotate("urn:s", None);
    smsc.await_submits(32);
    daemon.kill();
    daemon.restart();
    phones.iter_mut().for_each(|p| p.terminal.follow(&daemon));
    // Everybody pulls as soon as it hears, as terminals do.
    let mut left: Vec<&Phone> = phones.iter().collect();
    daemon.await_state("a pull by everybody", |daemon| {
        let events = smsc.messages();
        left.retain(|phone| {
            let woken = events.iter().any(|m| m.accepted && m.to == phone.msisdn);
            if woken {
                assert_eq!(phone.pull(daemon).msk_id.to_string(), newest);
            }
            !woken
        });
        left.is_empty().then_some(())
    });
    for phone in &phones {
        phone.await_delivery(&daemon, &newest, "verified");
    }
    all_triggered(&phones, &smsc.messages());
    assert!(smsc.most_outstanding() <= 8);
}
