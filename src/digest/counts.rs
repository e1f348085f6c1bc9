//! Which (nonce, count) pairs have been used: a sliding window of 64 per nonce, in bounded memory.
//!
//! A nonce is remembered from its first right answer on, in the current of two generations. When a generation has
//! lasted one nonce lifetime, or is full, it becomes the previous one and the one before is forgotten. Everything that
//! is forgotten was issued up to some time; a nonce issued up to then that is not remembered may be one of them, and
//! is refused from then on. So forgetting can cost a terminal one more round trip, and never lets a pair in twice,
//! whatever the clock does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::nonce::Nonce;
use super::window::{Refused, Window};
use crate::time::Timestamp;

const SHARDS: usize = 64;

/// The memory, for all threads.
#[derive(Debug)]
pub(super) struct Counts {
    shards: Box<[Mutex<Shard>]>,
    generation_len: usize,
    lifetime: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    current: Generation,
    previous: Generation,
    /// Nonces issued up to here may have been forgotten.
    forgotten: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Generation {
    started: Timestamp,
    latest_issue: Option<Timestamp>,
    windows: HashMap<u128, Window>,
}

impl Counts {
    /// A memory of at most `max` nonces, give or take one per shard and generation.
    pub(super) fn new(max: usize, lifetime: Duration) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect();
        Self { shards, generation_len: (max / SHARDS / 2).max(1), lifetime }
    }

    /// Uses a pair. Only for a nonce that is ours and not expired, and an answer that is right.
    pub(super) fn take(&self, nonce: Nonce, count: u32, now: Timestamp) -> Result<(), Refused> {
        let first = Window::first(count)?;
        let mut shard = self.shard(nonce.id);
        if now.since(shard.current.started) >= self.lifetime {
            shard.rotate(now);
        }
        let shard = &mut *shard;
        let known = match shard.current.windows.get_mut(&nonce.id) {
            Some(window) => Some(window),
            None => shard.previous.windows.get_mut(&nonce.id),
        };
        if let Some(window) = known {
            return window.take(count);
        }
        if shard.forgotten.is_some_and(|until| nonce.issued <= until) {
            return Err(Refused::Forgotten);
        }
        if shard.current.windows.len() >= self.generation_len {
            shard.rotate(now);
            if shard.forgotten.is_some_and(|until| nonce.issued <= until) {
                return Err(Refused::Forgotten);
            }
        }
        shard.current.windows.insert(nonce.id, first);
        shard.current.latest_issue = shard.current.latest_issue.max(Some(nonce.issued));
        Ok(())
    }

