//! What was read a moment ago: a request reads its terminal and its subscriber to know who it is, and its update reads
//! them again; verification messages likewise. What is kept serves one update. If somebody changed it since, the
//! update's commit fails by its version, and the next try reads anew.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::scope::{Raw, SubscriberRow};
use crate::id::{SubscriberId, TerminalKey};
use crate::store::queues::lock;

/// How long a row is kept for its update.
const KEPT: Duration = Duration::from_secs(2);

/// Rows of each kind at most; about 4 MiB altogether.
const MOST: usize = 8192;

/// Rows by their keys, and when each was read.
type Rows<K, V> = Mutex<HashMap<K, (Instant, V)>>;

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Recent {
    terminals: Rows<TerminalKey, Raw>,
    subscribers: Rows<SubscriberId, SubscriberRow>,
}

fn put<K: Eq + Hash, V>(rows: &Rows<K, V>, key: K, read: Instant, row: V) {
    let mut rows = lock(rows);
    if rows.len() >= MOST {
        rows.retain(|_, (read, _)| read.elapsed() < KEPT);
    }
    if rows.len() < MOST {
        rows.insert(key, (read, row));
    }
}

fn take<K: Eq + Hash, V>(rows: &Rows<K, V>, key: &K) -> Option<(Instant, V)> {
    lock(rows).remove(key).filter(|(read, _)| read.elapsed() < KEPT)
}

impl Recent {
    /// Keeps a terminal's row, which has just been read.
    pub(super) fn keep_terminal(&self, key: TerminalKey, raw: Raw) {
        put(&self.terminals, key, Instant::now(), raw);
    }

    /// Keeps a subscriber's row, whose reading began at this moment.
    pub(super) fn keep_subscriber(&self, id: SubscriberId, begun: Instant, row: SubscriberRow) {
        put(&self.subscribers, id, begun, row);
    }

    /// A terminal's row, once, and when it had been read.
    pub(super) fn take_terminal(&self, key: TerminalKey) -> Option<(Instant, Raw)> {
        take(&self.terminals, &key)
    }

    /// A subscriber's row, once, if its reading began after its terminal had been read: who changes a subscriber raises
    /// its terminals' versions, so that a terminal of before fails, and a subscriber of before must not come with a
    /// terminal of after.
    pub(super) fn take_subscriber(&self, id: &SubscriberId, after: Instant) -> Option<SubscriberRow> {
        take(&self.subscribers, id).filter(|(begun, _)| *begun >= after).map(|(_, row)| row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::SubscriberRecord;

    #[test]
    fn a_row_serves_once_and_only_so_many_are_kept() {
        let recent = Recent::default();
        let key = |n: usize| {
            let mut key = TerminalKey::MIN;
            key.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
            key
        };
        for n in 0..=MOST {
            recent.keep_terminal(key(n), Raw { version: n as i64, ..Raw::default() });
        }
        assert_eq!(recent.take_terminal(key(7)).map(|(_, raw)| raw.version), Some(7));
        assert!(recent.take_terminal(key(7)).is_none());
        assert!(recent.take_terminal(key(MOST)).is_none(), "there was no room");
        recent.keep_terminal(key(MOST), Raw::default());
        assert!(recent.take_terminal(key(MOST)).is_some());
    }

    #[test]
    fn a_subscriber_of_before_does_not_come_with_a_terminal_of_after() {
        let recent = Recent::default();
        let id = SubscriberId::new("a@ims.example").expect("an IMPI");
        let record = SubscriberRecord { subscriber: None, terminals: Vec::new() };
        let row = SubscriberRow { version: 1, record };
        let begun = Instant::now();
        recent.keep_terminal(TerminalKey::MIN, Raw::default());
        let (read, _) = recent.take_terminal(TerminalKey::MIN).expect("it is kept");
        recent.keep_subscriber(id.clone(), begun, row.clone());
        assert_eq!(recent.take_subscriber(&id, read).is_some(), begun >= read);
        recent.keep_subscriber(id.clone(), read, row);
        assert!(recent.take_subscriber(&id, read).is_some());
    }
}
