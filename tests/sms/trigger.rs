//! What goes out by SMS, and what comes of it (LTKM profile §4).

use std::collections::HashSet;

use data_encoding::BASE64;
use serde_json::json;

use crate::harness::encoded;
use crate::peer::{Smsc, concatenation, element};
use crate::phone::{BEHIND_NAT, Phone, daemon};

/// `POST /v1/terminals/{btid}/trigger`; the status.
fn ask(daemon: &crate::harness::Daemon, phone: &Phone, body: serde_json::Value) -> u16 {
    let path = format!("/v1/terminals/{}/trigger", encoded(&phone.terminal.btid));
    daemon.admin("POST", &path, Some(&body)).status
}

#[test]
fn a_terminal_behind_nat_is_woken_by_one_message_and_its_pull_completes_the_key_update() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    let phone = Phone::behind_nat(&daemon, 1);
    let record = daemon.terminal(&phone.terminal.btid);
    assert_eq!(record["methods"], json!(["http", "sms"]));
    let before = daemon.metric("ltkmd_ltkm_sent_total{method=\"udp\"}");

    let (job, msk_id) = daemon.rotate("urn:s", None);
    let message = smsc.await_accepted(1).remove(0);
    let trigger = phone.trigger(&message);
    assert_eq!(trigger.msk_id.to_string(), "00010000", "an MSK request for the group");
    let [submit] = &message.parts[..] else { panic!("{} parts", message.parts.len()) };
    for (field, value) in [
        ("data_coding", json!(4)),
        ("registered_delivery", json!(1)),
        ("validity_period", json!("000001000000000R")),
        ("schedule_delivery_time", json!("")),
        ("protocol_id", json!(0)),
        ("service_type", json!("")),
        ("source_addr", json!("12345")),
        ("destination_addr", json!(phone.msisdn)),
        ("dest_addr_ton", json!(1)),
        ("dest_addr_npi", json!(1)),
    ] {
        assert_eq!(submit[field], value, "{field} of {submit}");
    }
    // UDHI, in the centre's default mode (SMPP 3.4 §5.2.12); the port is the LTKM port (TS 23.040 §9.2.3.24.4).
    assert_eq!(submit["esm_class"].as_u64().map(|c| c & 0x43), Some(0x40));
    let ports = element(submit, 5).expect("port addressing");
    assert_eq!((ports.len(), &ports[..2]), (4, &daemon.port.to_be_bytes()[..]));
    assert_eq!((concatenation(submit), submit["udh"].as_array().map(Vec::len)), (None, Some(1)));

    let sent = daemon.await_state("the message's name", |daemon| {
        let all = daemon.deliveries(&phone.terminal.btid);
        all.into_iter().find(|d| d["msk_id"] == msk_id && d["message_ids"] == json!(message.ids))
    });
    assert_eq!(message.ids.len(), 1);
    assert_eq!((&sent["state"], &sent["method"]), (&json!("sent"), &json!("sms")));
    assert_eq!((&sent["kind"], &sent["receipt"]), (&json!("key"), &json!(null)));

    let ltkm = phone.pull(&daemon);
    assert_eq!(ltkm.msk_id.to_string(), msk_id);
    assert!(ltkm.counter > trigger.counter && ltkm.v, "T rises");
    let keys = daemon.keys("urn:s");
    let newest = keys.iter().find(|k| k["msk_id"] == json!(msk_id)).expect("the new key");
    let msk = BASE64.decode(newest["msk"].as_str().expect("octets").as_bytes()).expect("base64");
    assert_eq!(ltkm.key.expect("a key").key.expose(), msk);
    phone.await_delivery(&daemon, &msk_id, "verified");
    let done = daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&format!("/v1/jobs/{job}"));
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&done["verified"], &done["sent"]), (&json!(1), &json!(1)));
    assert_eq!(smsc.submits().len(), 1, "one message is enough");
    assert_eq!(daemon.metric("ltkmd_ltkm_sent_total{method=\"udp\"}"), before, "UDP is not in the set");
    daemon.await_metric("ltkmd_sms_submitted_total{outcome=\"accepted\"}", 1.0);
    daemon.await_metric("ltkmd_ltkm_sent_total{method=\"sms\"}", 1.0);
}

