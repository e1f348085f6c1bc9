//! Numbers that are missing, wrong or refused; no storm whatever happens.

use serde_json::json;

use crate::harness::encoded;
use crate::peer::Smsc;
use crate::phone::{BEHIND_NAT, Phone, daemon, put_subscriber};

fn held_back(reason: &str) -> String {
    format!("ltkmd_sms_held_back_total{{reason=\"{reason}\"}}")
}

#[test]
fn a_subscriber_without_a_number_fails_with_that_reason_and_nobody_else_waits() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phones = Phone::many(&daemon, 2);
    assert_eq!(put_subscriber(&daemon, &phones[0].terminal.subscriber, json!(null)).status, 200);
    let (job, msk_id) = daemon.rotate("urn:s", None);
    let failed = phones[0].await_delivery(&daemon, &msk_id, "failed");
    assert_eq!((&failed["error"], &failed["attempts"]), (&json!("no_msisdn"), &json!(0)));
    let messages = smsc.await_accepted(1);
    phones[1].trigger(&messages[0]);
    daemon.await_metric("ltkmd_ltkm_failed_total{reason=\"no_msisdn\"}", 1.0);
    daemon.await_state("the job's counts", |daemon| {
        (daemon.get(&format!("/v1/jobs/{job}"))["failed"] == 1).then_some(())
    });
    // The key is there all the same for who asks, and with a number the next update comes by SMS.
    phones[0].pull(&daemon);
    phones[0].await_delivery(&daemon, &msk_id, "verified");
    assert_eq!(put_subscriber(&daemon, &phones[0].terminal.subscriber, json!(phones[0].msisdn)).status, 200);
    daemon.rotate("urn:s", None);
    smsc.await_seen("its message", |events| {
        events.iter().any(|e| e["destination_addr"] == json!(phones[0].msisdn)).then_some(())
    });
}

#[test]
fn a_number_that_is_none_is_refused_by_name() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    for wrong in ["", "+", "49x", "0049 170", "4917+1", "1234567890123456", "４９１７", "4917\u{0}"] {
        let reply = put_subscriber(&daemon, "wrong@ims.example.com", json!(wrong));
        assert_eq!(
            (reply.status, reply.text().contains("msisdn")),
            (422, true),
            "{wrong:?}: {}",
            reply.text()
        );
    }
    let reply = put_subscriber(&daemon, "wrong@ims.example.com", json!(491700));
    assert_eq!((reply.status, reply.text().contains("msisdn")), (422, true), "{}", reply.text());
    let path = format!("/v1/subscribers/{}", encoded("wrong@ims.example.com"));
    assert_eq!(daemon.admin("GET", &path, None).status, 404, "nothing of it was kept");
    assert_eq!(put_subscriber(&daemon, "right@ims.example.com", json!("+491701234567")).status, 201);
}

#[test]
fn a_number_that_the_centre_refuses_fails_at_once_and_the_others_get_theirs() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "");
    let phones = Phone::many(&daemon, 3);
    let refused = json!({"do": "answer_submits", "status": "ESME_RINVDSTADR", "to": phones[1].msisdn});
    smsc.tell(refused);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    let failed = phones[1].await_delivery(&daemon, &msk_id, "failed");
    assert_eq!((&failed["error"], &failed["message_ids"]), (&json!("sms_refused"), &json!([])));
    let mut reached: Vec<_> = smsc.await_accepted(2).into_iter().map(|m| m.to).collect();
    reached.sort();
    assert_eq!(reached, [phones[0].msisdn.clone(), phones[2].msisdn.clone()]);
    daemon.await_metric("ltkmd_sms_submitted_total{outcome=\"failed\"}", 1.0);
    daemon.await_metric("ltkmd_ltkm_failed_total{reason=\"sms_refused\"}", 1.0);
    assert_eq!(smsc.submits().len(), 3, "a refused one is not sent again");
    assert_eq!(smsc.events().iter().filter(|e| e["event"] == "bound").count(), 1, "the link stays");
}

#[test]
fn ten_key_updates_in_a_row_send_a_silent_terminal_one_message_within_the_interval() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.terminal_interval = \"1h\"");
    let phone = Phone::behind_nat(&daemon, 1);
    let mut newest = String::new();
    for n in 0..10 {
        newest = daemon.rotate("urn:s", None).1;
        phone.await_delivery(&daemon, &newest, if n == 0 { "sent" } else { "queued" });
    }
    daemon.await_state("what was held back", |d| (d.metric(&held_back("interval")) >= 9.0).then_some(()));
    // Another one's message goes out beside it: the limit is one terminal's.
    let other = Phone::registered(&daemon, 2, &["urn:s"], BEHIND_NAT);
    daemon.rotate("urn:s", None);
    smsc.await_accepted(2);
    assert_eq!((phone.messages(&smsc).len(), other.messages(&smsc).len()), (1, 1));
    let newer = phone.pull(&daemon).msk_id.to_string();
    assert!(newer > newest, "the one pull brings the newest key");
    phone.await_delivery(&daemon, &newest, "superseded");
}

#[test]
fn a_terminal_that_had_its_share_of_the_day_waits_for_the_next() {
    let smsc = Smsc::start();
    let daemon = daemon(&[&smsc], "sms.terminal_daily = 3");
    let phone = Phone::behind_nat(&daemon, 1);
    for n in 1..=5 {
        daemon.rotate("urn:s", None);
        if n <= 3 {
            smsc.await_accepted(n);
        } else {
            let series = held_back("daily_cap");
            daemon.await_state("the cap", |d| (d.metric(&series) >= (n - 3) as f64).then_some(()));
        }
        phone.pull(&daemon);
    }
    assert_eq!(phone.messages(&smsc).len(), 3);
}

