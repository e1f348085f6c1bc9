//! Messages and receipts over a link that holds.

use std::time::{Duration, Instant};

use rusmpp_core::pdus::owned::{DataSm, DeliverSm};
use rusmpp_core::tlvs::owned::MessageDeliveryRequestTlvValue as DeliveryTlv;
use rusmpp_core::tlvs::owned::MessageSubmissionRequestTlvValue as SubmissionTlv;
use rusmpp_core::types::owned::{AnyOctetString, OctetString};
use rusmpp_core::values::owned::MessagePayload;
use rusmpp_core::values::{EsmClass, MessageState};

use super::super::pdu::{CommandId, Pdu};
use super::super::udh::{self, Ports};
use super::super::{Gateway, SmsSettings};
use super::centre::{Centre, Rig, Session, id, ltkm, message, settings, soon, tag};
use crate::delivery::ReceiptState;
use crate::engine::{ShortMessage, SmsEvent, SmsOutbox};
use crate::metrics::Metrics;

#[tokio::test]
async fn a_trigger_in_parts_arrives_as_it_was_handed_over() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    soon(rig.gateway.room()).await;
    let long = ltkm(200, false);
    assert!(long.len() > udh::ALONE);
    rig.gateway.submit(ShortMessage { ltkm: long.clone(), ..message(1) });
    let mut joined = Vec::new();
    for (number, name) in [(1, "m1"), (2, "m2"), (3, "m3")] {
        let (sequence, submit) = session.submission().await;
        assert_eq!(submit.destination_addr.as_str(), "4917012345678");
        assert_eq!(u8::from(submit.esm_class), 0x40);
        let (header, body) = udh::parse(submit.short_message()).unwrap();
        assert_eq!(header.ports, Some(Ports { destination: 4359, source: 4359 }));
        assert_eq!(header.part.map(|p| (p.number, p.total)), Some((number, 3)));
        joined.extend_from_slice(body);
        session.answer(sequence, 0, name).await;
    }
    assert_eq!(joined, long);
    let ids = vec![id("m1"), id("m2"), id("m3")];
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(1), ids });
    assert_eq!(rig.metric("ltkmd_sms_submitted_total{outcome=\"accepted\"}"), 3);
    rig.stop(session).await;
}

#[tokio::test]
async fn no_more_submissions_are_under_way_than_the_window_has() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    soon(rig.gateway.room()).await;
    // More than there is room for, as nobody should: the window holds all the same.
    (1..=5).for_each(|t| rig.gateway.submit(message(t)));
    let (first, _) = session.submission().await;
    session.submission().await;
    session.submission().await;
    session.quiet().await;
    assert!(!rig.has_room().await);
    assert_eq!(rig.metric("ltkmd_sms_in_flight"), 3);
    session.answer(first, 0, "m1").await;
    session.submission().await;
    session.quiet().await;
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(1), ids: vec![id("m1")] });
    drop(session);
}

#[tokio::test]
async fn a_throttled_message_comes_again_after_growing_waits() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    rig.submit(1).await;
    let mut waits = Vec::new();
    for status in [0x58, 0x58, 0] {
        let (sequence, _) = session.submission().await;
        waits.push(Instant::now());
        session.answer(sequence, status, "m1").await;
    }
    assert!(waits[1] - waits[0] >= Duration::from_millis(500));
    assert!(waits[2] - waits[1] >= Duration::from_millis(1000));
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(1), ids: vec![id("m1")] });
    assert_eq!(rig.metric("ltkmd_sms_submitted_total{outcome=\"throttled\"}"), 2);
    assert_eq!(rig.metric("ltkmd_sms_submitted_total{outcome=\"accepted\"}"), 1);
    rig.stop(session).await;
}

