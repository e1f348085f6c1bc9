//! What is due when: buckets of a tenth of a second, 16 octets an entry.
//!
//! An entry is a hint. It may be stale, never early: who takes it looks at the terminal's record again.

use std::collections::BTreeMap;

use crate::id::TerminalKey;
use crate::time::Timestamp;

/// Milliseconds to a bucket.
const TICK: u64 = 100;

/// The queue of due times.
#[derive(Debug, Default)]
pub(super) struct DueQueue {
    /// What waits, by the tick at whose begin it is due.
    buckets: BTreeMap<u64, Vec<TerminalKey>>,
    /// The rest of the bucket that is being given out, and its tick.
    current: Vec<TerminalKey>,
    current_tick: u64,
    /// Entries of both.
    len: usize,
}

impl DueQueue {
    /// Puts a terminal in for the moment it is due at, rounded up to the tick.
    pub(super) fn feed(&mut self, due: Timestamp, key: TerminalKey) {
        self.buckets.entry(due.0.div_ceil(TICK)).or_default().push(key);
        self.len += 1;
    }

    /// Entries that wait; one terminal may have several.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes what is due, the earliest first. One terminal's entries of one tick are one.
    pub(super) fn take(&mut self, now: Timestamp, limit: usize) -> Vec<TerminalKey> {
        let mut taken = Vec::new();
        let tick = now.0 / TICK;
        while taken.len() < limit {
            if self.current.is_empty() {
                let Some(entry) = self.buckets.first_entry().filter(|e| *e.key() <= tick) else { break };
                self.current_tick = *entry.key();
                self.current = entry.remove();
                self.current.sort_unstable();
                self.len -= self.current.len();
                self.current.dedup();
                self.len += self.current.len();
            }
            let n = self.current.len().min(limit - taken.len());
            taken.extend(self.current.drain(self.current.len() - n..));
            self.len -= n;
        }
        if self.current.is_empty() {
            self.current = Vec::new();
        }
        taken
    }

    /// The earliest due time, rounded up to the tick.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let current = (!self.current.is_empty()).then_some(self.current_tick);
        let tick = current.or_else(|| self.buckets.first_key_value().map(|(t, _)| *t))?;
        Some(Timestamp(tick.saturating_mul(TICK)))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> TerminalKey {
        TerminalKey([n; 16])
    }

    #[test]
    fn nothing_is_given_out_before_it_is_due() {
        let mut queue = DueQueue::default();
        queue.feed(Timestamp(1001), key(1));
        assert_eq!(queue.next(), Some(Timestamp(1100)));
        assert_eq!(queue.take(Timestamp(1099), 10), []);
        assert_eq!(queue.take(Timestamp(1100), 10), [key(1)]);
        assert_eq!(queue.take(Timestamp(9999), 10), []);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn the_earliest_come_first_and_the_limit_holds() {
        let mut queue = DueQueue::default();
        for n in [3, 1, 2] {
            queue.feed(Timestamp(u64::from(n) * 1000), key(n));
        }
        queue.feed(Timestamp(1000), key(1));
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.take(Timestamp(5000), 2), [key(1), key(2)]);
        assert_eq!((queue.next(), queue.len()), (Some(Timestamp(3000)), 1), "one came twice");
        assert_eq!(queue.take(Timestamp(5000), 2), [key(3)]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn entries_fed_while_a_bucket_is_given_out_are_not_lost() {
        let mut queue = DueQueue::default();
        queue.feed(Timestamp(100), key(1));
        queue.feed(Timestamp(100), key(2));
        let first = queue.take(Timestamp(100), 1);
        queue.feed(Timestamp(100), key(3));
        let mut rest = queue.take(Timestamp(100), 9);
        rest.extend(first);
        rest.sort_unstable();
        assert_eq!(rest, [key(1), key(2), key(3)]);
    }
}
