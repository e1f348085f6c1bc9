//! One delivery: a key (or an invalidation, or a trigger) on its way to one terminal.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::{Entropy, Rules};
use super::sms::{MessageId, ReceiptState, SmsLeg, SmsLimits};
use crate::id::{JobId, Method, ServiceNo};
use crate::time::Timestamp;

/// What an LTKM does at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Brings a key.
    Key = 0,
    /// Ends a key: validity from all ones to zero.
    Invalidate = 1,
    /// Empty key data, Key Number 0: the terminal sends an MSK request for the group.
    TriggerMskRequest = 2,
    /// Empty key data, MSK ID 0: the terminal registers again.
    TriggerRegister = 3,
}

impl Kind {
    /// The kind of a record's octet.
    pub fn from_octet(octet: u8) -> Option<Self> {
        [Self::Key, Self::Invalidate, Self::TriggerMskRequest, Self::TriggerRegister]
            .get(usize::from(octet))
            .copied()
    }

    /// Whether it brings nothing but asks the terminal to pull.
    pub fn is_trigger(self) -> bool {
        matches!(self, Self::TriggerMskRequest | Self::TriggerRegister)
    }

    /// The admin API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Invalidate => "invalidate",
            Self::TriggerMskRequest | Self::TriggerRegister => "trigger",
        }
    }
}

/// Where a delivery stands (LTKM profile §7, as the admin API spells it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Nothing was sent yet.
    Queued = 0,
    /// Sent; the verification message is awaited, or the request that a trigger asked for.
    Sent = 1,
    /// The terminal proved that it has the key, or made the request.
    Verified = 2,
    /// Sent without V: taken for delivered.
    Assumed = 3,
    /// Waits for the terminal's next request.
    AwaitingPull = 4,
    /// Given up until the terminal's next authenticated request.
    Failed = 5,
    /// A newer key took its place.
    Superseded = 6,
    /// The registration or entitlement ended.
    Cancelled = 7,
}

impl State {
    /// All states, by their number.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Sent,
        Self::Verified,
        Self::Assumed,
        Self::AwaitingPull,
        Self::Failed,
        Self::Superseded,
        Self::Cancelled,
    ];

    /// The state of a record's octet.
    pub fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.get(usize::from(octet)).copied()
    }

    /// The name that API and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Verified => "verified",
            Self::Assumed => "assumed",
            Self::AwaitingPull => "awaiting_pull",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the daemon or the terminal still has something to do for it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Sent | Self::AwaitingPull)
    }

    /// Whether the terminal holds what was delivered, as far as anybody knows.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Verified | Self::Assumed)
    }
}

/// Why a delivery failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// No verification message, and no pull, after the last attempt.
    NoAnswer = 1,
    /// No method of the set can bring it.
    NoMethod = 2,
    /// The B-TID expired.
    Expired = 3,
    /// The counter T is at its end.
    CounterSpent = 4,
    /// The key's validity ended before it was delivered.
    KeyOver = 5,
    /// The subscriber has no MSISDN to send a short message to.
    NoMsisdn = 6,
    /// SMS is in the set and switched off here.
    SmsOff = 7,
    /// The short message centre refused the message for good.
    SmsRefused = 8,
    /// A delivery receipt said that the message is lost.
    SmsUndelivered = 9,
    /// No turn came for a short message in `sms.patience`: no centre was bound, or the limits held it back.
    SmsLate = 10,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::NoAnswer,
        Self::NoMethod,
        Self::Expired,
        Self::CounterSpent,
        Self::KeyOver,
        Self::NoMsisdn,
        Self::SmsOff,
        Self::SmsRefused,
        Self::SmsUndelivered,
        Self::SmsLate,
    ];

    /// The reason of a record's octet.
    pub fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|r| *r as u8 == octet)
    }

    /// The name that API and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::NoMethod => "no_method",
            Self::Expired => "credential_expired",
            Self::CounterSpent => "counter_spent",
            Self::KeyOver => "key_over",
            Self::NoMsisdn => "no_msisdn",
            Self::SmsOff => "sms_off",
            Self::SmsRefused => "sms_refused",
            Self::SmsUndelivered => "sms_undelivered",
            Self::SmsLate => "sms_late",
        }
    }
}

/// The T values of one delivery that an answer may still name: as many as attempts can be in flight.
const MAX_T: usize = 24;

/// One delivery to one terminal. A terminal has at most one per (service, key number, kind).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The service.
    pub service: ServiceNo,
    /// The key's number; 0 for triggers.
    pub number: u16,
    /// What it does.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// What carried the latest attempt, or what its turn is awaited for.
    pub method: Option<Method>,
    /// Why it failed, in [`State::Failed`].
    pub error: Option<Reason>,
    /// LTKMs made for it, all methods.
    pub attempts: u16,
    /// Attempts by UDP since the terminal was last heard of; `udp.attempts` bounds it.
    pub udp_attempts: u8,
    /// When the owner has to look at it again: an answer that is awaited, or a turn.
    pub next_due: Option<Timestamp>,
    /// When it came to be.
    pub queued: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// When the latest answer arrived, and what had carried the LTKM it answers.
    pub verified: Option<(Timestamp, Method)>,
    /// The fan-out job it counts for.
    pub job: Option<JobId>,
    /// T of the LTKMs with V made for it and what carried them, oldest first.
    pub out: Vec<(u32, Method)>,
    /// Its way by SMS, once that was taken.
    pub sms: Option<Box<SmsLeg>>,
}

