//! Centres that break off or do not keep to SMPP: nothing is lost, nothing panics, the daemon comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::SmsSettings;
use super::super::pdu::{CommandId, Pdu};
use super::centre::{Centre, Rig, Session, id, message, settings, soon, tag};
use crate::engine::{SmsEvent, SmsOutbox};

#[tokio::test]
async fn a_link_that_breaks_gives_back_its_window_and_comes_again() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    for t in 1..=3 {
        rig.submit(t).await;
        session.submission().await;
    }
    drop(session);
    let mut back = Vec::new();
    for _ in 0..3 {
        let SmsEvent::Unsent { tag } = rig.event().await else { panic!("they are not sent") };
        back.push(tag.t);
    }
    back.sort_unstable();
    assert_eq!(back, [1, 2, 3]);
    assert_eq!(rig.metric("ltkmd_sms_submitted_total{outcome=\"failed\"}"), 3);
    let mut session = centre.bound().await;
    rig.submit(4).await;
    let (sequence, _) = session.submission().await;
    session.answer(sequence, 0, "m4").await;
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(4), ids: vec![id("m4")] });
    assert_eq!(rig.metric("ltkmd_smsc_up"), 1);
    rig.stop(session).await;
}

fn head(length: u32, id: u32, status: u32, sequence: u32) -> Vec<u8> {
    [length, id, status, sequence].into_iter().flat_map(u32::to_be_bytes).collect()
}

#[tokio::test]
async fn nonsense_ends_the_link_and_nothing_else() {
    let answer_nothing = |id| head(16, id, 0, 0x7FFF_0000);
    let nonsense: Vec<(&str, Vec<u8>)> = vec![
        ("a length below a header", head(15, 0x15, 0, 1)),
        ("no length at all", vec![0; 64]),
        ("a huge length", head(u32::MAX, 5, 0, 1)),
        ("a length above the bound", head(65_537, 5, 0, 1)),
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("an answer to no submission", answer_nothing(0x8000_0004)),
        ("an answer to no enquire_link", answer_nothing(0x8000_0015)),
        ("an answer to no unbind", answer_nothing(0x8000_0006)),
        ("an answer to no bind", answer_nothing(0x8000_0009)),
        ("an answer of an unknown kind", answer_nothing(0x8000_7777)),
        ("a nack for nothing", answer_nothing(0x8000_0000)),
        ("unknown requests without end", (1..=20).flat_map(|n| head(16, 0x7777, 0, n)).collect()),
        ("binds without end", (1..=20).flat_map(|n| head(16, 9, 0, n)).collect()),
    ];
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    for (round, (what, octets)) in nonsense.iter().enumerate() {
        let mut session = centre.bound().await;
        let t = round as u32;
        rig.submit(t).await;
        session.submission().await;
        session.raw(octets).await;
        assert_eq!(rig.event().await, SmsEvent::Unsent { tag: tag(t) }, "{what}");
        while let Some(answer) = session.read().await {
            assert_eq!((answer.id, answer.status), (CommandId::GenericNack, 3), "{what}");
        }
        let faults = rig.metric("ltkmd_smsc_faults_total{reason=\"nonsense\"}");
        assert_eq!(faults, u64::from(t) + 1, "{what}");
    }
    let session = centre.bound().await;
    soon(rig.gateway.room()).await;
    rig.stop(session).await;
}

#[tokio::test]
async fn what_cannot_be_read_inside_a_sound_pdu_is_answered_and_the_link_holds() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    rig.submit(1).await;
    let (sequence, _) = session.submission().await;
    let mut broken = head(20, 5, 0, 77);
    broken.extend([0xFF; 4]);
    session.raw(&broken).await;
    let answer = session.expect(CommandId::DeliverSmResp).await;
    assert_eq!((answer.status, answer.sequence), (0x66, 77));
    session.raw(&head(16, 0x7777, 0, 78)).await;
    let nack = session.expect(CommandId::GenericNack).await;
    assert_eq!((nack.status, nack.sequence), (3, 78));
    // The message was accepted, under a name that cannot be read.
    let mut nameless = head(18, 0x8000_0004, 0, sequence);
    nameless.extend([0xFF; 2]);
    session.raw(&nameless).await;
    assert_eq!(rig.event().await, SmsEvent::Accepted { tag: tag(1), ids: vec![] });
    rig.stop(session).await;
}

#[tokio::test]
async fn nonsense_in_place_of_the_answer_to_the_bind_is_a_refusal() {
    let centre = Centre::new().await;
    let rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.accept().await;
    session.raw(b"SSH-2.0-OpenSSH_9.9\r\n").await;
    while session.read().await.is_some() {}
    let mut session = centre.accept().await;
    let bind = session.expect(CommandId::BindTransceiver).await;
    session.write(3, bind.sequence, Pdu::GenericNack).await;
    assert!(session.read().await.is_none());
    let mut session = centre.accept().await;
    let bind = session.expect(CommandId::BindTransceiver).await;
    session.raw(&head(16, 0x8000_0009, 0, bind.sequence + 1)).await;
    assert!(session.read().await.is_none(), "the answer to another bind");
    let session = centre.bound().await;
    soon(rig.gateway.room()).await;
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"nonsense\"}"), 2);
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"refused\"}"), 1);
    rig.stop(session).await;
}

