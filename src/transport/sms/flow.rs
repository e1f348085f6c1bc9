//! What is on its way to a centre: which part is next, what waits for an answer, what an answer means. Pure: time
//! comes in as a value, PDUs are made and sent elsewhere.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use super::rate::{Bucket, Pause, patience};
use super::status::{RINVMSGLEN, RX_P_APPN, Verdict, verdict};
use super::udh::{self, Ports};
use crate::delivery::{MessageId, ReceiptState};
use crate::engine::{ShortMessage, SmsEvent, SmsTag};
use crate::id::Msisdn;

/// How often a message is tried again that the centre answers with its own trouble.
const TRIES: u32 = 3;

/// How long a message that is throttled is kept before it is given back as not sent.
const KEPT: Duration = Duration::from_secs(600);

/// Messages beyond the window that are kept: who was told that there is room may have a few more.
const SURPLUS: usize = 256;

/// Events that wait to be told; beyond, there is no room for messages and receipts are not taken.
const UNTOLD: usize = 1024;

/// A single answer may be late by so many response timeouts while others arrive.
const LATE: u32 = 6;

/// Bounds of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Submissions without an answer, at least 1.
    pub(super) window: usize,
    /// Messages a second.
    pub(super) rate: NonZeroU32,
    /// How long the centre may answer nothing.
    pub(super) response_timeout: Duration,
    /// Where messages go to and seem to come from.
    pub(super) ports: Ports,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    message: u64,
    part: usize,
}

#[derive(Debug)]
struct Message {
    tag: SmsTag,
    to: Msisdn,
    parts: Vec<Vec<u8>>,
    ids: Vec<Option<MessageId>>,
    /// Parts that are not accepted yet.
    left: usize,
    /// Parts that were handed to a link, some perhaps more than once.
    started: bool,
    /// Answers that asked for another try, for each part.
    tries: Vec<u32>,
    since: Instant,
}

#[derive(Debug)]
struct Flight {
    piece: Piece,
    sent: Instant,
}

/// When messages may be handed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// So many, at least 1.
    Now(usize),
    /// Not before that moment.
    At(Instant),
    /// When something else has changed.
    Later,
}

/// All messages of a gateway, from their handing over to their one event.
#[derive(Debug)]
pub(super) struct Flow {
    bounds: Bounds,
    bucket: Bucket,
    pause: Pause,
    /// Answers in a row that said a queue is full.
    full_in_a_row: u32,
    /// Whether a link is bound that takes new messages.
    open: bool,
    messages: HashMap<u64, Message>,
    next_message: u64,
    reference: u8,
    ready: VecDeque<Piece>,
    waiting: BTreeMap<(Instant, u64), Piece>,
    next_waiting: u64,
    flights: HashMap<u32, Flight>,
    last_answer: Option<Instant>,
    events: VecDeque<SmsEvent>,
}

