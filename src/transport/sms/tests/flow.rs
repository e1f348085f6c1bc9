//! The flow on virtual time: nothing here waits.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::status::Verdict;
use super::super::udh::Ports;
use super::{Bounds, Flow, Room, SURPLUS};
use crate::delivery::MessageId;
use crate::engine::{ShortMessage, SmsEvent, SmsTag};
use crate::id::{Msisdn, TerminalKey};

const TIMEOUT: Duration = Duration::from_secs(10);
const OK: u32 = 0x00;
const SYSTEM_ERROR: u32 = 0x08;
const INVALID_DESTINATION: u32 = 0x0B;
const QUEUE_FULL: u32 = 0x14;
const THROTTLED: u32 = 0x58;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn tag(t: u32) -> SmsTag {
    SmsTag { terminal: TerminalKey([7; 16]), t }
}

fn id(name: &str) -> MessageId {
    MessageId::new(name).unwrap()
}

/// A flow, its clock, and the sequence numbers of its link.
struct Rig {
    flow: Flow,
    now: Instant,
    sequence: u32,
}

impl Rig {
    fn new(window: usize, rate: u32) -> Self {
        let bounds = Bounds {
            window,
            rate: NonZeroU32::new(rate).unwrap(),
            response_timeout: TIMEOUT,
            ports: Ports { destination: 4359, source: 4359 },
        };
        let mut flow = Flow::new(bounds);
        flow.open(bounds);
        Self { flow, now: Instant::now(), sequence: 0 }
    }

    fn take(&mut self, t: u32, len: usize) {
        let to = Msisdn::new("4917012345678").unwrap();
        self.flow.take(ShortMessage { to, ltkm: vec![1; len], tag: tag(t) }, self.now);
    }

    /// Submits all that may go; the sequence numbers.
    fn send(&mut self) -> Vec<u32> {
        let mut sent = Vec::new();
        while let Some(piece) = self.flow.next(self.now) {
            assert!(self.flow.part(piece).is_some());
            self.sequence += 1;
            self.flow.sent(piece, self.sequence, self.now);
            sent.push(self.sequence);
        }
        sent
    }

    fn answer(&mut self, sequence: u32, status: u32) -> Option<Verdict> {
        self.flow.answered(sequence, status, Some(id(&format!("m{sequence}"))), self.now)
    }

    /// Goes to the moment at which the flow wants to be looked at.
    fn sleep(&mut self) -> Duration {
        let wake = self.flow.wake(self.now).expect("something is waited for");
        let slept = wake.saturating_duration_since(self.now);
        self.now += slept;
        slept
    }

    fn events(&mut self) -> Vec<SmsEvent> {
        std::iter::from_fn(|| self.flow.next_event()).collect()
    }
}

#[test]
fn the_window_and_what_may_be_handed_over_have_the_same_bound() {
    let mut rig = Rig::new(3, 100_000);
    assert_eq!(rig.flow.room(rig.now), Room::Now(3));
    for t in 0..3 {
        rig.take(t, 10);
    }
    assert_eq!(rig.flow.room(rig.now), Room::Later);
    assert_eq!(rig.send(), [1, 2, 3]);
    rig.take(3, 10);
    assert_eq!(rig.send(), [0; 0], "the window is full");
    rig.answer(2, OK);
    assert_eq!(rig.send(), [4]);
    assert_eq!(rig.events(), [SmsEvent::Accepted { tag: tag(1), ids: vec![id("m2")] }]);
}

#[test]
fn who_hands_over_far_more_than_there_is_room_for_gets_it_back() {
    let mut rig = Rig::new(2, 100_000);
    let bound = 2 + SURPLUS as u32;
    (0..=bound).for_each(|t| rig.take(t, 10));
    assert_eq!(rig.events(), [SmsEvent::Unsent { tag: tag(bound) }]);
    rig.flow.lost();
    assert_eq!(rig.events().len(), bound as usize);
    rig.take(0, 10);
    assert_eq!(rig.events(), [SmsEvent::Unsent { tag: tag(0) }], "there is no link");
    assert_eq!(rig.flow.room(rig.now), Room::Later);
}