    /// How many nonces are remembered.
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.current.windows.len() + shard.previous.windows.len()
            })
            .sum()
    }

    fn shard(&self, id: u128) -> MutexGuard<'_, Shard> {
        // The low bits of a MAC are as evenly spread as any.
        let at = (id % SHARDS as u128) as usize;
        // Nothing in here panics half-way, so a poisoned shard is still right.
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn rotate(&mut self, now: Timestamp) {
        let fresh = Generation { started: now, ..Generation::default() };
        let previous = std::mem::replace(&mut self.current, fresh);
        let dropped = std::mem::replace(&mut self.previous, previous);
        self.forgotten = self.forgotten.max(dropped.latest_issue);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn nonce(id: u128, issued: u64) -> Nonce {
        Nonce { issued: Timestamp(issued), id }
    }

    #[test]
    fn a_count_is_taken_once_in_any_order_within_the_window() {
        let counts = Counts::new(1000, LIFETIME);
        let now = Timestamp(1000);
        let take = |count| counts.take(nonce(1, 1000), count, now);
        for (count, taken) in [
            (3, Ok(())),
            (1, Ok(())),
            (2, Ok(())),
            (3, Err(Refused::Replayed)),
            (1, Err(Refused::Replayed)),
            (66, Ok(())),
            (2, Err(Refused::Replayed)),
            (4, Ok(())),
            (5, Ok(())),
            (67, Ok(())),
            (3, Err(Refused::Replayed)),
            (200, Ok(())),
            (136, Err(Refused::Replayed)),
            (137, Ok(())),
            (u32::MAX, Ok(())),
            (u32::MAX, Err(Refused::Replayed)),
            (0, Err(Refused::Replayed)),
        ] {
            assert_eq!(take(count), taken, "{count}");
        }
    }

    #[test]
    fn count_zero_is_refused_from_the_start() {
        assert_eq!(Counts::new(10, LIFETIME).take(nonce(1, 0), 0, Timestamp(0)), Err(Refused::Replayed));
    }

    #[test]
    fn a_nonce_is_remembered_for_at_least_its_lifetime() {
        let counts = Counts::new(1000, LIFETIME);
        let start = Timestamp(1_000_000);
        assert_eq!(counts.take(nonce(1, start.0), 1, start + LIFETIME / 2), Ok(()));
        for tenth in 0..10 {
            let now = start + LIFETIME / 2 + LIFETIME / 10 * tenth;
            assert_eq!(counts.take(nonce(1, start.0), 1, now), Err(Refused::Replayed), "{tenth}");
        }
    }

    #[test]
    fn a_full_memory_forgets_the_oldest_and_refuses_what_it_may_have_forgotten() {
        // One shard (ids that are multiples of 64), two generations of one nonce each.
        let counts = Counts::new(SHARDS * 2, LIFETIME);
        let id = |n: u64| nonce(u128::from(n) * SHARDS as u128, n);
        for n in 1..=3 {
            assert_eq!(counts.take(id(n), 1, Timestamp(10)), Ok(()));
        }
        assert_eq!(counts.take(id(1), 1, Timestamp(10)), Err(Refused::Forgotten));
        assert_eq!(counts.take(id(1), 2, Timestamp(10)), Err(Refused::Forgotten));
        assert_eq!(counts.take(id(2), 1, Timestamp(10)), Err(Refused::Replayed), "still remembered");
        assert_eq!(
            counts.take(nonce(SHARDS as u128 * 99, 1), 1, Timestamp(10)),
            Err(Refused::Forgotten),
            "as old as it"
        );
        assert!(counts.len() <= 2);
    }

    #[test]
    fn a_clock_that_steps_back_brings_no_pair_back() {
        let counts = Counts::new(1000, LIFETIME);
        let start = Timestamp(1_000_000_000);
        assert_eq!(counts.take(nonce(64, start.0), 1, start), Ok(()));
        let much_later = start + LIFETIME * 3;
        // Two rotations forget the first nonce.
        assert_eq!(counts.take(nonce(128, much_later.0), 1, much_later), Ok(()));
        assert_eq!(counts.take(nonce(192, much_later.0), 1, much_later + LIFETIME), Ok(()));
        assert_eq!(counts.take(nonce(64, start.0), 1, start), Err(Refused::Forgotten));
    }

    #[test]
    fn of_many_threads_with_one_pair_one_gets_it() {
        let counts = Counts::new(1000, LIFETIME);
        for count in 1..=200 {
            let fresh = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        if counts.take(nonce(5, 0), count, Timestamp(0)) == Ok(()) {
                            fresh.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(fresh.into_inner(), 1, "count {count}");
        }
    }

    proptest! {
        #[test]
        fn no_pair_is_ever_taken_twice_and_the_memory_stays_bounded(
            steps in prop::collection::vec((0u64..40, 1u32..80, -400i64..900), 1..400),
        ) {
            let counts = Counts::new(SHARDS * 8, Duration::from_millis(1000));
            let mut used = std::collections::HashSet::new();
            let mut now = 100_000i64;
            for (n, count, step) in steps {
                now = (now + step).max(0);
                let now = Timestamp(now.unsigned_abs());
                // Issue times rise with the number but not evenly; all in one shard.
                let nonce = nonce(u128::from(n) * SHARDS as u128, 100_000 + n / 3 * 200);
                if counts.take(nonce, count, now) == Ok(()) {
                    prop_assert!(used.insert((n, count)), "taken twice: {:?}", (n, count));
                }
                prop_assert!(counts.len() <= 8);
            }
        }
    }
}