impl Flow {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            bucket: Bucket::new(bounds.rate),
            pause: Pause::default(),
            full_in_a_row: 0,
            open: false,
            messages: HashMap::new(),
            next_message: 0,
            reference: 0,
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            next_waiting: 0,
            flights: HashMap::new(),
            last_answer: None,
            events: VecDeque::new(),
        }
    }

    /// A link is bound: messages are taken, under these bounds.
    pub(super) fn open(&mut self, bounds: Bounds) {
        self.bucket = Bucket::new(bounds.rate).continuing(&self.bucket);
        (self.bounds, self.open) = (bounds, true);
    }

    /// The link takes nothing new. What no part was sent of is given back.
    pub(super) fn close(&mut self) {
        self.open = false;
        let untouched: Vec<u64> = self.messages.iter().filter(|(_, m)| !m.started).map(|(n, _)| *n).collect();
        for number in untouched {
            self.unsent(number);
        }
    }

    /// The link is gone: everything is given back. Tells how many submissions had no answer.
    pub(super) fn lost(&mut self) -> usize {
        self.open = false;
        let all: Vec<u64> = self.messages.keys().copied().collect();
        for number in all {
            self.unsent(number);
        }
        self.ready.clear();
        self.waiting.clear();
        (self.pause, self.full_in_a_row) = (Pause::default(), 0);
        std::mem::take(&mut self.flights).len()
    }

    fn unsent(&mut self, number: u64) {
        if let Some(message) = self.messages.remove(&number) {
            self.events.push_back(SmsEvent::Unsent { tag: message.tag });
        }
    }

    /// When messages may be handed over, and how many.
    pub(super) fn room(&self, now: Instant) -> Room {
        let free = self.bounds.window.saturating_sub(self.messages.len());
        if !self.open || free == 0 || self.events.len() >= UNTOLD {
            return Room::Later;
        }
        if let Some(until) = self.pause.until(now) {
            return Room::At(until);
        }
        match free.min(self.bucket.available(now).saturating_sub(self.ready.len())) {
            // What is ready goes first; each part that leaves is a change.
            0 => self.bucket.next(now).map_or(Room::Later, Room::At),
            room => Room::Now(room),
        }
    }

    /// Takes a message over. Without a link, or with many more than there is room for, it is given back at once.
    pub(super) fn take(&mut self, message: ShortMessage, now: Instant) {
        let tag = message.tag;
        if !self.open || self.messages.len() >= self.bounds.window + SURPLUS {
            self.events.push_back(SmsEvent::Unsent { tag });
            return;
        }
        let Ok(parts) = udh::split(&message.ltkm, self.bounds.ports, self.reference) else {
            self.events.push_back(SmsEvent::Refused { tag, status: RINVMSGLEN });
            return;
        };
        self.reference = self.reference.wrapping_add(1);
        let number = self.next_message;
        self.next_message += 1;
        self.ready.extend((0..parts.len()).map(|part| Piece { message: number, part }));
        let (ids, tries, left) = (vec![None; parts.len()], vec![0; parts.len()], parts.len());
        let message = Message { tag, to: message.to, parts, ids, left, started: false, tries, since: now };
        self.messages.insert(number, message);
    }

    /// A message that must not go by SMS is refused.
    pub(super) fn refuse(&mut self, tag: SmsTag) {
        self.events.push_back(SmsEvent::Refused { tag, status: RX_P_APPN });
    }

    /// The next part to submit, if one may go now: the window has room, the rate allows it, no pause is on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Piece> {
        if self.flights.len() >= self.bounds.window || self.pause.until(now).is_some() {
            return None;
        }
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            let piece = entry.remove();
            self.ready.push_front(piece);
        }
        while self.ready.front().is_some_and(|piece| !self.messages.contains_key(&piece.message)) {
            self.ready.pop_front();
        }
        if self.bucket.next(now).is_some() {
            return None;
        }
        self.ready.pop_front()
    }

    /// Where a part goes, and its user data.
    pub(super) fn part(&self, piece: Piece) -> Option<(&Msisdn, &[u8])> {
        let message = self.messages.get(&piece.message)?;
        Some((&message.to, message.parts.get(piece.part)?))
    }

    /// A part was submitted under that sequence number.
    pub(super) fn sent(&mut self, piece: Piece, sequence: u32, now: Instant) {
        self.bucket.note(now);
        if let Some(message) = self.messages.get_mut(&piece.message) {
            message.started = true;
        }
        self.flights.insert(sequence, Flight { piece, sent: now });
    }

    /// The answer to a submission; `None` when there was none of that sequence number.
    pub(super) fn answered(
        &mut self,
        sequence: u32,
        status: u32,
        id: Option<MessageId>,
        now: Instant,
    ) -> Option<Verdict> {
        let Flight { piece, sent } = self.flights.remove(&sequence)?;
        self.last_answer = Some(now);
        let verdict = verdict(status);
        if verdict == Verdict::Full {
            self.full_in_a_row += 1;
        } else {
            self.full_in_a_row = 0;
        }
        match verdict {
            Verdict::Accepted => {
                self.pause.accepted(sent);
                self.accepted(piece, id);
            }
            Verdict::Throttled => {
                self.pause.throttled(sent, now);
                self.again(piece, KEPT, u32::MAX, now);
            }
            // A single phone's queue is no reason to keep the others waiting.
            Verdict::Full => {
                if self.full_in_a_row > 1 {
                    self.pause.throttled(sent, now);
                }
                self.again(piece, KEPT, u32::MAX, now);
            }
            Verdict::Again => self.again(piece, KEPT, TRIES, now),
            Verdict::Refused => {
                if let Some(message) = self.messages.remove(&piece.message) {
                    self.events.push_back(SmsEvent::Refused { tag: message.tag, status });
                }
            }
            // The link will be closed, which gives the message back.
            Verdict::Broken => {}
        }
        Some(verdict)
    }

    fn accepted(&mut self, piece: Piece, id: Option<MessageId>) {
        let Some(message) = self.messages.get_mut(&piece.message) else { return };
        message.ids[piece.part] = id;
        message.left -= 1;
        if message.left == 0
            && let Some(message) = self.messages.remove(&piece.message)
        {
            let ids = message.ids.into_iter().flatten().collect();
            self.events.push_back(SmsEvent::Accepted { tag: message.tag, ids });
        }
    }

    /// Tries a part again later, unless it was tried too often or for too long.
    fn again(&mut self, piece: Piece, kept: Duration, tries: u32, now: Instant) {
        let Some(message) = self.messages.get_mut(&piece.message) else { return };
        message.tries[piece.part] += 1;
        let tried = message.tries[piece.part];
        if tried > tries || now.saturating_duration_since(message.since) >= kept {
            return self.unsent(piece.message);
        }
        let pause = self.pause.until(now);
        let at = now + patience(tried);
        let at = pause.map_or(at, |until| if self.full_in_a_row == 0 { until } else { at.max(until) });
        self.waiting.insert((at, self.next_waiting), piece);
        self.next_waiting += 1;
    }

    /// Whether the centre answers nothing although it should, or one submission far too late.
    fn stalled_at(&self) -> Option<Instant> {
        let oldest = self.flights.values().map(|flight| flight.sent).min()?;
        let heard = self.last_answer.map_or(oldest, |answer| answer.max(oldest));
        let timeout = self.bounds.response_timeout;
        Some((heard + timeout).min(oldest + timeout * LATE))
    }

    /// Whether the centre answers nothing although it should, or one submission far too late.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        self.stalled_at().is_some_and(|at| at <= now)
    }

    /// When to look again if nothing happens before.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let blocked = self.flights.len() >= self.bounds.window;
        let next = if blocked {
            None
        } else if let Some(until) = self.pause.until(now) {
            Some(until)
        } else {
            let ready = (!self.ready.is_empty()).then(|| self.bucket.next(now).unwrap_or(now));
            let waiting = self.waiting.first_key_value().map(|((at, _), _)| *at);
            ready.into_iter().chain(waiting).min()
        };
        next.into_iter().chain(self.stalled_at()).min()
    }

    /// Whether no message is left.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Submissions without an answer.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// A receipt arrived. With too much untold it is not taken, and the centre has to bring it again.
    pub(super) fn receipt(&mut self, id: MessageId, state: ReceiptState) -> bool {
        let room = self.events.len() < UNTOLD;
        if room {
            self.events.push_back(SmsEvent::Receipt { id, state });
        }
        room
    }

    /// What is to be told next.
    pub(super) fn next_event(&mut self) -> Option<SmsEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
#[path = "tests/flow.rs"]
mod tests;
