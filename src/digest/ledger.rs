//! The nonces that one terminal has in use, as its record carries them: for nodes that share a store.
//!
//! A few nonces with their windows. What is forgotten, because it has expired or there is no room, was issued up to
//! some time; a nonce issued up to then that is not remembered may be one of them, and is refused from then on. So
//! forgetting can cost a terminal one more round trip, and never lets a pair in twice, whatever the clocks of the nodes
//! do and whatever lifetime each of them gives a nonce.

use std::time::Duration;

use super::window::{Refused, Window};
use crate::time::Timestamp;

/// Nonces that are remembered for one terminal.
const MOST: usize = 8;

/// A (nonce, count) pair that a right answer came with, to be used up in the commit of what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceUse {
    /// What the nonce is remembered by.
    pub id: u128,
    /// The count.
    pub nc: u32,
    /// When the nonce was made.
    pub issued: Timestamp,
}

/// A terminal's nonces in use: at most 8.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NonceLedger {
    /// By age, the oldest first; none was issued before `forgotten`.
    nonces: Vec<Remembered>,
    /// Nonces issued up to here may have been forgotten.
    forgotten: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    issued: Timestamp,
    id: u128,
    window: Window,
}

/// One remembered nonce, for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NonceParts {
    /// When it was made.
    pub(crate) issued: Timestamp,
    /// What it is remembered by.
    pub(crate) id: u128,
    /// The highest count that was used.
    pub(crate) highest: u32,
    /// Bit n: the count `highest - n` was used.
    pub(crate) seen: u64,
}

impl NonceLedger {
    /// Whether no nonce was ever used.
    pub fn is_empty(&self) -> bool {
        self.nonces.is_empty() && self.forgotten.is_none()
    }

    /// How many nonces are remembered, at most 8.
    pub fn len(&self) -> usize {
        self.nonces.len()
    }

    /// Uses a pair up. Only for a nonce that is ours and not expired, and an answer that is right. Nonces older than
    /// `lifetime` are forgotten, and the oldest where there is no room.
    ///
    /// # Errors
    /// The pair must not be acted upon. Nothing has changed.
    pub fn use_up(&mut self, used: NonceUse, lifetime: Duration, now: Timestamp) -> Result<(), Refused> {
        let expired = self.nonces.partition_point(|n| now.since(n.issued) >= lifetime);
        if let Some(known) = self.nonces.iter_mut().find(|n| n.id == used.id) {
            known.window.take(used.nc)?;
            self.forget(expired);
            return Ok(());
        }
        let window = Window::first(used.nc)?;
        let too_many = (self.nonces.len() + 1).saturating_sub(MOST);
        let gone = expired.max(too_many);
        if self.forgotten_with(gone).is_some_and(|until| used.issued <= until) {
            return Err(Refused::Forgotten);
        }
        self.forget(gone);
        let at = self.nonces.partition_point(|n| (n.issued, n.id) < (used.issued, used.id));
        self.nonces.insert(at, Remembered { issued: used.issued, id: used.id, window });
        Ok(())
    }

    /// Up to when what is forgotten was issued, once the `gone` oldest are forgotten too.
    fn forgotten_with(&self, gone: usize) -> Option<Timestamp> {
        self.forgotten.max(self.nonces[..gone].last().map(|n| n.issued))
    }

    fn forget(&mut self, gone: usize) {
        self.forgotten = self.forgotten_with(gone);
        self.nonces.drain(..gone);
    }

    /// Up to when what was forgotten was issued, for a record.
    pub(crate) fn forgotten(&self) -> Option<Timestamp> {
        self.forgotten
    }

    /// What is remembered, by age, for a record.
    pub(crate) fn parts(&self) -> impl ExactSizeIterator<Item = NonceParts> {
        self.nonces.iter().map(|n| {
            let (highest, seen) = n.window.parts();
            NonceParts { issued: n.issued, id: n.id, highest, seen }
        })
    }

