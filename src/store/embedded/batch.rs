//! The changes that the next commit holds, and reading through them.

use std::collections::{BTreeMap, HashMap, HashSet};

use fjall::{PersistMode, Slice};

use super::holders::HolderCounts;
use super::spaces::{Raw, Spaces, damaged, member_key, small, unavailable};
use crate::delivery::Terminal;
use crate::id::{JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::store::queues::Hints;
use crate::store::record::{self, SubscriberRecord, Totals};
use crate::store::tally::Tally;
use crate::store::{Job, Scope, StoreError, View};
use crate::time::Timestamp;

/// A terminal's new records and which of them differ from what is on disk.
#[derive(Debug, Default)]
struct Staged {
    raw: Raw,
    credential_dirty: bool,
    state_dirty: bool,
}

/// What one decision changed of one terminal.
struct Change {
    raw: Raw,
    new: Raw,
    /// Without the credential.
    before: Terminal,
    after: Terminal,
    /// The subscriber before and after, when the credential changed.
    moved: Option<(Option<SubscriberId>, Option<SubscriberId>)>,
}

/// Changes that are decided and not yet durable.
pub(super) struct Batch {
    terminals: HashMap<TerminalKey, Staged>,
    members: HashMap<(ServiceNo, TerminalKey), bool>,
    subscribers: HashMap<SubscriberId, SubscriberRecord>,
    jobs: BTreeMap<JobId, Job>,
    small: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What the queues in memory get to know with the commit.
    pub(super) hints: Hints,
    /// The counters as the commit leaves them.
    pub(super) totals: Totals,
    totals_dirty: bool,
    /// Who holds which key, as the commit leaves it.
    pub(super) holders: HolderCounts,
    now: Timestamp,
    /// Kept for its room: large pieces of memory that come and go are dear.
    changes: Vec<Change>,
}

impl Batch {
    /// A batch without a change.
    pub(super) fn new(totals: Totals, holders: HolderCounts) -> Self {
        Self {
            terminals: HashMap::new(),
            members: HashMap::new(),
            subscribers: HashMap::new(),
            jobs: BTreeMap::new(),
            small: BTreeMap::new(),
            hints: Hints::default(),
            totals,
            totals_dirty: false,
            holders,
            now: Timestamp::now(),
            changes: Vec::new(),
        }
    }

    /// Whether a commit would write nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.terminals.is_empty()
            && self.members.is_empty()
            && self.subscribers.is_empty()
            && self.jobs.is_empty()
            && self.small.is_empty()
            && !self.totals_dirty
            && self.holders.is_clean()
    }

    /// Begins the next batch: what was committed is on disk, and there alone.
    pub(super) fn clear(&mut self) {
        self.terminals.clear();
        self.members.clear();
        self.subscribers.clear();
        self.jobs.clear();
        self.small.clear();
        self.hints.clear();
        self.totals_dirty = false;
        self.holders.clean();
        self.now = Timestamp::now();
    }

    /// A terminal's records with this batch's changes.
    pub(super) fn raw(&self, spaces: &Spaces, key: TerminalKey) -> Result<Raw, StoreError> {
        match self.terminals.get(&key) {
            Some(staged) => Ok(staged.raw.clone()),
            None => spaces.raw(key),
        }
    }

    /// A terminal's state record with this batch's changes.
    pub(super) fn state(&self, spaces: &Spaces, key: TerminalKey) -> Result<Option<Slice>, StoreError> {
        match self.terminals.get(&key) {
            Some(staged) => Ok(staged.raw.state.clone()),
            None => spaces.state.get(key.0).map_err(unavailable),
        }
    }

    /// A subscriber's record with this batch's changes.
    pub(super) fn subscriber(
        &self,
        spaces: &Spaces,
        id: &SubscriberId,
    ) -> Result<Option<SubscriberRecord>, StoreError> {
        match self.subscribers.get(id) {
            Some(record) => Ok(Some(record.clone())),
            None => spaces.subscriber(id),
        }
    }

    /// A job with this batch's changes.
    pub(super) fn job(&self, spaces: &Spaces, id: JobId) -> Result<Option<Job>, StoreError> {
        match self.jobs.get(&id) {
            Some(job) => Ok(Some(job.clone())),
            None => spaces.job(id),
        }
    }

    /// Puts a job in as it is, settled.
    pub(super) fn put_job(&mut self, mut job: Job) {
        job.settle(self.now);
        self.jobs.insert(job.id, job);
    }

    /// The jobs that this batch changes.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Moves a job's cursor. `job`: as it was read before its page's changes were taken over.
    pub(super) fn move_cursor(&mut self, job: Job, cursor: Option<TerminalKey>) {
        let job = self.jobs.get(&job.id).cloned().unwrap_or(job);
        self.put_job(Job { cursor, ..job });
    }

    /// Puts a record of the small keyspace in, or takes it out.
    pub(super) fn put_small(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.small.insert(key, value);
    }

    /// A record of the small keyspace with this batch's changes.
    pub(super) fn small(&self, spaces: &Spaces, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        match self.small.get(key) {
            Some(value) => Ok(value.as_ref().map(Slice::from)),
            None => spaces.small.get(key).map_err(unavailable),
        }
    }

    /// Keys of the small keyspace that begin with `prefix` and have a value in this batch.
    pub(super) fn small_keys(&self, prefix: Vec<u8>) -> Vec<Vec<u8>> {
        let of_prefix = self.small.iter().filter(|(k, v)| k.starts_with(&prefix) && v.is_some());
        of_prefix.map(|(k, _)| k.clone()).collect()
    }

    /// Marks the counters as changed.
    pub(super) fn touch_totals(&mut self) -> &mut Totals {
        self.totals_dirty = true;
        &mut self.totals
    }

    /// Takes over what a decision made of the view of a scope. `read`: the terminals' records as the decision
    /// got them, by key. Either all of it is taken over or, on an error, nothing.
    pub(super) fn absorb(
        &mut self,
        spaces: &Spaces,
        scope: &Scope,
        read: &[(TerminalKey, Raw)],
        view: View,
    ) -> Result<(), StoreError> {
        // Who looks at what is due took it from the queue: it is put in again, even at the same time.
        let refeed = matches!(scope, Scope::Terminals(_) | Scope::Due(_));
        let repeats = !matches!(scope, Scope::Terminals(_) | Scope::Due(_) | Scope::Page(..));
        let mut hints = Hints::default();
        let mut changes = std::mem::take(&mut self.changes);
        changes.clear();
        let mut unchanged = |t: &Terminal| {
            if refeed {
                hints.of(t);
            }
        };
        self.find_changes(spaces, read, view.terminals, &mut changes, &mut unchanged)?;
        if repeats {
            keep_last(&mut changes);
        }
        let mut subscribers = self.changed_subscribers(spaces, view.subscribers)?;
        for change in &changes {
            self.rehome(spaces, change, &mut subscribers)?;
        }
        let mut tally = Tally::default();
        for change in &changes {
            tally.change(&change.before, &change.after);
            tally.terminals += i64::from(change.new.state.is_some()) - i64::from(change.raw.state.is_some());
        }
        let mut jobs = Vec::with_capacity(tally.jobs.len());
        for (id, change) in &tally.jobs {
            // A delivery may name a job that was never written: nobody counts it.
            if let Some(mut job) = self.job(spaces, *id)? {
                let before = job.clone();
                change.apply(&mut job);
                if job != before {
                    jobs.push(job);
                }
            }
        }

        // From here on nothing fails.
        let before = self.totals.clone();
        tally.apply(&mut self.totals);
        self.totals_dirty |= before != self.totals;
        self.holders.apply(&tally.holders);
        for job in jobs {
            self.put_job(job);
        }
        self.subscribers.extend(subscribers);
        for change in changes.drain(..) {
            self.stage(change, refeed, &mut hints);
        }
        self.changes = changes;
        self.hints.append(hints);
        Ok(())
    }

    fn find_changes(
        &self,
        spaces: &Spaces,
        read: &[(TerminalKey, Raw)],
        terminals: Vec<Terminal>,
        changes: &mut Vec<Change>,
        unchanged: &mut impl FnMut(&Terminal),
    ) -> Result<(), StoreError> {
        let (mut state, mut credential) = (Vec::with_capacity(256), Vec::with_capacity(512));
        let first_t = spaces.first_t;
        for (i, after) in terminals.into_iter().enumerate() {
            let key = after.key;
            let as_read = match read.get(i).filter(|(k, _)| *k == key) {
                Some((_, raw)) => raw.clone(),
                None => match read.iter().find(|(k, _)| *k == key) {
                    Some((_, raw)) => raw.clone(),
                    None => self.raw(spaces, key)?,
                },
            };
            state.clear();
            record::put_state(&mut state, &after);
            credential.clear();
            after.credential.iter().for_each(|c| record::put_credential(&mut credential, c));
            let blank = as_read.state.is_none() && is_blank(&after, first_t);
            let same_state = blank || as_read.state.as_deref() == Some(&state[..]);
            let same_credential = as_read.credential.as_deref().unwrap_or_default() == credential;
            if same_state && same_credential {
                unchanged(&after);
                continue;
            }
            let mut new = as_read.clone();
            if !same_state {
                new.state = Some(Slice::from(&state[..]));
            }
            let mut moved = None;
            if !same_credential {
                let subscriber = |t: &Terminal| t.credential.as_ref().map(|c| c.subscriber.clone());
                moved = Some((subscriber(&as_read.terminal(key, first_t)?), subscriber(&after)));
                new.credential = after.credential.is_some().then(|| Slice::from(&credential[..]));
            }
            let before = Raw { credential: None, state: as_read.state.clone() }.terminal(key, first_t)?;
            changes.push(Change { raw: as_read, new, before, after, moved });
        }
        Ok(())
    }

    /// Records of subscribers that a decision changed.
    fn changed_subscribers(
        &self,
        spaces: &Spaces,
        view: BTreeMap<SubscriberId, Option<crate::store::Subscriber>>,
    ) -> Result<BTreeMap<SubscriberId, SubscriberRecord>, StoreError> {
        let mut changed = BTreeMap::new();
        for (id, subscriber) in view {
            let record = self.subscriber(spaces, &id)?;
            if record.as_ref().and_then(|r| r.subscriber.as_ref()) != subscriber.as_ref() {
                let terminals = record.map_or_else(Vec::new, |r| r.terminals);
                changed.insert(id, SubscriberRecord { subscriber, terminals });
            }
        }
        Ok(changed)
    }

    /// Moves a terminal between the lists of its old and its new subscriber.
    fn rehome(
        &self,
        spaces: &Spaces,
        change: &Change,
        subscribers: &mut BTreeMap<SubscriberId, SubscriberRecord>,
    ) -> Result<(), StoreError> {
        let Some((old, new)) = change.moved.as_ref().filter(|(old, new)| old != new) else { return Ok(()) };
        for id in [old, new].into_iter().flatten() {
            if !subscribers.contains_key(id) {
                let none = SubscriberRecord { subscriber: None, terminals: Vec::new() };
                subscribers.insert(id.clone(), self.subscriber(spaces, id)?.unwrap_or(none));
            }
            let record = subscribers.get_mut(id).expect("it was put in above");
            record.terminals.retain(|k| *k != change.after.key);
            if Some(id) == new.as_ref() {
                record.terminals.push(change.after.key);
            }
        }
        Ok(())
    }

    fn stage(&mut self, change: Change, refeed: bool, hints: &mut Hints) {
        let Change { raw, new, before, after, .. } = change;
        let (old, now) = (services(&before), services(&after));
        if old != now {
            for no in old.iter().filter(|no| !now.contains(no)) {
                self.members.insert((*no, after.key), false);
            }
            for no in now.iter().filter(|no| !old.contains(no)) {
                self.members.insert((*no, after.key), true);
            }
        }
        if refeed {
            hints.of(&after);
        } else {
            hints.of_change(&before, &after);
        }
        let staged = self.terminals.entry(after.key).or_default();
        staged.credential_dirty |= raw.credential != new.credential;
        staged.state_dirty |= raw.state != new.state;
        staged.raw = new;
    }

    /// Writes everything as one batch and syncs. After an error nothing of it may be taken for written.
    pub(super) fn commit(&self, spaces: &Spaces) -> Result<(), StoreError> {
        let mut batch = spaces.db.batch().durability(Some(PersistMode::SyncAll));
        for (key, staged) in &self.terminals {
            let records = [
                (&spaces.credential, &staged.raw.credential, staged.credential_dirty),
                (&spaces.state, &staged.raw.state, staged.state_dirty),
            ];
            for (space, value, dirty) in records {
                match value {
                    _ if !dirty => {}
                    Some(octets) => batch.insert(space, key.0, octets.clone()),
                    None => batch.remove(space, key.0),
                }
            }
        }
        for ((no, key), is_member) in &self.members {
            let key = member_key(*no, *key);
            if *is_member {
                batch.insert(&spaces.member, key, Slice::empty());
            } else {
                batch.remove(&spaces.member, key);
            }
        }
        for (id, record) in &self.subscribers {
            if record.subscriber.is_none() && record.terminals.is_empty() {
                batch.remove(&spaces.subscriber, id.as_str());
            } else {
                batch.insert(&spaces.subscriber, id.as_str(), record::put_subscriber(record));
            }
        }
        for (id, job) in &self.jobs {
            batch.insert(&spaces.small, small::job(*id), record::put_job(job));
        }
        for (key, value) in &self.small {
            match value {
                Some(octets) => batch.insert(&spaces.small, key.clone(), octets.clone()),
                None => batch.remove(&spaces.small, key.clone()),
            }
        }
        if self.totals_dirty {
            batch.insert(&spaces.small, small::TOTALS, record::put_totals(&self.totals));
        }
        self.holders.write(spaces, &mut batch);
        batch.commit().map_err(unavailable)?;
        let terminals = self.terminals.iter().map(|(key, staged)| (*key, &staged.raw));
        spaces.recent.committed(terminals, self.subscribers.keys());
        Ok(())
    }
}

/// Of several changes of one terminal the last counts.
fn keep_last(changes: &mut Vec<Change>) {
    let mut seen = HashSet::new();
    let mut kept: Vec<Change> = changes.drain(..).rev().filter(|c| seen.insert(c.after.key)).collect();
    kept.reverse();
    *changes = kept;
}

/// The services that a terminal is registered for.
fn services(t: &Terminal) -> &[ServiceNo] {
    t.registration.as_ref().map_or(&[], |r| &r.services)
}

/// Whether a terminal without a record needs none: nothing was sent to it, nothing is known of it.
fn is_blank(t: &Terminal, first_t: u64) -> bool {
    t.next_t == first_t && t.registration.is_none() && t.deliveries.is_empty() && t.nonces.is_empty()
}

/// The counters as they are on disk.
pub(super) fn load_totals(spaces: &Spaces) -> Result<Totals, StoreError> {
    let octets = spaces.small.get(small::TOTALS).map_err(unavailable)?;
    let totals = octets.map(|o| record::read_totals(&o)).transpose().map_err(damaged("counters"))?;
    Ok(totals.unwrap_or_default())
}