#[tokio::test]
async fn a_bad_number_is_refused_and_the_next_message_goes() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    rig.submit(1).await;
    let (sequence, _) = session.submission().await;
    // An answer that refuses may have no body (SMPP 3.4 §4.4.2).
    session.raw(&[&[0, 0, 0, 16, 0x80, 0, 0, 4, 0, 0, 0, 0x0B][..], &sequence.to_be_bytes()].concat()).await;
    assert_eq!(rig.event().await, SmsEvent::Refused { tag: tag(1), status: 0x0B });
    assert_eq!(rig.metric("ltkmd_sms_submitted_total{outcome=\"failed\"}"), 1);
    rig.submit(2).await;
    let (sequence, _) = session.submission().await;
    session.answer(sequence, 0, "").await;
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(2), ids: vec![] }, "it need not have an id");
    rig.stop(session).await;
}

#[tokio::test]
async fn an_ltkm_with_a_key_never_goes() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    soon(rig.gateway.room()).await;
    let mut cut = ltkm(20, false);
    cut.pop();
    for octets in [ltkm(20, true), cut, b"no MIKEY".to_vec(), Vec::new()] {
        rig.gateway.submit(ShortMessage { ltkm: octets, ..message(1) });
        assert_eq!(rig.event().await, SmsEvent::Refused { tag: tag(1), status: 0x65 });
    }
    session.quiet().await;
    assert_eq!(rig.stop(session).await, []);
}

async fn receipt(session: &mut Session, pdu: Pdu) {
    let id = pdu.command_id();
    let sequence = session.ask(pdu).await;
    let answer = session.expect(id.matching_response()).await;
    assert_eq!((answer.status, answer.sequence), (0, sequence));
}

fn text(text: &str) -> Pdu {
    let message = OctetString::from_slice(text.as_bytes()).unwrap();
    DeliverSm::builder().esm_class(EsmClass::from(0x04)).short_message(message).build().into()
}

#[tokio::test]
async fn receipts_are_told_and_answered_in_whatever_form_they_come() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    rig.submit(1).await;
    let (sequence, _) = session.submission().await;
    session.answer(sequence, 0, "1A2B").await;
    rig.event().await;

    receipt(&mut session, text("id:7 sub:001 dlvrd:000 stat:UNDELIV err:001 text:")).await;
    let undeliverable = ReceiptState::Undeliverable;
    assert_eq!(rig.event().await, SmsEvent::Receipt { id: id("7"), state: undeliverable });
    receipt(&mut session, text("id:6699 stat:DELIVRD")).await;
    let delivered = ReceiptState::Delivered;
    assert_eq!(rig.event().await, SmsEvent::Receipt { id: id("1A2B"), state: delivered }, "6699 is 0x1A2B");
    let tlvs = DeliverSm::builder()
        .esm_class(EsmClass::from(0x04))
        .push_tlv(DeliveryTlv::ReceiptedMessageId("x-1".parse().unwrap()))
        .push_tlv(DeliveryTlv::MessageState(MessageState::Expired))
        .build();
    receipt(&mut session, tlvs.into()).await;
    assert_eq!(rig.event().await, SmsEvent::Receipt { id: id("x-1"), state: ReceiptState::Expired });
    let payload = MessagePayload::new(AnyOctetString::from_static_slice(b"id:8 stat:REJECTD"));
    let data = DataSm::builder()
        .esm_class(EsmClass::from(0x04))
        .push_tlv(SubmissionTlv::MessagePayload(payload))
        .build();
    receipt(&mut session, data.into()).await;
    assert_eq!(rig.event().await, SmsEvent::Receipt { id: id("8"), state: ReceiptState::Rejected });

    receipt(&mut session, text("unreadable")).await;
    receipt(&mut session, DeliverSm::default().into()).await;
    for (state, count) in [("undeliverable", 1), ("delivered", 1), ("unreadable", 1), ("unknown", 0)] {
        assert_eq!(rig.metric(&format!("ltkmd_sms_receipts_total{{state=\"{state}\"}}")), count, "{state}");
    }
    assert_eq!(rig.stop(session).await, []);
}