    /// Takes up what a record has; none when no sequence of uses leaves it.
    pub(crate) fn from_parts(forgotten: Option<Timestamp>, parts: &[NonceParts]) -> Option<Self> {
        let remembered = |p: &NonceParts| {
            let window = Window::from_parts(p.highest, p.seen)?;
            Some(Remembered { issued: p.issued, id: p.id, window })
        };
        let nonces = parts.iter().map(remembered).collect::<Option<Vec<_>>>()?;
        let sorted = nonces.is_sorted_by(|a, b| (a.issued, a.id) < (b.issued, b.id));
        let once = nonces.iter().enumerate().all(|(i, n)| nonces[..i].iter().all(|m| m.id != n.id));
        let since = nonces.first().is_none_or(|oldest| Some(oldest.issued) >= forgotten);
        (nonces.len() <= MOST && sorted && once && since).then_some(Self { nonces, forgotten })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);
    const START: Timestamp = Timestamp(1_795_000_000_000);

    /// The n-th nonce, issued n seconds after the start.
    fn used(n: u64, nc: u32) -> NonceUse {
        NonceUse { id: u128::from(n) << 64 | 7, nc, issued: START + Duration::from_secs(n) }
    }

    fn at(second: u64) -> Timestamp {
        START + Duration::from_secs(second)
    }

    #[test]
    fn a_pair_is_taken_once_and_a_refused_one_changes_nothing() {
        let mut ledger = NonceLedger::default();
        for (nc, taken) in [
            (3, Ok(())),
            (3, Err(Refused::Replayed)),
            (1, Ok(())),
            (1, Err(Refused::Replayed)),
            (0, Err(Refused::Replayed)),
            (66, Ok(())),
            (2, Err(Refused::Replayed)),
            (4, Ok(())),
        ] {
            let before = ledger.clone();
            assert_eq!(ledger.use_up(used(0, nc), LIFETIME, at(1)), taken, "{nc}");
            assert_eq!(ledger == before, taken.is_err(), "{nc}");
        }
        let before = ledger.clone();
        assert_eq!(ledger.use_up(used(1, 0), LIFETIME, at(1)), Err(Refused::Replayed), "counts begin at 1");
        assert_eq!(ledger, before);
    }

    #[test]
    fn eight_nonces_are_remembered_and_the_ninth_takes_the_oldest_ones_place() {
        let mut ledger = NonceLedger::default();
        // In another order than that of their age.
        for n in [3, 2, 4, 1, 8, 5, 7, 6] {
            assert_eq!(ledger.use_up(used(n, 1), LIFETIME, at(10)), Ok(()));
        }
        assert_eq!(ledger.len(), MOST);
        let full = ledger.clone();
        assert_eq!(ledger.use_up(used(0, 1), LIFETIME, at(10)), Err(Refused::Forgotten), "older than all");
        assert_eq!(ledger, full, "and none makes room for it");
        assert_eq!(ledger.use_up(used(9, 1), LIFETIME, at(10)), Ok(()));
        assert_eq!(ledger.len(), MOST);
        for nc in [1, 2] {
            assert_eq!(ledger.use_up(used(1, nc), LIFETIME, at(10)), Err(Refused::Forgotten));
        }
        let as_old = NonceUse { id: 99, ..used(1, 1) };
        assert_eq!(ledger.use_up(as_old, LIFETIME, at(10)), Err(Refused::Forgotten));
        assert_eq!(ledger.use_up(used(2, 1), LIFETIME, at(10)), Err(Refused::Replayed), "still remembered");
        assert_eq!(ledger.use_up(used(2, 2), LIFETIME, at(10)), Ok(()));
    }