#[test]
fn what_waits_for_one_terminal_becomes_one_message() {
    let smsc = Smsc::start();
    smsc.tell(json!({"do": "refuse_binds", "status": "ESME_RBINDFAIL"}));
    let daemon = daemon(&[&smsc], "");
    daemon.put_service("urn:t", 2, json!({}));
    let phone = Phone::registered(&daemon, 1, &["urn:s", "urn:t"], BEHIND_NAT);
    let ids: Vec<_> = ["urn:s", "urn:t"].map(|service| daemon.rotate(service, None).1).into();
    for id in &ids {
        phone.await_delivery(&daemon, id, "queued");
    }
    smsc.tell(json!({"do": "refuse_binds", "status": null}));
    let trigger = phone.trigger(&smsc.await_accepted(1)[0]);
    assert_eq!(trigger.msk_id.to_string(), "00000000", "a registration brings both");
    daemon.await_metric(&held_back("coalesced"), 1.0);
    phone.register(&daemon, &["urn:s", "urn:t"], BEHIND_NAT);
    for id in &ids {
        phone.await_delivery(&daemon, id, "verified");
    }
    assert_eq!(smsc.submits().len(), 1);
}

#[test]
fn who_needs_no_message_any_more_when_its_turn_comes_is_sent_none() {
    let smsc = Smsc::start();
    smsc.tell(json!({"do": "refuse_binds", "status": "ESME_RBINDFAIL"}));
    let daemon = daemon(&[&smsc], "");
    let phones = Phone::many(&daemon, 5);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    for phone in &phones {
        phone.await_delivery(&daemon, &msk_id, "queued");
    }
    let [pulls, leaves, is_deleted, declares_http, stays] = &phones[..] else {
        unreachable!("there are five")
    };
    pulls.pull(&daemon);
    leaves.terminal.deregistered(&["urn:s"]);
    let path = format!("/v1/subscribers/{}", encoded(&is_deleted.terminal.subscriber));
    assert_eq!(daemon.admin("DELETE", &path, None).status, 204);
    declares_http.terminal.registered(&["urn:s"], Some(&[2]));
    // A number that changed while it waited is the one that is sent to.
    let msisdn = json!("491799999999");
    assert_eq!(put_subscriber(&daemon, &stays.terminal.subscriber, msisdn.clone()).status, 200);
    smsc.tell(json!({"do": "refuse_binds", "status": null}));
    let message = smsc.await_accepted(1).remove(0);
    assert_eq!(json!(message.to), msisdn);
    stays.terminal.open(&message.octets);
    // What comes later is sent later: the others would have had their turn before.
    daemon.put_service("urn:t", 2, json!({}));
    let last = Phone::registered(&daemon, 9, &["urn:t"], BEHIND_NAT);
    daemon.rotate("urn:t", None);
    last.trigger(&smsc.await_accepted(2)[1]);
    assert_eq!(smsc.submits().len(), 2);
}

#[test]
fn what_no_turn_came_for_in_time_fails_with_that_reason() {
    let smsc = Smsc::start();
    smsc.tell(json!({"do": "refuse_binds", "status": "ESME_RBINDFAIL"}));
    let daemon = daemon(&[&smsc], "sms.patience = \"1s\"");
    let phone = Phone::behind_nat(&daemon, 1);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    let failed = phone.await_delivery(&daemon, &msk_id, "failed");
    assert_eq!(failed["error"], "sms_late");
    smsc.tell(json!({"do": "refuse_binds", "status": null}));
    smsc.await_bound(1);
    phone.pull(&daemon);
    phone.await_delivery(&daemon, &msk_id, "verified");
    assert!(smsc.submits().is_empty());
}

#[test]
fn when_sms_is_switched_off_after_the_registration_no_message_leaves_and_the_rest_of_the_set_is_used() {
    let smsc = Smsc::start();
    smsc.tell(json!({"do": "refuse_binds", "status": "ESME_RBINDFAIL"}));
    let mut daemon = daemon(&[&smsc], "");
    let mut behind_nat = Phone::behind_nat(&daemon, 1);
    let mut sms_alone = Phone::registered(&daemon, 2, &["urn:s"], &[1]);
    let (_, waiting) = daemon.rotate("urn:s", None);
    behind_nat.await_delivery(&daemon, &waiting, "queued");
    assert_eq!(daemon.terminate().code(), Some(0));
    let text = std::fs::read_to_string(daemon.config_path()).expect("the configuration is there");
    let mut settings: toml::Table = toml::from_str(&text).expect("it is TOML");
    settings.remove("sms").expect("SMS was on");
    std::fs::write(daemon.config_path(), settings.to_string()).expect("written");
    smsc.tell(json!({"do": "refuse_binds", "status": null}));
    daemon.restart();
    behind_nat.terminal.follow(&daemon);
    sms_alone.terminal.follow(&daemon);

    assert_eq!(behind_nat.await_delivery(&daemon, &waiting, "failed")["error"], "sms_off");
    let (_, msk_id) = daemon.rotate("urn:s", None);
    behind_nat.await_delivery(&daemon, &msk_id, "awaiting_pull");
    assert_eq!(sms_alone.await_delivery(&daemon, &msk_id, "failed")["error"], "no_method");
    let path = format!("/v1/terminals/{}/trigger", encoded(&sms_alone.terminal.btid));
    let reply = daemon.admin("POST", &path, Some(&json!({"procedure": "register"})));
    assert_eq!(reply.status, 409, "{}", reply.text());
    behind_nat.pull(&daemon);
    behind_nat.await_delivery(&daemon, &msk_id, "verified");
    assert!(smsc.events().iter().all(|e| e["event"] != "bound"), "nobody binds");
    assert_eq!(daemon.metric("ltkmd_smsc_up"), 0.0);
}
