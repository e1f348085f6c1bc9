//! What a decision changed, as rows to write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deadpool_postgres::ClientWrapper as Client;

use super::message;
use super::place::{shard, subscriber_shard};
use super::scope::{Raw, Reading, SubscriberRow, subscribers};
use super::walk::Visit;
use crate::delivery::{MessageId, Terminal};
use crate::id::{JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::store::queues::Hints;
use crate::store::record::{self, SubscriberRecord};
use crate::store::tally::Tally;
use crate::store::{StoreError, View};

/// A terminal's new row.
pub(super) struct TerminalWrite {
    pub(super) key: TerminalKey,
    /// The version that was read; 0: there was no row.
    pub(super) version: i64,
    /// `None`: it stays.
    pub(super) credential: Option<Option<Vec<u8>>>,
    pub(super) state: Vec<u8>,
    pub(super) look: Option<i64>,
    pub(super) turn: Option<i64>,
}

/// A subscriber's new row.
pub(super) struct SubscriberWrite {
    pub(super) id: SubscriberId,
    pub(super) shard: i32,
    /// The version that was read; 0: there was no row.
    pub(super) version: i64,
    pub(super) record: SubscriberRecord,
}

/// Which counter: kind, and whose; see the table `tally`.
pub(super) type Counter = (i16, i64, i32);

/// Everything that one update writes.
#[derive(Default)]
pub(super) struct Writes {
    pub(super) terminals: Vec<TerminalWrite>,
    pub(super) subscribers: Vec<SubscriberWrite>,
    /// Terminals whose version rises though nothing of them changes.
    pub(super) touched: BTreeSet<TerminalKey>,
    pub(super) joined: Vec<(ServiceNo, TerminalKey)>,
    pub(super) left: Vec<(ServiceNo, TerminalKey)>,
    /// By shard, short messages that deliveries name now and did not before.
    pub(super) named: BTreeMap<(i32, MessageId), TerminalKey>,
    /// Those that they name no more.
    pub(super) unnamed: Vec<(MessageId, TerminalKey)>,
    /// By shard, how counters change.
    pub(super) tally: BTreeMap<(i32, Counter), [i64; 9]>,
    pub(super) visit: Option<(JobId, Visit)>,
    /// What the queues get to know once it is committed.
    pub(super) hints: Hints,
}

impl Writes {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.terminals.is_empty() && self.subscribers.is_empty() && self.visit.is_none()
    }

    /// What a decision made of a view. `refeed`: the queues get to know all that is due of its terminals, not only what
    /// has changed.
    pub(super) async fn of(
        client: &Client,
        reading: Reading,
        view: View,
        refeed: bool,
        first_t: u64,
        distributed: bool,
    ) -> Result<Self, StoreError> {
        let mut writes = Self::default();
        let read: HashMap<TerminalKey, &Raw> = reading.raw.iter().map(|(key, raw)| (*key, raw)).collect();
        // Of several changes of one terminal the last counts.
        let mut changes: Vec<Change> = Vec::new();
        let mut places: HashMap<TerminalKey, usize> = HashMap::new();
        for after in view.terminals {
            let Some(raw) = read.get(&after.key) else {
                return Err(StoreError::Damaged("a decision made up a terminal".to_owned()));
            };
            match Change::of(raw, after, first_t)? {
                Ok(change) => match places.get(&change.after.key) {
                    Some(place) => changes[*place] = change,
                    None => {
                        places.insert(change.after.key, changes.len());
                        changes.push(change);
                    }
                },
                Err(unchanged) if refeed => writes.hints.of(&unchanged),
                Err(_) => {}
            }
        }
        writes.add_subscribers(client, reading.subscribers, view.subscribers, &changes, distributed).await?;
        if !changes.is_empty() {
            writes.touched.extend(reading.siblings);
        }
        for change in &changes {
            writes.add(change, refeed);
        }
        for write in &writes.terminals {
            writes.touched.remove(&write.key);
        }
        writes.visit = reading.page.map(|(job, visit)| (job.id, visit));
        Ok(writes)
    }

    /// Adds what another decision made, which is about none of these terminals and subscribers.
    pub(super) fn append(&mut self, mut other: Self) {
        self.terminals.append(&mut other.terminals);
        self.subscribers.append(&mut other.subscribers);
        self.touched.append(&mut other.touched);
        self.joined.append(&mut other.joined);
        self.left.append(&mut other.left);
        self.named.append(&mut other.named);
        self.unnamed.append(&mut other.unnamed);
        for (counter, by) in other.tally {
            let row = self.tally.entry(counter).or_default();
            row.iter_mut().zip(by).for_each(|(n, by)| *n += by);
        }
        self.visit = self.visit.take().or(other.visit);
        self.hints.append(other.hints);
    }

    /// Subscribers that the decision changed, and lists of terminals that follow the credentials.
    async fn add_subscribers(
        &mut self,
        client: &Client,
        mut rows: BTreeMap<SubscriberId, SubscriberRow>,
        decided: BTreeMap<SubscriberId, Option<crate::store::Subscriber>>,
        changes: &[Change],
        distributed: bool,
    ) -> Result<(), StoreError> {
        let moves: Vec<_> = changes.iter().filter(|c| c.owner.0 != c.owner.1).collect();
        let named = moves.iter().flat_map(|c| [&c.owner.0, &c.owner.1]).flatten();
        let unread: BTreeSet<_> = named.filter(|id| !rows.contains_key(*id)).cloned().collect();
        if !unread.is_empty() {
            rows.extend(subscribers(client, &unread.into_iter().collect::<Vec<_>>(), distributed).await?);
        }
        let mut changed = BTreeSet::new();
        for (id, subscriber) in decided {
            let Some(row) = rows.get_mut(&id) else {
                return Err(StoreError::Damaged("a decision made up a subscriber".to_owned()));
            };
            if row.record.subscriber != subscriber {
                row.record.subscriber = subscriber;
                self.touched.extend(row.record.terminals.iter().copied());
                changed.insert(id);
            }
        }
        for Change { owner: (old, new), after, .. } in moves {
            for id in [old, new].into_iter().flatten() {
                let row = rows.get_mut(id).expect("it was read above");
                row.record.terminals.retain(|key| *key != after.key);
                if Some(id) == new.as_ref() {
                    row.record.terminals.push(after.key);
                }
                changed.insert(id.clone());
            }
        }
        for id in changed {
            let Some(SubscriberRow { version, record }) = rows.remove(&id) else { continue };
            let shard = subscriber_shard(&id);
            self.subscribers.push(SubscriberWrite { id, shard, version, record });
        }
        Ok(())
    }

    fn add(&mut self, change: &Change, refeed: bool) {
        let Change { raw, before, after, state, credential, .. } = change;
        let place = shard(after.key);
        let mut tally = Tally::default();
        tally.change(before, after);
        count(&mut self.tally, place, &tally);
        let (old, now) = (services(before), services(after));
        self.left.extend(old.iter().filter(|no| !now.contains(no)).map(|no| (*no, after.key)));
        self.joined.extend(now.iter().filter(|no| !old.contains(no)).map(|no| (*no, after.key)));
        let (old, now) = (message::ids(before), message::ids(after));
        self.unnamed.extend(old.difference(&now).map(|id| (MessageId::clone(id), after.key)));
        self.named.extend(now.difference(&old).map(|id| ((place, MessageId::clone(id)), after.key)));
        if refeed {
            self.hints.of(after);
        } else {
            self.hints.of_change(before, after);
        }
        let millis = |t: crate::time::Timestamp| i64::try_from(t.0).unwrap_or(i64::MAX);
        self.terminals.push(TerminalWrite {
            key: after.key,
            version: raw.version,
            credential: credential.clone(),
            state: state.clone(),
            look: after.next_due().map(millis),
            turn: after.next_turn().map(millis),
        });
    }
}

