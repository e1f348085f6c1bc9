//! Centres that refuse, answer nonsense or are gone: told clearly, tried again, nothing lost.

use std::net::TcpListener;

use serde_json::json;

use crate::harness::{Daemon, free_port, http};
use crate::peer::{PASSWORD, Smsc};
use crate::phone::{Phone, all_triggered, daemon, settings};

/// That it is ready, with SMS or without.
fn is_ready(daemon: &Daemon) -> bool {
    http::request(daemon.admin, "GET", "/readyz", &[], b"").status == 200
}

/// Waits for the warning that names this centre and says this; it tells no password.
fn await_warning(daemon: &mut Daemon, smsc: &str, words: &str) {
    loop {
        let line = daemon.await_log(smsc);
        if line.contains(words) {
            assert!(line.contains("\"WARN\"") || line.contains("\"ERROR\""), "{line}");
            break;
        }
    }
    let told: Vec<_> = daemon.logged.iter().filter(|l| l.contains(PASSWORD)).collect();
    assert!(told.is_empty(), "a password in the log: {told:?}");
}

#[test]
fn a_refused_bind_is_told_with_centre_and_status_and_tried_until_it_is_accepted() {
    let smsc = Smsc::start();
    smsc.tell(json!({"do": "refuse_binds", "status": "ESME_RBINDFAIL"}));
    let mut daemon = daemon(&[&smsc], "");
    await_warning(&mut daemon, &smsc.address(), "ESME_RBINDFAIL");
    let phone = Phone::behind_nat(&daemon, 1);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    smsc.await_events("a refused bind", 2, |e| e["event"] == "refused");
    assert_eq!((daemon.metric("ltkmd_smsc_up"), is_ready(&daemon)), (0.0, true));
    let waiting = phone.await_delivery(&daemon, &msk_id, "queued");
    assert_eq!((&waiting["method"], &waiting["attempts"]), (&json!("sms"), &json!(0)));
    assert!(smsc.submits().is_empty(), "nothing is sent unbound");

    smsc.tell(json!({"do": "refuse_binds", "status": null}));
    phone.trigger(&smsc.await_accepted(1)[0]);
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    daemon.await_metric("ltkmd_sms_held_back_total{reason=\"room\"}", 1.0);
    phone.pull(&daemon);
    phone.await_delivery(&daemon, &msk_id, "verified");
}

#[test]
fn a_wrong_password_is_told_without_the_password() {
    let smsc = Smsc::start();
    smsc.tell(json!({"do": "account", "system_id": "ltkmd", "password": "another"}));
    let mut daemon = daemon(&[&smsc], "log.filter = \"info,ltkmd=trace\"");
    await_warning(&mut daemon, &smsc.address(), "ESME_RINVPASWD");
    smsc.await_events("a refused bind", 2, |e| e["event"] == "refused");
    assert_eq!((daemon.metric("ltkmd_smsc_up"), is_ready(&daemon)), (0.0, true));
    let log = daemon.end_and_read_log();
    assert!(log.iter().all(|line| !line.contains(PASSWORD)), "a password in the log");
}

/// Octets that no centre sends.
const NONSENSE: [(&str, &str); 6] = [
    ("another protocol", "485454502f312e31203430302042616420526571756573740d0a0d0a"),
    ("a PDU of 4 GiB", "ffffffff8000000900000000000000010000"),
    ("a PDU shorter than its header", "0000000f80000009000000000000000100"),
    ("a length of 0", "00000000000000000000000000000000"),
    ("an unknown command", "00000010f0f0f0f00000000000000001"),
    ("an answer to something else", "00000015800000090000000000000063736d736300"),
];

#[test]
fn centres_that_answer_a_bind_with_nonsense_are_told_and_passed_over() {
    let wrong: Vec<_> = NONSENSE
        .iter()
        .map(|(_, hex)| {
            let smsc = Smsc::start();
            smsc.tell(json!({"do": "nonsense", "on": "bind_transceiver", "hex": hex}));
            smsc
        })
        .collect();
    let right = Smsc::start();
    let centres: Vec<_> = wrong.iter().chain([&right]).collect();
    let mut daemon = daemon(&centres, "sms.response_timeout = \"1s\"");
    for smsc in &wrong {
        await_warning(&mut daemon, &smsc.address(), "");
    }
    right.await_bound(1);
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    let phone = Phone::behind_nat(&daemon, 1);
    daemon.rotate("urn:s", None);
    phone.trigger(&right.await_accepted(1)[0]);
    assert!(wrong.iter().all(|smsc| smsc.submits().is_empty()));
}

#[test]
fn while_the_only_centre_answers_nonsense_the_daemon_is_ready_and_messages_wait() {
    let smsc = Smsc::start();
    smsc.tell(json!({"do": "nonsense", "on": "bind_transceiver", "hex": NONSENSE[0].1}));
    let mut daemon = daemon(&[&smsc], "");
    await_warning(&mut daemon, &smsc.address(), "");
    let phone = Phone::behind_nat(&daemon, 1);
    let (_, msk_id) = daemon.rotate("urn:s", None);
    phone.await_delivery(&daemon, &msk_id, "queued");
    smsc.await_events("nonsense", 2, |e| e["event"] == "nonsense");
    assert_eq!((daemon.metric("ltkmd_smsc_up"), is_ready(&daemon)), (0.0, true));
    smsc.tell(json!({"do": "nonsense", "on": null}));
    phone.trigger(&smsc.await_accepted(1)[0]);
    daemon.await_metric("ltkmd_smsc_up", 1.0);
}

