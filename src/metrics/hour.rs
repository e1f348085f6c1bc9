//! The last hour, minute by minute, for the page that operators look at: what became of deliveries and how long they
//! took. In memory alone: a restart begins with an empty hour. Prometheus is for what has to be kept.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::delivery::Reason;
use crate::id::Method;
use crate::time::Timestamp;

/// Minutes that are remembered: the running one and the 60 before it.
pub const MINUTES: usize = 61;

/// A minute in milliseconds.
const MINUTE: u64 = 60_000;

/// Upper bounds of durations in milliseconds, ten in each power of ten: 1 ms to eleven days.
const STEPS: usize = 91;

/// What happened in one minute.
#[derive(Debug, Clone, PartialEq)]
pub struct Minute {
    /// Its first moment.
    pub at: Timestamp,
    /// LTKMs sent, by [`Method`].
    pub sent: [u64; Method::ALL.len()],
    /// Deliveries verified, by [`Method`].
    pub verified: [u64; Method::ALL.len()],
    /// Deliveries that failed, by the place of the reason in [`Reason::ALL`].
    pub failed: [u64; Reason::ALL.len()],
    /// Verified deliveries by what they took.
    took: [u32; STEPS],
    /// The longest that a commit of the store took.
    pub commit: Option<Duration>,
}

impl Minute {
    fn new(at: Timestamp) -> Self {
        let none = [0; Method::ALL.len()];
        Self {
            at,
            sent: none,
            verified: none,
            failed: [0; Reason::ALL.len()],
            took: [0; STEPS],
            commit: None,
        }
    }

    /// What so many per cent of the verified deliveries took at most, to about a quarter of it; `None`: none was.
    pub fn took(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.took.iter().map(|n| u64::from(*n)).sum();
        let place = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let step = self.took.iter().position(|n| {
            seen += u64::from(*n);
            seen >= place
        });
        step.map(bound)
    }
}

/// The upper bound of a step.
fn bound(step: usize) -> Duration {
    Duration::from_secs_f64(10f64.powf(step as f64 / 10.0) / 1000.0)
}

/// The step of a duration.
fn step(seconds: f64) -> usize {
    let place = (seconds.max(0.001) * 1000.0).log10() * 10.0;
    (place.ceil() as usize).min(STEPS - 1)
}

/// The minutes of the last hour.
#[derive(Debug, Default)]
pub(super) struct Hour(Mutex<VecDeque<Minute>>);

impl Hour {
    fn at(&self, now: Timestamp, note: impl FnOnce(&mut Minute)) {
        let at = Timestamp(now.0 - now.0 % MINUTE);
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that is set back goes on in the newest minute.
        if minutes.back().is_none_or(|newest| newest.at < at) {
            if minutes.len() == MINUTES {
                minutes.pop_front();
            }
            minutes.push_back(Minute::new(at));
        }
        note(minutes.back_mut().expect("one was put in when there was none"));
    }

    pub(super) fn sent(&self, now: Timestamp, method: Method, count: u64) {
        self.at(now, |minute| minute.sent[method as usize] += count);
    }

    pub(super) fn verified(&self, now: Timestamp, method: Method, seconds: f64) {
        self.at(now, |minute| {
            minute.verified[method as usize] += 1;
            let took = &mut minute.took[step(seconds)];
            *took = took.saturating_add(1);
        });
    }

    pub(super) fn failed(&self, now: Timestamp, reason: Reason, count: u64) {
        let place = Reason::ALL.iter().position(|r| *r == reason).expect("it is one of all");
        self.at(now, |minute| minute.failed[place] += count);
    }

    pub(super) fn committed(&self, now: Timestamp, seconds: f64) {
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.at(now, |minute| minute.commit = minute.commit.max(Some(took)));
    }

    /// The minutes of the last hour in which something happened, the oldest first.
    pub(super) fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        let first = (now.0 - now.0 % MINUTE).saturating_sub((MINUTES as u64 - 1) * MINUTE);
        let minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        minutes.iter().filter(|minute| minute.at.0 >= first).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn what_happens_counts_in_its_minute_and_is_forgotten_after_an_hour() {
        let hour = Hour::default();
        for minute in 0..200 {
            let now = START + Duration::from_secs(60 * minute);
            hour.sent(now, Method::Udp, minute);
            hour.sent(now + Duration::from_secs(59), Method::Http, 1);
            hour.failed(now, Reason::NoMethod, 2);
        }
        let now = START + Duration::from_secs(60 * 199 + 30);
        let minutes = hour.minutes(now);
        assert_eq!(minutes.len(), MINUTES);
        assert_eq!(minutes[0].at, START + Duration::from_secs(60 * 139));
        for (minute, number) in minutes.iter().zip(139..) {
            assert_eq!(minute.sent, [number, 0, 1]);
            assert_eq!(minute.failed.iter().sum::<u64>(), 2);
        }
        let later = now + Duration::from_secs(59 * 60);
        assert_eq!(hour.minutes(later).len(), 2, "an hour without an event is no sample");
        assert_eq!(hour.minutes(later + Duration::from_secs(3600)), []);
    }

    #[test]
    fn what_deliveries_take_is_told_to_a_quarter() {
        let hour = Hour::default();
        assert!(hour.minutes(START).is_empty());
        for n in 1..=100 {
            hour.verified(START, Method::Udp, f64::from(n) / 10.0);
        }
        let minute = &hour.minutes(START)[0];
        for (percent, seconds) in [(1, 0.1), (50, 5.0), (95, 9.5), (100, 10.0)] {
            let told = minute.took(percent).expect("some were verified").as_secs_f64();
            assert!((seconds * 0.999..=seconds * 1.26).contains(&told), "{percent} %: {told} for {seconds}");
        }
        for extreme in [0.0, f64::MAX, f64::INFINITY] {
            hour.verified(START, Method::Sms, extreme);
        }
        assert_eq!(hour.minutes(START)[0].verified, [100, 3, 0]);
    }

    #[test]
    fn the_longest_commit_of_a_minute_is_kept_and_a_clock_set_back_loses_nothing() {
        let hour = Hour::default();
        hour.committed(START, 0.25);
        hour.committed(Timestamp(START.0 - 3_600_000), 2.0);
        hour.committed(START, 1.0);
        let minutes = hour.minutes(START);
        assert_eq!(minutes.len(), 1);
        assert_eq!(minutes[0].commit, Some(Duration::from_secs(2)));
        assert_eq!(minutes[0].took(50), None);
    }
}