/// Adds what changed in a shard to its counters.
pub(super) fn count(counters: &mut BTreeMap<(i32, Counter), [i64; 9]>, place: i32, tally: &Tally) {
    let mut add = |counter: Counter, by: &[i64]| {
        if by.iter().any(|n| *n != 0) {
            let row = counters.entry((place, counter)).or_default();
            row.iter_mut().zip(by).for_each(|(n, by)| *n += by);
        }
    };
    add((0, 0, 0), &tally.deliveries);
    for (no, by) in &tally.members {
        add((1, i64::from(no.0), 0), by);
    }
    for ((no, number), by) in &tally.holders {
        add((2, i64::from(no.0), i32::from(*number)), &[by.udp, by.http, by.sms, by.assumed]);
    }
    for (job, by) in &tally.jobs {
        let mut all = [0; 9];
        all[..8].copy_from_slice(&by.states);
        all[8] = by.sent;
        add((3, job.0 as i64, 0), &all);
    }
}

/// A terminal that is not as it was.
struct Change {
    raw: Raw,
    before: Terminal,
    after: Terminal,
    state: Vec<u8>,
    credential: Option<Option<Vec<u8>>>,
    /// Whose it was and is.
    owner: (Option<SubscriberId>, Option<SubscriberId>),
}

impl Change {
    /// `Err`: it is as it was.
    fn of(raw: &Raw, after: Terminal, first_t: u64) -> Result<Result<Self, Terminal>, StoreError> {
        let (mut state, mut credential) = (Vec::with_capacity(128), Vec::with_capacity(320));
        record::put_state(&mut state, &after);
        after.credential.iter().for_each(|c| record::put_credential(&mut credential, c));
        let blank = raw.state.is_none()
            && after.next_t == first_t
            && after.registration.is_none()
            && after.deliveries.is_empty()
            && after.nonces.is_empty();
        let same_state = blank || raw.state.as_deref() == Some(&state[..]);
        let same_credential = raw.credential.as_deref().unwrap_or_default() == credential;
        if same_state && same_credential {
            return Ok(Err(after));
        }
        let before = raw.terminal(after.key, first_t)?;
        let subscriber = |t: &Terminal| t.credential.as_ref().map(|c| c.subscriber.clone());
        let owner = (subscriber(&before), subscriber(&after));
        let credential = (!same_credential).then(|| after.credential.is_some().then_some(credential));
        Ok(Ok(Self { raw: raw.clone(), before, after, state, credential, owner }))
    }
}

/// The services that a terminal is registered for.
fn services(t: &Terminal) -> &[ServiceNo] {
    t.registration.as_ref().map_or(&[], |r| &r.services)
}
