//! How fast: messages a second, pauses that a centre asks for, waits between binds.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// At most so many messages in any second, spread over it, with bursts of a fiftieth of a second so that coarse
/// timers do not cost throughput (the generic cell rate algorithm).
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the bucket is full again.
    full_at: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        let burst = (rate.get() / 50).max(1);
        // A full bucket and what trickles in within a second are together no more than the rate.
        let interval = Duration::from_secs(1) / (rate.get() - burst + 1) + Duration::from_nanos(1);
        Self { interval, burst, full_at: None }
    }

    /// Takes over what another bucket has given out.
    pub(super) fn continuing(self, other: &Self) -> Self {
        Self { full_at: other.full_at, ..self }
    }

    /// The first moment at which a message may go; `None` for at once.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let at = self.full_at?.checked_sub(self.interval * (self.burst - 1))?;
        (at > now).then_some(at)
    }

    /// How many messages may go at once.
    pub(super) fn available(&self, now: Instant) -> usize {
        let owed = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let free = (self.interval * self.burst).saturating_sub(owed);
        usize::try_from(free.as_nanos() / self.interval.as_nanos()).unwrap_or(usize::MAX)
    }

    /// Notes a message.
    pub(super) fn note(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + self.interval);
    }
}

/// The first wait after an answer that asks for patience.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest one.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The wait after so many such answers in a row, from 1 on.
pub(super) fn patience(answers: u32) -> Duration {
    (FIRST_WAIT * 2u32.saturating_pow(answers.saturating_sub(1).min(16))).min(LONGEST_WAIT)
}

/// The pauses of a link whose centre throttles it: each that follows at once is twice as long.
#[derive(Debug, Default)]
pub(super) struct Pause {
    began: Option<Instant>,
    until: Option<Instant>,
    in_a_row: u32,
}

impl Pause {
    /// A message sent at that moment was answered with throttling. What was under way when the pause began is
    /// answered alike and does not make it longer.
    pub(super) fn throttled(&mut self, sent: Instant, now: Instant) {
        if self.began.is_none_or(|began| sent > began) {
            self.in_a_row = self.in_a_row.saturating_add(1);
            self.began = Some(now);
            self.until = Some(now + patience(self.in_a_row));
        }
    }

    /// A message sent at that moment was accepted.
    pub(super) fn accepted(&mut self, sent: Instant) {
        if self.began.is_none_or(|began| sent > began) {
            self.in_a_row = 0;
        }
    }

    /// When the pause ends, if there is one.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

/// The waits between attempts to bind: each up to twice as long as the one before, and no two daemons alike.
#[derive(Debug)]
pub(super) struct Reconnect {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Reconnect {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// The link was good: the next wait is the first again.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next wait, up to half as long again by chance (0 to 255).
    pub(super) fn next(&mut self, chance: u8) -> Duration {
        let base = self.first.saturating_mul(2u32.saturating_pow(self.attempts.min(16)));
        self.attempts = self.attempts.saturating_add(1);
        let base = base.min(self.longest);
        (base + base * u32::from(chance) / 512).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_sees_more_messages_than_the_rate() {
        for rate in [1, 2, 3, 49, 50, 99, 500, 12_345, 100_000] {
            let mut bucket = Bucket::new(NonZeroU32::new(rate).unwrap());
            let start = Instant::now();
            let (mut now, mut sent) = (start, Vec::new());
            while now < start + Duration::from_secs(3) {
                match bucket.next(now) {
                    Some(at) => now = at,
                    None => {
                        bucket.note(now);
                        sent.push(now);
                    }
                }
            }
            for (i, from) in sent.iter().enumerate().step_by(sent.len() / 50 + 1) {
                let within = sent[i..].iter().take_while(|at| **at < *from + Duration::from_secs(1)).count();
                assert!(within <= rate as usize, "{within} within a second at {rate}");
            }
            let least = rate as usize * 3 * 95 / 100;
            assert!(sent.len() >= least, "{} in three seconds at {rate}", sent.len());
        }
    }

    #[test]
    fn what_is_available_can_be_taken_at_once() {
        let mut bucket = Bucket::new(NonZeroU32::new(500).unwrap());
        let now = Instant::now();
        assert_eq!(bucket.available(now), 10);
        for left in (0..10).rev() {
            assert_eq!(bucket.next(now), None);
            bucket.note(now);
            assert_eq!(bucket.available(now), left);
        }
        assert!(bucket.next(now).is_some());
        assert_eq!(bucket.available(now + Duration::from_secs(1)), 10);
    }

    #[test]
    fn a_pause_doubles_with_each_throttling_answer_after_it_and_not_with_those_before() {
        let mut pause = Pause::default();
        let start = Instant::now();
        pause.throttled(start, start);
        pause.throttled(start - Duration::from_millis(1), start);
        assert_eq!(pause.until(start), Some(start + Duration::from_millis(500)));
        let second = start + Duration::from_millis(500);
        assert_eq!(pause.until(second), None);
        pause.throttled(second, second);
        assert_eq!(pause.until(second), Some(second + Duration::from_secs(1)));
        pause.accepted(start);
        let third = second + Duration::from_secs(1);
        pause.throttled(third, third);
        assert_eq!(
            pause.until(third),
            Some(third + Duration::from_secs(2)),
            "an old success changes nothing"
        );
        let fourth = third + Duration::from_secs(2);
        pause.accepted(fourth);
        pause.throttled(fourth, fourth);
        assert_eq!(pause.until(fourth), Some(fourth + Duration::from_millis(500)));
        assert_eq!(patience(100), LONGEST_WAIT);
    }

    #[test]
    fn waits_between_binds_double_up_to_the_longest() {
        let mut reconnect = Reconnect::new(Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<_> = (0..8).map(|_| reconnect.next(0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        reconnect.reset();
        let wait = reconnect.next(255);
        assert!(wait > Duration::from_millis(1490) && wait < Duration::from_millis(1500), "{wait:?}");
        assert!((0..100).all(|_| reconnect.next(255) <= Duration::from_secs(60)));
    }
}
