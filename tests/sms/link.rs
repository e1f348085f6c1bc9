//! The link to the centre: throttling, window, rate, what a broken link leaves behind.

use data_encoding::BASE64;
use serde_json::json;

use crate::harness::Daemon;
use crate::peer::{Smsc, concatenation};
use crate::phone::{BEHIND_NAT, Phone, all_triggered, daemon};

#[test]
fn throttled_messages_are_tried_again_and_counted() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phones = Phone::many(&daemon, 5);
    smsc.tell(json!({"do": "answer_submits", "status": "ESME_RTHROTTLED", "times": 2}));
    smsc.tell(json!({"do": "answer_submits", "status": "ESME_RMSGQFUL", "times": 1}));
    daemon.rotate("urn:s", None);
    let messages = smsc.await_accepted(5);
    all_triggered(&phones, &messages);
    assert_eq!(smsc.submits().len(), 8, "three were throttled, five accepted");
    daemon.await_metric("ltkmd_sms_submitted_total{outcome=\"accepted\"}", 5.0);
    daemon.await_metric("ltkmd_sms_submitted_total{outcome=\"throttled\"}", 3.0);
    assert_eq!(daemon.metric("ltkmd_sms_submitted_total{outcome=\"failed\"}"), 0.0);
    for phone in &phones {
        phone.pull(&daemon);
    }
}

#[test]
fn a_centre_that_takes_some_messages_a_second_gets_all_of_them_in_the_end() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phones = Phone::many(&daemon, 30);
    smsc.tell(json!({"do": "allow", "submits": 10, "ms": 300}));
    daemon.rotate("urn:s", None);
    let messages = smsc.await_accepted(30);
    all_triggered(&phones, &messages);
    assert_eq!(messages.len(), 30, "nobody is sent two");
    let throttled =
        smsc.events().iter().filter(|e| e["event"] == "answer" && e["command_status"] != 0).count();
    assert!(throttled > 0, "the centre was never asked for more than it takes");
    assert!(throttled <= 60, "{throttled} were throttled for 30: that is no backing off");
}

#[test]
fn no_more_messages_than_the_window_ever_wait_for_their_answer() {
    let smsc = Smsc::start();
    let daemon =
        daemon(&[&smsc], "sms.window = 4\nsms.enquire_link = \"100ms\"\nsms.response_timeout = \"60s\"");
    let phones = Phone::many(&daemon, 20);
    smsc.tell(json!({"do": "hold"}));
    daemon.rotate("urn:s", None);
    smsc.await_submits(4);
    // The daemon had time for more.
    smsc.await_more("enquire_link", 3);
    assert_eq!(smsc.submits().len(), 4, "the window is full");
    smsc.tell(json!({"do": "delay", "ms": 30}));
    smsc.tell(json!({"do": "release"}));
    let messages = smsc.await_accepted(20);
    all_triggered(&phones, &messages);
    assert_eq!((smsc.most_outstanding(), messages.len()), (4, 20));
    assert_eq!(smsc.events().iter().filter(|e| e["event"] == "bound").count(), 1, "the link stays");
}

#[test]
fn no_more_messages_a_second_go_out_than_the_rate_allows() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.rate = 20");
    let phones = Phone::many(&daemon, 30);
    daemon.rotate("urn:s", None);
    let messages = smsc.await_accepted(30);
    all_triggered(&phones, &messages);
    let at: Vec<_> = smsc.submits().iter().filter_map(|s| s["at"].as_i64()).collect();
    // 29 intervals of 50 ms, less what the first message's way may have taken on a busy machine.
    let took = at[29] - at[0];
    assert!(took >= 29 * 50 - 1000, "30 messages took {took} ms");
}

#[test]
fn a_link_that_breaks_with_messages_in_flight_loses_none() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.window = 8");
    let phones = Phone::many(&daemon, 15);
    // Cut with a window of unanswered ones, and in the middle of the next window.
    smsc.tell(json!({"do": "hold"}));
    smsc.tell(json!({"do": "drop_after", "submits": [8, 3]}));
    let (_, msk_id) = daemon.rotate("urn:s", None);
    smsc.await_bound(3);
    smsc.tell(json!({"do": "release"}));
    daemon.await_state("a trigger to everybody", |_| {
        let accepted: Vec<_> = smsc.messages().into_iter().filter(|m| m.accepted).map(|m| m.to).collect();
        phones.iter().all(|p| accepted.contains(&p.msisdn)).then_some(())
    });
    all_triggered(&phones, &smsc.messages());
    assert!(smsc.most_outstanding() <= 8);
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    for phone in &phones {
        phone.pull(&daemon);
        phone.await_delivery(&daemon, &msk_id, "verified");
    }
    let deliveries = daemon.deliveries(&phones[0].terminal.btid);
    assert!(deliveries.iter().all(|d| d["error"].is_null()), "{deliveries:?}");
}

#[test]
fn a_centre_that_unbinds_is_answered_and_bound_to_again() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phone = Phone::behind_nat(&daemon, 1);
    smsc.await_bound(1);
    smsc.tell(json!({"do": "unbind"}));
    let answer = smsc.await_event("unbind_resp", |e| e["command"] == "unbind_resp");
    assert_eq!((&answer["link"], &answer["command_status"]), (&json!(1), &json!(0)));
    smsc.await_bound(2);
    daemon.rotate("urn:s", None);
    let messages = smsc.await_accepted(1);
    phone.trigger(&messages[0]);
    assert_eq!(messages[0].parts[0]["link"], 2);
}

