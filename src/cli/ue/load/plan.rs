//! What a load run does and when: the mix of procedures, the pace, and the end.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::procedure::Procedure;

/// The largest weight of a procedure.
const MAX_WEIGHT: u32 = 1_000_000;

/// How often each procedure is chosen, as weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mix {
    weights: [u32; 3],
}

impl Mix {
    /// The procedure that a random number chooses.
    fn choose(self, random: u64) -> Procedure {
        let total: u64 = self.weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut at = random % total;
        for (procedure, weight) in Procedure::ALL.into_iter().zip(self.weights) {
            match at.checked_sub(u64::from(weight)) {
                None => return procedure,
                Some(left) => at = left,
            }
        }
        Procedure::Register
    }
}

impl FromStr for Mix {
    type Err = &'static str;

    /// Reads `register=8,msk-request=1,deregister=1`; what is left out is not done.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "must be like register=8,msk-request=1,deregister=1";
        let mut weights = [0; 3];
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let procedure =
                Procedure::ALL.into_iter().find(|p| p.request_type() == name.trim()).ok_or(WRONG)?;
            let weight: u32 = weight.trim().parse().map_err(|_| WRONG)?;
            if weight > MAX_WEIGHT || weights[procedure as usize] != 0 {
                return Err(WRONG);
            }
            weights[procedure as usize] = weight;
        }
        if weights.iter().all(|weight| *weight == 0) { Err(WRONG) } else { Ok(Self { weights }) }
    }
}

/// When requests are made, shared by all connections.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    rate: Option<f64>,
    ends: Option<Instant>,
    taken: AtomicU64,
    stopped: AtomicBool,
}

impl Pace {
    /// Begins now: `rate` requests a second, for `duration` when there is one.
    pub(super) fn begin(rate: Option<f64>, duration: Option<Duration>) -> Self {
        let began = Instant::now();
        let ends = duration.map(|duration| began + duration);
        Self { began, rate, ends, taken: AtomicU64::new(0), stopped: AtomicBool::new(false) }
    }

    /// When requests began to be made.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// When they end, if that is known beforehand.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// No more requests are made from now on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// When the nth request is due, if the pace has a rate; none when that is past the end.
    fn due(&self, nth: u64, rate: f64) -> Option<Instant> {
        let due = self.began + Duration::from_secs_f64(nth as f64 / rate);
        self.ends.is_none_or(|ends| due < ends).then_some(due)
    }

    /// Waits for the next request's turn, and gives the moment it is due: latency counts from there, so that a
    /// daemon that falls behind cannot hide it. None when the run is over.
    pub(super) async fn turn(&self) -> Option<Instant> {
        let due = match self.rate {
            None => Instant::now(),
            Some(rate) => {
                let due = self.due(self.taken.fetch_add(1, Ordering::Relaxed), rate)?;
                tokio::time::sleep_until(due).await;
                due
            }
        };
        let over = self.ends.is_some_and(|ends| Instant::now() >= ends);
        (!over && !self.is_stopped()).then_some(due)
    }
}

/// One connection's choices: a stream of random numbers that begins at its own number (SplitMix64).
#[derive(Debug)]
pub(super) struct Choices {
    mix: Mix,
    state: u64,
}

impl Choices {
    pub(super) fn new(mix: Mix, connection: usize) -> Self {
        Self { mix, state: connection as u64 }
    }

    /// What a terminal does next: it registers when it is not registered, else what the mix says. Without a key it
    /// cannot ask for one by its group.
    pub(super) fn next(&mut self, registered: bool, holds_key: impl FnOnce() -> bool) -> Procedure {
        if !registered {
            return Procedure::Register;
        }
        match self.mix.choose(self.draw()) {
            Procedure::MskRequest if !holds_key() => Procedure::Register,
            procedure => procedure,
        }
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_followed() {
        let mix: Mix = "register=8,msk-request=1,deregister=1".parse().unwrap();
        let mut choices = Choices::new(mix, 7);
        let mut counts = [0u32; 3];
        for _ in 0..10_000 {
            counts[choices.next(true, || true) as usize] += 1;
        }
        let [register, deregister, msk_request] = counts;
        assert!((7_500..8_500).contains(&register), "{counts:?}");
        assert!((800..1_200).contains(&deregister) && (800..1_200).contains(&msk_request), "{counts:?}");
        assert_eq!("register".parse(), Ok(Mix { weights: [1, 0, 0] }));
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for text in
            ["", "register=0", "register=1,register=1", "pull=1", "register=x", "register=1000001", ","]
        {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_terminal_registers_before_it_does_anything_else() {
        let mut choices = Choices::new("deregister=1".parse().unwrap(), 0);
        assert_eq!(choices.next(false, || false), Procedure::Register);
        assert_eq!(choices.next(true, || true), Procedure::Deregister);
        let mut choices = Choices::new("msk-request=1".parse().unwrap(), 0);
        assert_eq!(choices.next(true, || false), Procedure::Register);
        assert_eq!(choices.next(true, || true), Procedure::MskRequest);
    }

    #[test]
    fn turns_come_at_the_rate_and_end_with_the_duration() {
        let pace = Pace::begin(Some(10.0), Some(Duration::from_secs(1)));
        let due = |nth| pace.due(nth, 10.0).map(|due| due.duration_since(pace.began()).as_millis());
        assert_eq!([due(0), due(1), due(9), due(10)], [Some(0), Some(100), Some(900), None]);
    }

    #[tokio::test]
    async fn a_turn_that_comes_late_is_still_due_when_it_was() {
        let pace = Pace::begin(Some(1e6), None);
        for nth in 0..1000 {
            let due = pace.turn().await.unwrap();
            assert_eq!(due.duration_since(pace.began()), Duration::from_micros(nth));
        }
    }

    #[tokio::test]
    async fn no_turn_comes_after_the_stop() {
        let pace = Pace::begin(None, None);
        assert!(pace.turn().await.is_some());
        pace.stop();
        assert!(pace.turn().await.is_none() && pace.is_stopped());
    }
}