impl Delivery {
    /// A delivery of which nothing was sent.
    pub fn new(service: ServiceNo, number: u16, kind: Kind, job: Option<JobId>, now: Timestamp) -> Self {
        Self {
            service,
            number,
            kind,
            state: State::Queued,
            method: None,
            error: None,
            attempts: 0,
            udp_attempts: 0,
            next_due: None,
            queued: now,
            updated: now,
            verified: None,
            job,
            out: Vec::new(),
            sms: None,
        }
    }

    /// Whether it is the delivery of this key.
    pub fn is(&self, service: ServiceNo, number: u16, kind: Kind) -> bool {
        self.service == service && self.number == number && self.kind == kind
    }

    /// Records one more LTKM by UDP or inside an answer. With V the answer is awaited, after a trigger the
    /// pull: for `udp.first_timeout`, by UDP twice as long after each further attempt, ±10 %.
    pub fn attempt(
        &mut self,
        via: Method,
        t: u32,
        v: bool,
        now: Timestamp,
        rules: &Rules,
        entropy: &mut Entropy,
    ) {
        self.attempts = self.attempts.saturating_add(1);
        self.method = Some(via);
        self.settle(State::Assumed, None, now);
        if v {
            if self.out.len() == MAX_T {
                self.out.remove(0);
            }
            self.out.push((t, via));
        }
        let mut wait = rules.first_timeout;
        if via == Method::Udp {
            wait = wait.saturating_mul(1 << self.udp_attempts.min(16));
            self.udp_attempts = self.udp_attempts.saturating_add(1);
        }
        if v || self.kind.is_trigger() {
            self.state = State::Sent;
            self.next_due = Some(now + entropy.spread(wait));
        }
    }

    /// Waits for its turn by SMS, which comes at `turn` at the earliest; after `limits.patience` it goes on
    /// otherwise.
    pub fn await_turn(&mut self, turn: Timestamp, limits: &SmsLimits, now: Timestamp) {
        self.settle(State::Queued, None, now);
        self.method = Some(Method::Sms);
        self.next_due = Some(now + limits.patience);
        self.sms.get_or_insert_default().turn = Some(turn);
    }

    /// When its turn by SMS comes, while it waits for one.
    pub fn turn(&self) -> Option<Timestamp> {
        self.sms.as_ref().and_then(|leg| leg.turn)
    }

    /// Records that a trigger for it leaves by SMS; the pull is awaited.
    pub fn triggered(&mut self, t: u32, limits: &SmsLimits, now: Timestamp) {
        self.attempts = self.attempts.saturating_add(1);
        self.method = Some(Method::Sms);
        self.settle(State::Sent, None, now);
        self.next_due = Some(now + limits.pull_timeout);
        let leg = self.sms.get_or_insert_default();
        leg.t = t;
        leg.attempts = leg.attempts.saturating_add(1);
        leg.ids.clear();
        leg.receipt = None;
    }

    /// Whether a short message is on its way for it that brings the pull.
    pub fn awaits_pull_by_sms(&self) -> bool {
        self.state == State::Sent && self.method == Some(Method::Sms)
    }

    /// Notes what the centre calls the trigger with this T.
    pub fn accepted(&mut self, t: u32, ids: &[MessageId]) {
        if let Some(leg) = self.sms.as_mut().filter(|leg| leg.t == t) {
            leg.ids = ids.to_vec();
        }
    }

    /// Notes a delivery receipt. `true`: it is about this delivery.
    pub fn receipt(&mut self, id: &MessageId, state: ReceiptState, now: Timestamp) -> bool {
        let Some(leg) = self.sms.as_mut().filter(|leg| leg.ids.contains(id)) else { return false };
        if leg.receipt.is_none_or(|(known, _)| !known.is_lost()) {
            leg.receipt = Some((state, now));
        }
        true
    }

    /// The terminal made the request that a trigger asked for. `None`: nothing was awaited.
    pub fn pulled(&mut self, now: Timestamp) -> Option<Answered> {
        if !self.kind.is_trigger() || !(self.state.is_open() || self.state == State::Failed) {
            return None;
        }
        let via = self.method.filter(|_| self.attempts > 0);
        self.settle(if via.is_some() { State::Verified } else { State::Cancelled }, None, now);
        let via = via?;
        self.verified = Some((now, via));
        Some(Answered { via, first: true, after: now.since(self.queued) })
    }

    /// Waits for its turn: the owner sends it at that moment.
    pub fn defer(&mut self, until: Timestamp, now: Timestamp) {
        self.settle(State::Queued, None, now);
        self.next_due = Some(until);
    }

    /// Ends the waiting in another state than an attempt's.
    pub fn settle(&mut self, state: State, error: Option<Reason>, now: Timestamp) {
        self.state = state;
        self.error = error;
        self.next_due = None;
        self.updated = now;
        if let Some(leg) = &mut self.sms {
            leg.turn = None;
        }
    }

    /// Notes an answer to the LTKM with this T. A superseded or cancelled delivery records it and stays so.
    /// The result tells what it meant.
    pub fn answered(&mut self, t: u32, now: Timestamp) -> Option<Answered> {
        let (_, via) = *self.out.iter().find(|(out, _)| *out == t)?;
        let first = self.verified.is_none() || !matches!(self.state, State::Verified | State::Superseded);
        if !first || self.state == State::Cancelled {
            return Some(Answered { via, first: false, after: Duration::ZERO });
        }
        self.verified = Some((now, via));
        if self.state == State::Superseded {
            self.updated = now;
        } else {
            self.settle(State::Verified, None, now);
        }
        Some(Answered { via, first, after: now.since(self.queued) })
    }
}

/// What an answer meant to its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// What carried the LTKM that was answered.
    pub via: Method,
    /// Whether it is news; otherwise a duplicate.
    pub first: bool,
    /// From queueing to the answer.
    pub after: Duration,
}
