//! What an engine keeps in memory beside its records: what is due when, whose message was whose, how long commits took.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Lane;
use super::due::DueQueue;
use super::messages::Messages;
use crate::delivery::{MessageId, Terminal};
use crate::id::TerminalKey;
use crate::time::Timestamp;

/// Commit times that are kept until somebody takes them.
const COMMIT_TIMES: usize = 4096;

/// What the queues in memory are fed with.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// When whose deliveries have to be looked at.
    pub(super) looks: Vec<(Timestamp, TerminalKey)>,
    /// When whose turn by SMS comes.
    pub(super) turns: Vec<(Timestamp, TerminalKey)>,
    /// Which terminal a short message went to.
    pub(super) messages: Vec<(MessageId, TerminalKey)>,
}

impl Hints {
    /// Everything that a terminal's record tells.
    pub(super) fn of(&mut self, t: &Terminal) {
        self.looks.extend(t.next_due().map(|at| (at, t.key)));
        self.turns.extend(t.next_turn().map(|at| (at, t.key)));
        let legs = t.deliveries.iter().filter_map(|d| d.sms.as_deref());
        self.messages.extend(legs.flat_map(|leg| &leg.ids).map(|id| (id.clone(), t.key)));
    }

    /// What a change tells that was not known before.
    pub(super) fn of_change(&mut self, before: &Terminal, after: &Terminal) {
        let news = |new: Option<Timestamp>, old| new.filter(|at| old != Some(*at));
        self.looks.extend(news(after.next_due(), before.next_due()).map(|at| (at, after.key)));
        self.turns.extend(news(after.next_turn(), before.next_turn()).map(|at| (at, after.key)));
        for leg in after.deliveries.iter().filter_map(|d| d.sms.as_deref()) {
            self.messages.extend(leg.ids.iter().map(|id| (id.clone(), after.key)));
        }
    }

    /// Adds others behind these.
    pub(super) fn append(&mut self, mut other: Self) {
        self.looks.append(&mut other.looks);
        self.turns.append(&mut other.turns);
        self.messages.append(&mut other.messages);
    }

    pub(super) fn clear(&mut self) {
        self.looks.clear();
        self.turns.clear();
        self.messages.clear();
    }
}

/// The queues, for all threads.
#[derive(Debug, Default)]
pub(super) struct Queues {
    looks: Mutex<DueQueue>,
    turns: Mutex<DueQueue>,
    messages: Mutex<Messages>,
    times: Mutex<Vec<f64>>,
}

/// A lock whose holder cannot leave it half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queues {
    fn lane(&self, lane: Lane) -> &Mutex<DueQueue> {
        match lane {
            Lane::Look => &self.looks,
            Lane::Sms => &self.turns,
        }
    }

    /// Lets the queues know what a commit or a scan found.
    pub(super) fn feed(&self, hints: &mut Hints) {
        let mut looks = lock(&self.looks);
        hints.looks.drain(..).for_each(|(at, key)| looks.feed(at, key));
        drop(looks);
        if !hints.turns.is_empty() {
            let mut turns = lock(&self.turns);
            hints.turns.drain(..).for_each(|(at, key)| turns.feed(at, key));
        }
        if !hints.messages.is_empty() {
            let mut messages = lock(&self.messages);
            hints.messages.drain(..).for_each(|(id, key)| messages.feed(id, key));
        }
    }

    /// Takes what is due in a lane, the earliest first.
    pub(super) fn take_due(&self, lane: Lane, now: Timestamp, limit: usize) -> Vec<TerminalKey> {
        lock(self.lane(lane)).take(now, limit)
    }

    /// The earliest due time of a lane.
    pub(super) fn next_due(&self, lane: Lane) -> Option<Timestamp> {
        lock(self.lane(lane)).next()
    }

    /// Entries of a lane.
    pub(super) fn due_len(&self, lane: Lane) -> usize {
        lock(self.lane(lane)).len()
    }

    /// Whose messages these were.
    pub(super) fn terminals_of_messages(&self, ids: &[MessageId]) -> Vec<Option<TerminalKey>> {
        let messages = lock(&self.messages);
        ids.iter().map(|id| messages.terminal(id)).collect()
    }

    /// Forgets all but the times of commits.
    pub(super) fn clear(&self) {
        lock(&self.looks).clear();
        lock(&self.turns).clear();
        lock(&self.messages).clear();
    }

    /// Notes how long a commit took.
    pub(super) fn note_commit(&self, took: Duration) {
        let mut times = lock(&self.times);
        if times.len() < COMMIT_TIMES {
            times.push(took.as_secs_f64());
        }
    }

    /// The times of commits since they were last taken, in seconds.
    pub(super) fn take_commit_times(&self) -> Vec<f64> {
        std::mem::take(&mut *lock(&self.times))
    }
}
