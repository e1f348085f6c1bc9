//! What the life of a delivery knows about short messages: who may get one when, and what became of it
//! (LTKM profile §4, SMPP 3.4).

use std::sync::Arc;
use std::time::Duration;

use super::life::Reason;
use crate::time::Timestamp;

/// The longest message id, in octets (SMPP 3.4 §5.2.23: 65 with the closing zero).
const MAX_MESSAGE_ID: usize = 64;

/// What a short message centre calls a message that it accepted (SMPP 3.4 §5.2.23).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Takes 1 to 64 octets of visible ASCII; `None` for anything else.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=MAX_MESSAGE_ID).contains(&text.len());
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.into()))
    }

    /// As the centre spelled it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a delivery receipt says of a message (SMPP 3.4 §5.2.28).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReceiptState {
    /// Under way.
    Enroute = 1,
    /// The terminal has it.
    Delivered = 2,
    /// Its validity period ended.
    Expired = 3,
    /// Deleted at the centre.
    Deleted = 4,
    /// It cannot be delivered.
    Undeliverable = 5,
    /// Read on the subscriber's behalf.
    Accepted = 6,
    /// The centre does not know.
    Unknown = 7,
    /// The centre or the network refused it.
    Rejected = 8,
}

impl ReceiptState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Enroute,
        Self::Delivered,
        Self::Expired,
        Self::Deleted,
        Self::Undeliverable,
        Self::Accepted,
        Self::Unknown,
        Self::Rejected,
    ];

    /// The state of SMPP's number.
    pub fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as u8 == octet)
    }

    /// The name that API and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enroute => "enroute",
            Self::Delivered => "delivered",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::Undeliverable => "undeliverable",
            Self::Accepted => "accepted",
            Self::Unknown => "unknown",
            Self::Rejected => "rejected",
        }
    }

    /// Whether the message will never reach the terminal.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Expired | Self::Deleted | Self::Undeliverable | Self::Rejected)
    }
}

/// A delivery's way by SMS: its turn, its latest short message, what became of that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SmsLeg {
    /// T of the latest trigger by SMS; 0 before the first.
    pub t: u32,
    /// Triggers by SMS since the terminal was last heard of; `sms.attempts` bounds it.
    pub attempts: u8,
    /// While it waits for its turn: not before this moment.
    pub turn: Option<Timestamp>,
    /// The centre's names for the parts of the latest message.
    pub ids: Vec<MessageId>,
    /// The latest receipt; of a message in parts, that of a lost part once there is one.
    pub receipt: Option<(ReceiptState, Timestamp)>,
    /// Why SMS is of no use for this delivery, until the terminal is heard of.
    pub barred: Option<Reason>,
}

/// How often one terminal may be sent a short message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmsLimits {
    /// Triggers by SMS for one delivery before another method or none is tried, at least 1.
    pub attempts: u8,
    /// How long the pull is awaited after a trigger was sent.
    pub pull_timeout: Duration,
    /// The least time between two triggers to one terminal.
    pub interval: Duration,
    /// Triggers to one terminal within a day, at most.
    pub daily: u16,
    /// How long a delivery waits for its turn before another method or none is tried.
    pub patience: Duration,
}

impl Default for SmsLimits {
    /// What holds without configuration.
    fn default() -> Self {
        Self {
            attempts: 2,
            pull_timeout: Duration::from_secs(300),
            interval: Duration::from_secs(10),
            daily: 50,
            patience: DAY,
        }
    }
}

/// The short messages that a terminal got of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SmsLedger {
    /// When the latest one was sent.
    pub last: Timestamp,
    /// When the day that [`Self::count`] is about began.
    pub since: Timestamp,
    /// Triggers since then.
    pub count: u16,
}

/// A day, as the daily cap counts it: from the first message on.
const DAY: Duration = Duration::from_secs(86_400);

/// Why a trigger has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// The terminal was sent one a moment ago.
    Interval,
    /// The terminal had its share of the day.
    DailyCap,
    /// Its turn had come and there was no room: no centre was bound, or `sms.window` or `sms.rate` was used up.
    Room,
}

impl HeldBack {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Interval, Self::DailyCap, Self::Room];

    /// The metrics' name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::DailyCap => "daily_cap",
            Self::Room => "room",
        }
    }
}

impl SmsLedger {
    /// The first moment from `now` on at which a trigger may be sent, and why not at once.
    pub fn next(&self, now: Timestamp, limits: &SmsLimits) -> (Timestamp, Option<HeldBack>) {
        if self.count == 0 {
            return (now, None);
        }
        let day_over = self.since + DAY;
        if self.count >= limits.daily && now < day_over {
            return (day_over, Some(HeldBack::DailyCap));
        }
        let spaced = self.last + limits.interval;
        if spaced > now { (spaced, Some(HeldBack::Interval)) } else { (now, None) }
    }

    /// Takes a trigger back that never left.
    pub fn undo(&mut self) {
        self.last = Timestamp::default();
        self.count = self.count.saturating_sub(1);
    }

    /// Notes a trigger.
    pub fn note(&mut self, now: Timestamp) {
        if self.count == 0 || now >= self.since + DAY {
            *self = Self { last: now, since: now, count: 0 };
        }
        self.last = now;
        self.count = self.count.saturating_add(1);
    }
}
