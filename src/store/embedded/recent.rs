//! Records that were read or written a moment ago: a request reads its terminal to know who it is, and its
//! update reads it again on the committer's thread, where time is dearest.
//!
//! What is kept is what is committed. A reader may have read before a commit what it wants to keep after
//! it; so it keeps nothing when a commit ended in between.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::Slice;

use super::spaces::Raw;
use crate::id::{SubscriberId, TerminalKey};

/// Entries of one generation; two are kept. About 10 MiB altogether.
const GENERATION: usize = 8192;

/// Two generations of entries: what is used again in the second goes back to the first.
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> Generations<K, V> {
    fn new() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.put(key.clone(), value.clone());
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn replace(&mut self, key: &K, value: V) {
        if let Some(known) = self.young.get_mut(key) {
            *known = value;
        } else if let Some(known) = self.old.get_mut(key) {
            *known = value;
        }
    }

    fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

struct Inner {
    /// Commits that ended.
    commits: u64,
    terminals: Generations<TerminalKey, Raw>,
    subscribers: Generations<SubscriberId, Option<Slice>>,
}

/// The recent records.
pub(super) struct Recent(Mutex<Inner>);

/// What a read was preceded by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(u64);

impl Recent {
    pub(super) fn new() -> Self {
        let (terminals, subscribers) = (Generations::new(), Generations::new());
        Self(Mutex::new(Inner { commits: 0, terminals, subscribers }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked before reading what is to be kept.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.lock().commits)
    }

    pub(super) fn terminal(&self, key: TerminalKey) -> Option<Raw> {
        self.lock().terminals.get(&key)
    }

    pub(super) fn subscriber(&self, id: &SubscriberId) -> Option<Option<Slice>> {
        self.lock().subscribers.get(id)
    }

    /// Keeps what was read after `moment`, unless a commit ended since.
    pub(super) fn keep_terminal(&self, moment: Moment, key: TerminalKey, raw: &Raw) {
        let mut inner = self.lock();
        if inner.commits == moment.0 {
            inner.terminals.put(key, raw.clone());
        }
    }

    /// See [`Recent::keep_terminal`].
    pub(super) fn keep_subscriber(&self, moment: Moment, id: &SubscriberId, octets: &Option<Slice>) {
        let mut inner = self.lock();
        if inner.commits == moment.0 {
            inner.subscribers.put(id.clone(), octets.clone());
        }
    }

    /// Notes what a commit changed.
    pub(super) fn committed<'a>(
        &self,
        terminals: impl Iterator<Item = (TerminalKey, &'a Raw)>,
        subscribers: impl Iterator<Item = &'a SubscriberId>,
    ) {
        let mut inner = self.lock();
        inner.commits += 1;
        for (key, raw) in terminals {
            inner.terminals.replace(&key, raw.clone());
        }
        for id in subscribers {
            inner.subscribers.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(octet: u8) -> Raw {
        Raw { credential: None, state: Some(Slice::from(vec![octet])) }
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_kept_after_it() {
        let recent = Recent::new();
        let key = TerminalKey::MIN;
        let before = recent.moment();
        recent.committed([(key, &raw(2))].into_iter(), [].into_iter());
        recent.keep_terminal(before, key, &raw(1));
        assert_eq!(recent.terminal(key), None);
        recent.keep_terminal(recent.moment(), key, &raw(2));
        assert_eq!(recent.terminal(key), Some(raw(2)));
    }

    #[test]
    fn a_commit_replaces_what_is_kept_in_either_generation() {
        let recent = Recent::new();
        let key = |n: usize| TerminalKey((n as u128).to_be_bytes());
        for n in 0..GENERATION + 10 {
            recent.keep_terminal(recent.moment(), key(n), &raw(1));
        }
        let (old, young) = (key(3), key(GENERATION + 3));
        recent.committed([(old, &raw(2)), (young, &raw(2))].into_iter(), [].into_iter());
        assert_eq!((recent.terminal(old), recent.terminal(young)), (Some(raw(2)), Some(raw(2))));
    }

    #[test]
    fn no_more_than_two_generations_are_kept() {
        let recent = Recent::new();
        for n in 0..5 * GENERATION {
            recent.keep_terminal(recent.moment(), TerminalKey((n as u128).to_be_bytes()), &raw(1));
        }
        let inner = recent.lock();
        assert!(inner.terminals.young.len() + inner.terminals.old.len() <= 2 * GENERATION);
        assert!(!inner.terminals.old.contains_key(&TerminalKey::MIN));
    }
}
