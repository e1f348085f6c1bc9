//! What some metrics say now, for the page that operators look at.

use super::{Float, Metrics, Minute};
use crate::time::Timestamp;

/// The store and the short message centre as the metrics know them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Glance {
    /// The daemon's start.
    pub start: Timestamp,
    /// Whether triggers are sent by SMS at all.
    pub sms_enabled: bool,
    /// Whether a short message centre is bound.
    pub smsc_up: bool,
    /// Submissions without an answer.
    pub sms_in_flight: u64,
    /// Whether the store writes.
    pub store_up: bool,
    /// Store calls that failed since the start.
    pub store_errors: u64,
    /// The latest durable commit.
    pub store_last_commit: Option<Timestamp>,
    /// What the store takes of its disk, in octets.
    pub store_taken: u64,
    /// What is free on its disk, in octets; `None`: nobody can tell.
    pub store_free: Option<u64>,
}

impl Metrics {
    /// A look at the store and the short message centre.
    pub fn glance(&self) -> Glance {
        let whole = |gauge: &Float| gauge.get() as u64;
        let last = (self.store_last_commit.get() * 1000.0) as u64;
        Glance {
            start: self.start,
            sms_enabled: self.sms_enabled.get() != 0,
            smsc_up: self.smsc_up.get() != 0,
            sms_in_flight: u64::try_from(self.sms_in_flight.get()).unwrap_or(0),
            store_up: self.store_up.get() != 0,
            store_errors: self.store_errors.get(),
            store_last_commit: (last > 0).then_some(Timestamp(last)),
            store_taken: whole(&self.store_disk),
            store_free: Some(self.store_free.get()).filter(|free| !free.is_nan()).map(|free| free as u64),
        }
    }

    /// The minutes of the last hour in which something happened, the oldest first, at most [`super::MINUTES`].
    pub fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        self.hour.minutes(now)
    }
}