#[tokio::test]
async fn a_centre_keeps_its_receipts_while_too_many_wait_for_their_reader() {
    const RECEIPTS: usize = 1500;
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    soon(rig.gateway.room()).await;
    let mut taken = 0;
    for n in 0..RECEIPTS {
        session.ask(text(&format!("id:{n} stat:DELIVRD"))).await;
        match session.expect(CommandId::DeliverSmResp).await.status {
            0 => taken += 1,
            0x64 => {}
            status => panic!("{status:#x}"),
        }
    }
    assert!((1024..1400).contains(&taken), "{taken}");
    assert!(!rig.has_room().await, "who does not read gets no room");
    for n in 0..taken {
        assert!(matches!(rig.event().await, SmsEvent::Receipt { id: got, .. } if got == id(&n.to_string())));
    }
    soon(rig.gateway.room()).await;
    receipt(&mut session, text("id:again stat:DELIVRD")).await;
    assert!(matches!(rig.event().await, SmsEvent::Receipt { id: got, .. } if got == id("again")));
    assert_eq!(rig.metric("ltkmd_sms_receipts_total{state=\"delivered\"}"), taken + 1);
    rig.stop(session).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_the_answers_of_what_is_under_way() {
    let centre = Centre::new().await;
    let rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    for t in 1..=3 {
        rig.submit(t).await;
    }
    let sequences =
        [session.submission().await.0, session.submission().await.0, session.submission().await.0];
    rig.shutdown.send_replace(true);
    session.quiet().await;
    for sequence in sequences {
        session.answer(sequence, 0, &format!("m{sequence}")).await;
    }
    session.unbound().await;
    let events = rig.ended().await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|e| matches!(e, SmsEvent::Accepted { .. })), "{events:?}");
}

#[tokio::test]
async fn a_shutdown_gives_back_what_stays_without_an_answer() {
    let centre = Centre::new().await;
    let rig = Rig::start(SmsSettings { drain: Duration::from_millis(50), ..settings(&[centre.smsc()]) });
    let mut session = centre.bound().await;
    for t in 1..=3 {
        rig.submit(t).await;
    }
    let (first, _) = session.submission().await;
    session.submission().await;
    let (third, _) = session.submission().await;
    session.answer(first, 0, "m1").await;
    rig.shutdown.send_replace(true);
    let unbind = session.expect(CommandId::Unbind).await;
    // Between unbind and its answer there is still time.
    session.answer(third, 0, "m3").await;
    session.write(0, unbind.sequence, Pdu::UnbindResp).await;
    let gateway = std::sync::Arc::clone(&rig.gateway);
    let metrics = std::sync::Arc::clone(&rig.metrics);
    drop(gateway);
    let events = rig.ended().await;
    let accepted = |t, name| SmsEvent::Accepted { tag: tag(t), ids: vec![id(name)] };
    assert_eq!(events, [accepted(1, "m1"), accepted(3, "m3"), SmsEvent::Unsent { tag: tag(2) }]);
    assert!(metrics.encode().contains("ltkmd_sms_submitted_total{outcome=\"failed\"} 1"));
}

#[tokio::test]
async fn what_is_handed_over_without_a_link_or_after_the_end_is_given_back() {
    let nobody = Centre::new().await.smsc();
    let mut rig = Rig::start(settings(&[nobody]));
    rig.gateway.submit(message(1));
    assert_eq!(rig.event().await, SmsEvent::Unsent { tag: tag(1) });
    assert!(!rig.has_room().await);
    let gateway = std::sync::Arc::clone(&rig.gateway);
    rig.shutdown.send_replace(true);
    let ended = rig.ended();
    tokio::pin!(ended);
    // The last event is there once the gateway has ended; the reader hears it before its channel closes.
    gateway.submit(message(2));
    drop(gateway);
    assert_eq!(ended.await, [SmsEvent::Unsent { tag: tag(2) }]);
}

#[tokio::test]
async fn a_gateway_that_never_ran_takes_nothing() {
    let metrics = std::sync::Arc::new(Metrics::new());
    let (gateway, mut events) = Gateway::new(settings(&[]), metrics);
    let (shutdown, stop) = tokio::sync::watch::channel(true);
    gateway.submit(message(1));
    soon(std::sync::Arc::clone(&gateway).run(stop)).await;
    assert_eq!(events.recv().await, Some(SmsEvent::Unsent { tag: tag(1) }));
    drop(shutdown);
}