#[test]
fn a_trigger_of_more_than_133_octets_goes_in_parts_that_the_terminal_can_join() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let management = vec![0xA5; 250];
    daemon.put_service("urn:long", 2, json!({"ext_bcast": BASE64.encode(&management)}));
    let phone = Phone::registered(&daemon, 1, &["urn:long"], BEHIND_NAT);
    let (_, msk_id) = daemon.rotate("urn:long", None);
    let message = smsc.await_accepted(1).remove(0);
    let trigger = phone.trigger(&message);
    assert_eq!((trigger.msk_id.to_string().as_str(), trigger.ext_bcast), ("00020000", Some(management)));
    let total = message.parts.len();
    assert!(total >= 3, "{total} parts");
    let references: HashSet<_> = message.parts.iter().filter_map(concatenation).map(|c| c.0).collect();
    assert_eq!(references.len(), 1, "one reference for all parts");
    for (i, part) in message.parts.iter().enumerate() {
        let (_, parts, place) = concatenation(part).expect("a part");
        assert_eq!((usize::from(parts), usize::from(place)), (total, i + 1));
        assert_eq!(element(part, 5).expect("port addressing")[..2], daemon.port.to_be_bytes());
        assert_eq!((&part["data_coding"], &part["registered_delivery"]), (&json!(4), &json!(1)));
        assert_eq!(part["esm_class"].as_u64().map(|c| c & 0x40), Some(0x40));
        // 140 octets with the header, of 12: UDHL, port addressing and concatenation.
        let octets = part["short_message"].as_str().expect("octets").len() / 2;
        assert!(octets <= 128 && (octets == 128 || i + 1 == total), "part {place} has {octets} octets");
    }
    let delivery = daemon.await_state("the parts' names", |daemon| {
        let all = daemon.deliveries(&phone.terminal.btid);
        all.into_iter().find(|d| d["msk_id"] == msk_id && d["message_ids"] == json!(message.ids))
    });
    assert_eq!(delivery["message_ids"].as_array().map(Vec::len), Some(total));
}

#[test]
fn an_operators_trigger_goes_by_sms_when_that_is_in_the_set_and_ends_with_the_request() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phone = Phone::behind_nat(&daemon, 1);
    assert_eq!(ask(&daemon, &phone, json!({"procedure": "register"})), 202);
    let message = smsc.await_accepted(1).remove(0);
    assert_eq!(phone.trigger(&message).msk_id.to_string(), "00000000", "a registration");
    let trigger = phone.await_delivery(&daemon, "00000000", "sent");
    assert_eq!((&trigger["kind"], &trigger["method"]), (&json!("trigger"), &json!("sms")));
    phone.register(&daemon, &["urn:s"], BEHIND_NAT);
    phone.await_delivery(&daemon, "00000000", "verified");

    let body = json!({"procedure": "msk-request", "service": "urn:s"});
    assert_eq!(ask(&daemon, &phone, body), 202);
    let message = smsc.await_accepted(2).remove(1);
    assert_eq!(phone.trigger(&message).msk_id.to_string(), "00010000");
    phone.pull(&daemon);
    phone.await_delivery(&daemon, "00010000", "verified");

    // With UDP and SMS in the set SMS it is, with neither it is a conflict.
    let both = Phone::registered(&daemon, 2, &["urn:s"], &[0, 1, 2]);
    assert_eq!(ask(&daemon, &both, json!({"procedure": "register"})), 202);
    both.trigger(&smsc.await_accepted(3)[2]);
    let neither = Phone::registered(&daemon, 3, &["urn:s"], &[2]);
    assert_eq!(ask(&daemon, &neither, json!({"procedure": "register"})), 409);
    assert_eq!(smsc.submits().len(), 3);
}

#[test]
fn when_the_attempts_by_udp_are_spent_a_pull_by_sms_is_next() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "udp.first_timeout = \"100ms\"\nudp.attempts = 2");
    let phone = Phone::registered(&daemon, 1, &["urn:s"], &[0, 1, 2]);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    let by_udp = [phone.terminal.receive(), phone.terminal.receive()];
    let trigger = phone.trigger(&smsc.await_accepted(1)[0]);
    assert!(by_udp[0].counter < by_udp[1].counter && by_udp[1].counter < trigger.counter, "T rises");
    assert!(phone.terminal.drain().is_empty(), "two attempts by UDP, no more");
    assert_eq!(phone.pull(&daemon).msk_id.to_string(), msk_id);
    let verified = phone.await_delivery(&daemon, &msk_id, "verified");
    assert_eq!(verified["message_ids"].as_array().map(Vec::len), Some(1));
    assert_eq!(smsc.submits().len(), 1);
}

#[test]
fn a_pull_that_never_comes_is_asked_for_as_often_as_configured_and_then_the_delivery_failed() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.attempts = 2\nsms.pull_timeout = \"1s\"");
    let phone = Phone::behind_nat(&daemon, 1);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    let failed = phone.await_delivery(&daemon, &msk_id, "failed");
    assert_eq!((&failed["error"], &failed["attempts"]), (&json!("no_answer"), &json!(2)));
    let messages = smsc.messages();
    let counters: Vec<_> = messages.iter().map(|m| phone.trigger(m).counter).collect();
    assert!(counters.len() == 2 && counters[0] < counters[1], "{counters:?}");
    // A phone that was off for long pulls when it is on again.
    assert_eq!(phone.pull(&daemon).msk_id.to_string(), msk_id);
    phone.await_delivery(&daemon, &msk_id, "verified");
}