#[test]
fn a_centre_that_stops_answering_is_left_and_its_messages_go_out_on_a_new_link() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.enquire_link = \"200ms\"\nsms.response_timeout = \"500ms\"");
    let phones = Phone::many(&daemon, 3);
    smsc.await_bound(1);
    smsc.tell(json!({"do": "deaf", "on": true}));
    daemon.rotate("urn:s", None);
    smsc.await_submits(3);
    smsc.await_event("the end of the first link", |e| e["event"] == "closed" && e["link"] == 1);
    daemon.await_metric("ltkmd_smsc_up", 0.0);
    smsc.tell(json!({"do": "deaf", "on": false}));
    smsc.await_bound(2);
    smsc.await_accepted(3);
    all_triggered(&phones, &smsc.messages());
    daemon.await_metric("ltkmd_smsc_up", 1.0);
}

#[test]
fn a_silent_link_is_asked_whether_it_is_alive_and_stays() {
    let smsc = Smsc::start();
    let _daemon = daemon(&[&smsc], "sms.enquire_link = \"100ms\"\nsms.response_timeout = \"30s\"");
    let asked = smsc.await_events("enquire_link", 5, |e| e["command"] == "enquire_link");
    assert!(asked.iter().all(|e| e["link"] == 1), "{asked:?}");
}

#[test]
fn a_daemon_that_binds_once_for_each_direction_sends_on_one_link_and_hears_receipts_on_the_other() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.bind = \"transmitter-receiver\"");
    let phone = Phone::behind_nat(&daemon, 1);
    let bound = |command: &'static str| {
        smsc.await_event(command, |e| e["event"] == "bound" && e["command"] == command)["link"].clone()
    };
    let (transmitter, receiver) = (bound("bind_transmitter"), bound("bind_receiver"));
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    daemon.rotate("urn:s", None);
    let message = smsc.await_accepted(1).remove(0);
    phone.trigger(&message);
    assert_eq!(message.parts[0]["link"], transmitter);
    smsc.receipt(&message.ids[0], "DELIVRD", "both");
    daemon.await_state("the receipt", |daemon| {
        daemon.deliveries(&phone.terminal.btid).into_iter().find(|d| d["receipt"]["state"] == "delivered")
    });
    let answer = smsc.await_event("deliver_sm_resp", |e| e["command"] == "deliver_sm_resp");
    assert_eq!(answer["link"], receiver);
}

#[test]
fn when_one_of_two_links_breaks_both_are_bound_anew() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.bind = \"transmitter-receiver\"");
    let phone = Phone::behind_nat(&daemon, 1);
    smsc.await_bound(2);
    let receiver =
        smsc.await_event("bind_receiver", |e| e["event"] == "bound" && e["command"] == "bind_receiver");
    smsc.tell(json!({"do": "drop", "link": receiver["link"]}));
    smsc.await_bound(4);
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    daemon.rotate("urn:s", None);
    let message = smsc.await_accepted(1).remove(0);
    phone.trigger(&message);
    smsc.receipt(&message.ids[0], "DELIVRD", "tlv");
    daemon.await_state("the receipt", |daemon| {
        daemon.deliveries(&phone.terminal.btid).into_iter().find(|d| d["receipt"]["state"] == "delivered")
    });
}

/// A terminal whose triggers have several parts.
fn wordy(daemon: &Daemon) -> Phone {
    daemon.put_service("urn:long", 2, json!({"ext_bcast": BASE64.encode(&[0xA5; 400])}));
    Phone::registered(daemon, 1, &["urn:long"], BEHIND_NAT)
}

#[test]
fn parts_that_are_throttled_are_tried_again_as_parts_of_the_same_message() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.window = 2");
    let phone = wordy(&daemon);
    smsc.tell(json!({"do": "answer_submits", "status": "ESME_RTHROTTLED", "times": 2}));
    daemon.rotate("urn:long", None);
    let message = smsc.await_accepted(1).remove(0);
    phone.trigger(&message);
    let submits = smsc.submits();
    assert_eq!(submits.len(), message.parts.len() + 2);
    assert!(smsc.most_outstanding() <= 2, "parts count for the window");
    let reference = |part| concatenation(part).map(|(reference, ..)| reference);
    assert!(submits.iter().all(|s| reference(s) == reference(&submits[0])), "{submits:?}");
    let delivery = &phone.await_delivery(&daemon, "00020002", "sent");
    assert_eq!(delivery["attempts"], 1, "it was one trigger all the time");
}

#[test]
fn a_message_that_a_link_took_with_it_half_sent_goes_out_whole_on_the_next() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.window = 1");
    let phone = wordy(&daemon);
    smsc.await_bound(1);
    smsc.tell(json!({"do": "drop_after", "submits": [3]}));
    daemon.rotate("urn:long", None);
    let message = smsc.await_accepted(1).remove(0);
    phone.trigger(&message);
    assert!(message.parts.len() > 3 && message.parts.iter().all(|p| p["link"] == 2), "{:?}", message.parts);
    assert_eq!(smsc.submits().len(), message.parts.len() + 3);
    phone.await_delivery(&daemon, "00020002", "sent");
}

#[test]
fn a_centre_that_names_no_message_is_believed_all_the_same() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phone = Phone::behind_nat(&daemon, 1);
    smsc.tell(json!({"do": "nameless"}));
    let (_, msk_id) = daemon.rotate("urn:s", None);
    phone.trigger(&smsc.await_accepted(1)[0]);
    daemon.await_metric("ltkmd_sms_submitted_total{outcome=\"accepted\"}", 1.0);
    assert_eq!(phone.await_delivery(&daemon, &msk_id, "sent")["message_ids"], json!([]));
    phone.pull(&daemon);
    phone.await_delivery(&daemon, &msk_id, "verified");
}