#[tokio::test]
async fn a_centre_that_says_the_bind_does_not_hold_is_bound_to_again() {
    let centre = Centre::new().await;
    let mut rig = Rig::start(settings(&[centre.smsc()]));
    let mut session = centre.bound().await;
    rig.submit(1).await;
    let (sequence, _) = session.submission().await;
    session.answer(sequence, 4, "").await;
    assert_eq!(rig.event().await, SmsEvent::Unsent { tag: tag(1) });
    let session = centre.bound().await;
    soon(rig.gateway.room()).await;
    rig.stop(session).await;
}

#[tokio::test]
async fn a_centre_that_answers_no_submission_is_left() {
    let centre = Centre::new().await;
    let mut rig =
        Rig::start(SmsSettings { response_timeout: Duration::from_millis(50), ..settings(&[centre.smsc()]) });
    let mut session = centre.bound().await;
    rig.submit(1).await;
    session.submission().await;
    assert_eq!(rig.event().await, SmsEvent::Unsent { tag: tag(1) });
    assert!(session.read().await.is_none());
    assert_eq!(rig.metric("ltkmd_smsc_faults_total{reason=\"timeout\"}"), 1);
    drop(centre);
}

/// What a moody centre does with a submission.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Accept,
    Refuse,
    /// Answers later, in another order.
    Hold,
    /// Says something it should not.
    Nonsense,
    HangUp,
    Unbind,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        12 => Just(Mood::Accept),
        3 => Just(Mood::Refuse),
        6 => Just(Mood::Hold),
        1 => Just(Mood::Nonsense),
        1 => Just(Mood::HangUp),
        1 => Just(Mood::Unbind),
    ]
}

/// Serves as the moods have it, and accepts everything when they are spent.
async fn serve(centre: &Centre, mut moods: impl Iterator<Item = Mood>) -> ! {
    loop {
        let mut session = centre.bound().await;
        while let Some(received) = session.read().await {
            let sequence = received.sequence;
            match received.id {
                CommandId::SubmitSm => {}
                CommandId::Unbind => {
                    session.write(0, sequence, Pdu::UnbindResp).await;
                    break;
                }
                _ => continue,
            }
            match moods.next().unwrap_or(Mood::Accept) {
                Mood::Accept => session.answer(sequence, 0, "m").await,
                Mood::Refuse => session.answer(sequence, 0x0B, "").await,
                Mood::Hold => hold(&mut session, sequence).await,
                Mood::Nonsense => {
                    let mut out = BytesMut::new();
                    out.put_u64(u64::MAX);
                    out.put_u64(sequence.into());
                    session.raw(&out).await;
                }
                Mood::HangUp => break,
                Mood::Unbind => {
                    session.ask(Pdu::Unbind).await;
                }
            }
        }
    }
}

/// Answers one submission after the next one, if there is a next one at once.
async fn hold(session: &mut Session, sequence: u32) {
    // The daemon's answer shows that it has sent all it wanted to.
    session.ask(Pdu::EnquireLink).await;
    while let Some(received) = session.read().await {
        match received.id {
            CommandId::SubmitSm => session.answer(received.sequence, 0, "m").await,
            _ => break,
        }
    }
    session.answer(sequence, 0, "m").await;
}

#[test]
fn whatever_a_centre_does_each_message_ends_once() {
    const MESSAGES: u32 = 40;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let strategy = (1u16..8, proptest::collection::vec(mood(), 0..80));
    let ran = runner.run(&strategy, |(window, moods)| {
        runtime.block_on(async {
            let centre = Centre::new().await;
            let mut rig = Rig::start(SmsSettings { window, ..settings(&[centre.smsc()]) });
            let gateway = Arc::clone(&rig.gateway);
            let mut ends: BTreeMap<u32, u32> = BTreeMap::new();
            let story = async {
                let mut handed = 0;
                while ends.len() < MESSAGES as usize {
                    tokio::select! {
                        room = gateway.room(), if handed < MESSAGES => {
                            for _ in 0..room.min((MESSAGES - handed) as usize) {
                                gateway.submit(message(handed));
                                handed += 1;
                            }
                        }
                        event = rig.event() => match event {
                            SmsEvent::Accepted { tag, .. }
                            | SmsEvent::Refused { tag, .. }
                            | SmsEvent::Unsent { tag } => *ends.entry(tag.t).or_default() += 1,
                            SmsEvent::Receipt { .. } => unreachable!("the centre gives no receipts"),
                        }
                    }
                }
                rig.shutdown.send_replace(true);
                drop(gateway);
                rig.ended().await
            };
            let more = tokio::select! {
                more = story => more,
                _ = serve(&centre, moods.into_iter()) => unreachable!("it serves for ever"),
            };
            prop_assert_eq!(more, []);
            prop_assert!(ends.values().all(|n| *n == 1), "{:?}", ends);
            Ok(())
        })
    });
    ran.unwrap_or_else(|e| panic!("{e}"));
}