#[test]
fn a_message_in_parts_is_accepted_with_its_last_part_and_its_ids_are_in_order() {
    let mut rig = Rig::new(8, 100_000);
    rig.take(1, 300);
    assert_eq!(rig.send(), [1, 2, 3]);
    for sequence in [3, 1, 2] {
        assert_eq!(rig.events(), []);
        rig.answer(sequence, OK);
    }
    let ids = vec![id("m1"), id("m2"), id("m3")];
    assert_eq!(rig.events(), [SmsEvent::Accepted { tag: tag(1), ids }]);
    assert!(rig.flow.is_empty());
}

#[test]
fn a_message_one_of_whose_parts_is_refused_is_refused_once() {
    let mut rig = Rig::new(2, 100_000);
    rig.take(1, 300);
    assert_eq!(rig.send(), [1, 2]);
    rig.answer(1, INVALID_DESTINATION);
    assert_eq!(rig.events(), [SmsEvent::Refused { tag: tag(1), status: INVALID_DESTINATION }]);
    assert_eq!(rig.send(), [0; 0], "its third part does not go");
    assert_eq!(
        rig.answer(2, INVALID_DESTINATION),
        Some(Verdict::Refused),
        "its second part is still awaited"
    );
    assert_eq!(rig.events(), []);
    assert_eq!(rig.answer(2, OK), None, "and answered once");
}

#[test]
fn what_is_too_long_is_refused_at_once() {
    let mut rig = Rig::new(2, 100_000);
    rig.take(1, 40_000);
    assert_eq!(rig.events(), [SmsEvent::Refused { tag: tag(1), status: 0x01 }]);
}