    #[test]
    fn an_expired_nonce_makes_room_and_does_not_come_back_when_a_clock_is_behind() {
        let mut ledger = NonceLedger::default();
        for n in 0..8 {
            assert_eq!(ledger.use_up(used(n, 1), LIFETIME, at(10)), Ok(()));
        }
        // The first four have expired.
        assert_eq!(ledger.use_up(used(200, 1), LIFETIME, at(303)), Ok(()));
        assert_eq!(ledger.len(), 5);
        for n in 0..4 {
            assert_eq!(ledger.use_up(used(n, 2), LIFETIME, at(10)), Err(Refused::Forgotten), "{n}");
        }
        assert_eq!(ledger.use_up(used(4, 2), LIFETIME, at(303)), Ok(()));
        // Its own lifetime ends while it is used: once more, and then it is forgotten.
        assert_eq!(ledger.use_up(used(200, 2), LIFETIME, at(500)), Ok(()));
        assert_eq!(ledger.len(), 0);
        assert_eq!(ledger.use_up(used(200, 3), LIFETIME, at(499)), Err(Refused::Forgotten));
        assert!(!ledger.is_empty(), "what was forgotten is known");
    }

    #[test]
    fn what_no_uses_leave_is_no_ledger() {
        let part = |issued, id| NonceParts { issued: Timestamp(issued), id, highest: 1, seen: 1 };
        let of = |forgotten: Option<u64>, parts: &[NonceParts]| {
            NonceLedger::from_parts(forgotten.map(Timestamp), parts).is_some()
        };
        assert!(of(None, &[]) && of(Some(5), &[]) && of(Some(5), &[part(5, 1), part(5, 2), part(6, 0)]));
        assert!(!of(Some(6), &[part(5, 1)]), "older than what was forgotten");
        assert!(!of(None, &[part(5, 2), part(5, 1)]) && !of(None, &[part(6, 1), part(5, 2)]), "not by age");
        assert!(!of(None, &[part(5, 1), part(5, 1)]) && !of(None, &[part(5, 1), part(6, 1)]), "twice");
        let nine: Vec<_> = (1..=9).map(|n| part(n, 1 + u128::from(n))).collect();
        assert!(of(None, &nine[..8]) && !of(None, &nine));
        assert!(!of(None, &[NonceParts { seen: 0, ..part(5, 1) }]), "no count");
    }

    proptest! {
        /// Nodes whose clocks and lifetimes differ, over one ledger.
        #[test]
        fn no_pair_is_ever_taken_twice_at_whatever_node_and_the_ledger_stays_small(
            uses in prop::collection::vec((0u64..24, 1u32..90, 0usize..3, -200i64..400), 1..300),
        ) {
            let (skews, lifetimes) = ([0i64, 4_000, -9_000], [1_000u64, 2_000, 500]);
            let (mut ledger, mut taken, mut now) = (NonceLedger::default(), HashSet::new(), 50_000i64);
            for (n, nc, node, step) in uses {
                now = (now + step).max(0);
                let clock = Timestamp((now + skews[node]).max(0).unsigned_abs());
                // Several of one instant; their ids are in no order.
                let id = u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let used = NonceUse { id, nc, issued: Timestamp(50_000 + n / 3 * 400) };
                let before = ledger.clone();
                match ledger.use_up(used, Duration::from_millis(lifetimes[node]), clock) {
                    Ok(()) => prop_assert!(taken.insert((n, nc)), "taken twice: {:?}", (n, nc)),
                    Err(_) => prop_assert_eq!(&ledger, &before),
                }
                prop_assert!(ledger.len() <= MOST);
                let parts: Vec<_> = ledger.parts().collect();
                prop_assert_eq!(NonceLedger::from_parts(ledger.forgotten(), &parts), Some(ledger.clone()));
            }
        }

        /// On one clock forgetting costs nothing while there is room: whatever is fresh is taken.
        #[test]
        fn while_there_is_room_every_fresh_pair_within_the_window_is_taken(
            uses in prop::collection::vec((0u64..8, 1u32..64), 1..200),
        ) {
            let (mut ledger, mut taken) = (NonceLedger::default(), HashSet::new());
            for (n, nc) in uses {
                let expected = if taken.insert((n, nc)) { Ok(()) } else { Err(Refused::Replayed) };
                prop_assert_eq!(ledger.use_up(used(n, nc), LIFETIME, at(20)), expected);
            }
        }
    }
}