#[test]
fn delivery_receipts_are_kept_on_the_delivery_in_whatever_form_they_come() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phones = Phone::many(&daemon, 3);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    let messages = smsc.await_accepted(3);
    // One that nobody knows is answered like any other.
    smsc.receipt("nobody-knows", "DELIVRD", "both");
    for (phone, form) in phones.iter().zip(["tlv", "text", "both"]) {
        let message = messages.iter().find(|m| m.to == phone.msisdn).expect("its message");
        smsc.receipt(&message.ids[0], "DELIVRD", form);
        let delivery = daemon.await_state(&format!("a receipt as {form}"), |daemon| {
            daemon.deliveries(&phone.terminal.btid).into_iter().find(|d| !d["receipt"].is_null())
        });
        assert_eq!((&delivery["msk_id"], &delivery["state"]), (&json!(msk_id), &json!("sent")));
        assert_eq!(
            (&delivery["receipt"]["state"], &delivery["message_ids"]),
            (&json!("delivered"), &json!(message.ids))
        );
        assert!(delivery["receipt"]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{delivery}");
        phone.pull(&daemon);
        let verified = phone.await_delivery(&daemon, &msk_id, "verified");
        assert_eq!(verified["receipt"]["state"], "delivered", "it is still known after the pull");
    }
    let answers = smsc.await_events("deliver_sm_resp", 4, |e| e["command"] == "deliver_sm_resp");
    assert!(answers.iter().all(|a| a["command_status"] == 0), "{answers:?}");
}

#[test]
fn a_receipt_that_overtakes_the_answer_to_its_message_finds_its_delivery() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    smsc.tell(json!({"do": "delay", "ms": 3000}));
    let phone = Phone::behind_nat(&daemon, 1);
    daemon.rotate("urn:s", None);
    daemon.await_state("the message at the centre", |_| (!smsc.submits().is_empty()).then_some(()));
    smsc.receipt(&smsc.id(1), "DELIVRD", "both");
    daemon.await_metric("ltkmd_sms_receipts_total{state=\"delivered\"}", 1.0);
    daemon.await_state("the receipt", |daemon| {
        daemon.deliveries(&phone.terminal.btid).into_iter().find(|d| d["receipt"]["state"] == "delivered")
    });
}

#[test]
fn a_receipt_that_says_the_message_is_lost_ends_the_wait_for_the_pull() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phones = Phone::many(&daemon, 4);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    let messages = smsc.await_accepted(4);
    let lost = [
        ("UNDELIV", "undeliverable"),
        ("EXPIRED", "expired"),
        ("REJECTD", "rejected"),
        ("DELETED", "deleted"),
    ];
    for (phone, (state, name)) in phones.iter().zip(lost) {
        let message = messages.iter().find(|m| m.to == phone.msisdn).expect("its message");
        smsc.receipt(&message.ids[0], state, "both");
        let failed = phone.await_delivery(&daemon, &msk_id, "failed");
        assert_eq!(
            (&failed["error"], &failed["receipt"]["state"]),
            (&json!("sms_undelivered"), &json!(name))
        );
    }
    assert_eq!(smsc.submits().len(), 4, "no second message to a number that cannot be reached");
}

#[test]
fn no_short_message_carries_a_key_whatever_the_set_and_the_occasion() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "udp.first_timeout = \"100ms\"\nudp.attempts = 1");
    let sets: [&[u8]; 5] = [&[1], &[1, 2], &[0, 1], &[0, 1, 2], &[1, 77]];
    let phones: Vec<_> = sets.iter().enumerate().map(|(n, _)| Phone::new(&daemon, n)).collect();
    for (phone, types) in phones.iter().zip(sets) {
        phone.terminal.registered(&["urn:s"], Some(types));
    }
    daemon.rotate("urn:s", None);
    for phone in &phones {
        assert_eq!(ask(&daemon, phone, json!({"procedure": "register"})), 202);
    }
    let await_each = |phones: &[Phone]| {
        smsc.await_seen("a message for each", |events| {
            let to = |phone: &Phone| events.iter().any(|e| e["destination_addr"] == json!(phone.msisdn));
            phones.iter().all(to).then_some(())
        });
    };
    await_each(&phones);
    for phone in &phones {
        phone.terminal.deregistered(&["urn:s"]);
    }
    daemon.put_service("urn:last", 2, json!({}));
    let last = [Phone::registered(&daemon, 99, &["urn:last"], BEHIND_NAT)];
    daemon.rotate("urn:last", None);
    await_each(&last);
    for message in smsc.messages() {
        let phone = phones.iter().chain(&last).find(|p| p.msisdn == message.to).expect("one of them");
        phone.trigger(&message);
    }
}