#[test]
fn a_throttled_link_pauses_twice_as_long_each_time_and_keeps_the_message() {
    let mut rig = Rig::new(4, 100_000);
    rig.take(1, 10);
    let mut sequence = rig.send()[0];
    let mut pauses = Vec::new();
    for _ in 0..8 {
        rig.answer(sequence, THROTTLED);
        assert_eq!(rig.send(), [0; 0]);
        rig.take(99, 10);
        assert!(matches!(rig.flow.room(rig.now), Room::At(_)), "nothing new during a pause");
        rig.flow.unsent(rig.flow.next_message - 1);
        pauses.push(rig.sleep().as_millis());
        sequence = *rig.send().first().expect("it is tried again");
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    rig.answer(sequence, OK);
    let accepted = rig.events().into_iter().filter(|e| matches!(e, SmsEvent::Accepted { .. })).count();
    assert_eq!(accepted, 1);
    rig.take(2, 10);
    let sequence = rig.send()[0];
    rig.answer(sequence, THROTTLED);
    assert_eq!(rig.sleep(), ms(500), "after a success it begins anew");
}

#[test]
fn a_window_full_of_throttling_answers_is_one_pause() {
    let mut rig = Rig::new(32, 100_000);
    (0..32).for_each(|t| rig.take(t, 10));
    for sequence in rig.send() {
        rig.answer(sequence, THROTTLED);
    }
    assert_eq!(rig.sleep(), ms(500));
    assert_eq!(rig.send().len(), 32);
}

#[test]
fn a_single_full_queue_keeps_its_own_message_waiting_and_several_the_link() {
    let mut rig = Rig::new(4, 100_000);
    (0..3).for_each(|t| rig.take(t, 10));
    assert_eq!(rig.send(), [1, 2, 3]);
    rig.answer(1, QUEUE_FULL);
    rig.answer(2, OK);
    rig.take(3, 10);
    assert_eq!(rig.send(), [4], "the others go on");
    rig.answer(3, QUEUE_FULL);
    rig.answer(4, QUEUE_FULL);
    rig.take(4, 10);
    assert_eq!(rig.send(), [0; 0], "now the link pauses");
    assert!(matches!(rig.flow.room(rig.now), Room::Later | Room::At(_)));
}

#[test]
fn a_throttled_message_is_given_back_when_it_was_kept_long_enough() {
    let mut rig = Rig::new(4, 100_000);
    let start = rig.now;
    rig.take(1, 10);
    let mut sequence = rig.send()[0];
    let events = loop {
        rig.answer(sequence, THROTTLED);
        let events = rig.events();
        if !events.is_empty() {
            break events;
        }
        rig.sleep();
        sequence = rig.send()[0];
    };
    assert_eq!(events, [SmsEvent::Unsent { tag: tag(1) }]);
    let kept = rig.now - start;
    assert!(kept >= ms(600_000) && kept < ms(640_000), "{kept:?}");
}

#[test]
fn a_centre_in_trouble_is_asked_three_times_more() {
    let mut rig = Rig::new(4, 100_000);
    rig.take(1, 10);
    for wait in [500, 1000, 2000] {
        let sequence = rig.send()[0];
        rig.answer(sequence, SYSTEM_ERROR);
        assert_eq!(rig.events(), []);
        assert_eq!(rig.sleep(), ms(wait));
    }
    let sequence = rig.send()[0];
    rig.answer(sequence, SYSTEM_ERROR);
    assert_eq!(rig.events(), [SmsEvent::Unsent { tag: tag(1) }]);
}

#[test]
fn the_rate_spaces_what_is_handed_over_and_what_is_sent() {
    let mut rig = Rig::new(8, 2);
    (0..4).for_each(|t| rig.take(t, 10));
    assert_eq!(rig.send(), [1]);
    assert!(matches!(rig.flow.room(rig.now), Room::At(_)));
    for sequence in 2..=4 {
        let slept = rig.sleep();
        assert!(slept >= ms(499) && slept <= ms(501), "{slept:?}");
        assert_eq!(rig.send(), [sequence]);
    }
}

#[test]
fn a_slow_centre_is_not_left_while_it_answers_and_a_silent_one_is() {
    let mut rig = Rig::new(32, 100_000);
    (0..32).for_each(|t| rig.take(t, 10));
    for sequence in rig.send().into_iter().take(5) {
        rig.now += TIMEOUT - ms(1);
        assert!(!rig.flow.is_stalled(rig.now));
        rig.answer(sequence, OK);
    }
    assert_eq!(rig.sleep(), TIMEOUT);
    assert!(rig.flow.is_stalled(rig.now));
    assert_eq!(rig.flow.lost(), 27);
    assert_eq!(rig.events().len(), 32);
    assert!(!rig.flow.is_stalled(rig.now));
}

#[test]
fn a_submission_that_is_forgotten_while_others_are_answered_ends_the_link_later() {
    let mut rig = Rig::new(2, 100_000);
    rig.take(0, 10);
    rig.send();
    for t in 1..20 {
        if rig.flow.is_stalled(rig.now) {
            assert_eq!(t, 13, "six timeouts later");
            return;
        }
        rig.take(t, 10);
        let sequence = rig.send()[0];
        rig.now += TIMEOUT / 2;
        rig.answer(sequence, OK);
    }
    panic!("it is waited for without end");
}

#[test]
fn what_was_begun_is_finished_after_the_close_and_what_was_not_is_given_back() {
    let mut rig = Rig::new(1, 100_000);
    rig.take(1, 300);
    rig.take(2, 10);
    assert_eq!(rig.send(), [1]);
    rig.flow.close();
    assert_eq!(rig.events(), [SmsEvent::Unsent { tag: tag(2) }]);
    assert_eq!(rig.flow.room(rig.now), Room::Later);
    for sequence in 1..=3 {
        rig.answer(sequence, OK);
        rig.send();
    }
    assert!(matches!(&rig.events()[..], [SmsEvent::Accepted { ids, .. }] if ids.len() == 3));
    assert!(rig.flow.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Take(usize),
    Send,
    Answer(prop::sample::Index, u32),
    Wait(u64),
    Lose,
    Open,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![4 => 0usize..133, 2 => 134usize..600, 1 => 32_600usize..32_700].prop_map(Step::Take),
        4 => Just(Step::Send),
        6 => (any::<prop::sample::Index>(), prop_oneof![
            4 => Just(OK), 1 => Just(THROTTLED), 1 => Just(QUEUE_FULL), 1 => Just(SYSTEM_ERROR),
            1 => Just(INVALID_DESTINATION), 1 => any::<u32>(),
        ]).prop_map(|(which, status)| Step::Answer(which, status)),
        3 => (0u64..40_000).prop_map(Step::Wait),
        1 => Just(Step::Lose),
        1 => Just(Step::Open),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_each_message_ends_once_and_no_bound_is_passed(
        window in 1usize..10,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut rig = Rig::new(window, 1000);
        let mut flying: Vec<u32> = Vec::new();
        let mut taken = 0;
        let mut ends: BTreeMap<u32, u32> = BTreeMap::new();
        let mut note = |events: Vec<SmsEvent>| {
            for event in events {
                match event {
                    SmsEvent::Accepted { tag, .. } | SmsEvent::Refused { tag, .. } | SmsEvent::Unsent { tag } => {
                        *ends.entry(tag.t).or_default() += 1;
                    }
                    SmsEvent::Receipt { .. } => unreachable!("nobody gave a receipt"),
                }
            }
        };
        for step in steps {
            match step {
                Step::Take(len) => {
                    rig.take(taken, len);
                    taken += 1;
                }
                Step::Send => flying.extend(rig.send()),
                Step::Answer(which, status) => {
                    if !flying.is_empty() {
                        let sequence = flying.swap_remove(which.index(flying.len()));
                        prop_assert!(rig.answer(sequence, status).is_some());
                        prop_assert!(rig.answer(sequence, status).is_none());
                    }
                }
                Step::Wait(wait) => rig.now += ms(wait),
                Step::Lose => {
                    prop_assert_eq!(rig.flow.lost(), flying.len());
                    flying.clear();
                }
                Step::Open => rig.flow.open(rig.flow.bounds),
                Step::Close => rig.flow.close(),
            }
            prop_assert_eq!(rig.flow.in_flight(), flying.len());
            prop_assert!(flying.len() <= window);
            prop_assert!(rig.flow.messages.len() <= window + SURPLUS);
            if let Room::Now(room) = rig.flow.room(rig.now) {
                prop_assert!(room >= 1 && room + rig.flow.messages.len() <= window);
            }
            note(rig.events());
        }
        rig.flow.lost();
        note(rig.events());
        prop_assert!(rig.flow.is_empty());
        prop_assert_eq!(ends.len(), taken as usize);
        prop_assert!(ends.values().all(|n| *n == 1), "{:?}", ends);
    }

    #[test]
    fn an_open_flow_with_messages_always_knows_when_to_go_on(
        window in 1usize..4,
        statuses in proptest::collection::vec(
            prop_oneof![2 => Just(OK), 1 => Just(THROTTLED), 1 => Just(QUEUE_FULL), 1 => Just(SYSTEM_ERROR)], 1..60,
        ),
    ) {
        let mut rig = Rig::new(window, 50);
        (0..window as u32).for_each(|t| rig.take(t, 200));
        for status in statuses {
            let mut flying = rig.send();
            if rig.flow.is_empty() {
                break;
            }
            if let Some(sequence) = flying.pop() {
                rig.answer(sequence, status);
            }
            // What else was sent is accepted at once, so that only waits are left.
            for sequence in flying {
                rig.answer(sequence, OK);
            }
            if !rig.flow.is_empty() {
                rig.sleep();
            }
        }
    }
}