#[test]
fn a_message_answered_with_nonsense_is_sent_again_on_a_new_link() {
    let sent_again = |what: &str, hex: &str| {
        let smsc = Smsc::start();
        let daemon = daemon(&[&smsc], "sms.response_timeout = \"500ms\"");
        let phone = Phone::behind_nat(&daemon, 1);
        smsc.await_bound(1);
        smsc.tell(json!({"do": "nonsense", "on": "submit_sm", "hex": hex, "times": 1}));
        daemon.rotate("urn:s", None);
        let again = smsc.await_submits(2).remove(1);
        assert_ne!(again["link"], 1, "{what}: the link that cannot be read any more is left");
        daemon.await_metric("ltkmd_sms_submitted_total{outcome=\"accepted\"}", 1.0);
        all_triggered(&[phone], &smsc.messages());
    };
    std::thread::scope(|scope| {
        for (what, hex) in NONSENSE {
            scope.spawn(move || sent_again(what, hex));
        }
    });
}

#[test]
fn when_the_first_centre_is_gone_the_next_one_takes_over() {
    let mut first = Smsc::start();
    let second = Smsc::start();
    let daemon = daemon(&[&first, &second], "");
    let phones = Phone::many(&daemon, 2);
    first.await_bound(1);
    daemon.rotate("urn:s", None);
    all_triggered(&phones, &first.await_accepted(2));
    assert!(second.events().iter().all(|e| e["event"] != "bound"), "the first of the list is preferred");
    for phone in &phones {
        phone.pull(&daemon);
    }

    first.tell(json!({"do": "hold"}));
    let (_, msk_id) = daemon.rotate("urn:s", None);
    first.await_submits(4);
    first.kill();
    second.await_bound(1);
    all_triggered(&phones, &second.await_accepted(2));
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    for phone in &phones {
        phone.pull(&daemon);
        phone.await_delivery(&daemon, &msk_id, "verified");
    }
    let of_both: Vec<_> = first.messages().into_iter().chain(second.messages()).collect();
    all_triggered(&phones, &of_both);
}

#[test]
fn a_centre_that_takes_the_connection_and_says_nothing_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let smsc = Smsc::start();
    let silent_at = silent.local_addr().expect("bound").to_string();
    let settings = settings(&[&smsc], "sms.response_timeout = \"300ms\"");
    let settings = settings
        .replace(&format!("[{:?}]", smsc.url()), &format!("[\"smpp://{silent_at}\", {:?}]", smsc.url()));
    let mut daemon = Daemon::start_with(&settings);
    daemon.put_service("urn:s", 1, json!({}));
    await_warning(&mut daemon, &silent_at, "");
    smsc.await_bound(1);
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    let phone = Phone::behind_nat(&daemon, 1);
    daemon.rotate("urn:s", None);
    phone.trigger(&smsc.await_accepted(1)[0]);
}

#[test]
fn a_centre_is_bound_to_by_tls_when_its_authority_is_trusted() {
    let smsc = Smsc::start_tls();
    let mut daemon = daemon(&[&smsc], &format!("sms.tls_ca = {:?}", smsc.certificate()));
    daemon.await_metric("ltkmd_smsc_up", 1.0);
    let phone = Phone::behind_nat(&daemon, 1);
    daemon.rotate("urn:s", None);
    phone.trigger(&smsc.await_accepted(1)[0]);
    phone.pull(&daemon);
    assert_eq!(daemon.terminate().code(), Some(0));
    smsc.await_event("unbind", |e| e["command"] == "unbind");
}

#[test]
fn a_centre_whose_certificate_nobody_vouches_for_never_sees_the_password() {
    let (smsc, other) = (Smsc::start_tls(), Smsc::start_tls());
    let mut daemon = daemon(&[&smsc], &format!("sms.tls_ca = {:?}", other.certificate()));
    await_warning(&mut daemon, &smsc.address(), "certificate");
    assert_eq!((daemon.metric("ltkmd_smsc_up"), is_ready(&daemon)), (0.0, true));
    assert!(smsc.events().iter().all(|e| e["event"] != "pdu"), "{:?}", smsc.events());
}

#[test]
fn a_centre_that_nobody_runs_yet_is_told_and_bound_to_when_it_comes() {
    let gone = free_port();
    let other = Smsc::start();
    let settings = settings(&[&other], "").replace(&other.port.to_string(), &gone.to_string());
    let mut daemon = Daemon::start_with(&settings);
    daemon.put_service("urn:s", 1, json!({}));
    await_warning(&mut daemon, &format!("127.0.0.1:{gone}"), "");
    assert_eq!((daemon.metric("ltkmd_smsc_up"), is_ready(&daemon)), (0.0, true));
    let phone = Phone::behind_nat(&daemon, 1);
    daemon.rotate("urn:s", None);
    let smsc = Smsc::start_at(gone);
    phone.trigger(&smsc.await_accepted(1)[0]);
    daemon.await_metric("ltkmd_smsc_up", 1.0);
}
