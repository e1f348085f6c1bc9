//! Reading what an update is about.

use std::collections::HashSet;
use std::ops::Bound;

use fjall::{Guard, Keyspace, Slice};

use super::batch::Batch;
use super::spaces::{Raw, Spaces, damaged, member_key, unavailable};
use crate::delivery::Terminal;
use crate::id::{ServiceNo, SubscriberId, TerminalKey};
use crate::store::record;
use crate::store::{Job, JobState, Scope, Sealer, StoreError, View};

/// From this share of a service's members among all terminals on (one in so many), a page reads all
/// terminals in order instead of each member by itself.
const DENSE: u64 = 4;

/// Terminals that a page makes room for before it knows how many there are.
const MOST_AT_ONCE: usize = 4096;

/// What a decision gets, and what belongs to it.
#[derive(Default)]
pub(super) struct Reading {
    /// The terminals' records in the order of the view.
    pub(super) raw: Vec<(TerminalKey, Raw)>,
    pub(super) view: View,
    /// For a page: the job as it was read and where its cursor goes.
    pub(super) page: Option<(Job, Option<TerminalKey>)>,
}

/// Reads a scope; `None` when there is nothing to decide.
pub(super) fn read(
    batch: &Batch,
    spaces: &Spaces,
    sealer: &Sealer,
    scope: &Scope,
) -> Result<Option<Reading>, StoreError> {
    let mut r = Reading::default();
    match scope {
        Scope::Terminal(btid) => r.terminal_and_siblings(batch, spaces, sealer.terminal_key(btid))?,
        Scope::Credentials(btids, subscribers) => {
            for btid in btids {
                let key = sealer.terminal_key(btid);
                r.push(spaces, key, batch.raw(spaces, key)?)?;
            }
            for id in subscribers {
                r.subscriber(batch, spaces, id)?;
            }
        }
        Scope::Terminals(keys) | Scope::Due(keys) => {
            let mut seen = HashSet::with_capacity(keys.len());
            for key in keys.iter().filter(|key| seen.insert(**key)) {
                let raw = batch.raw(spaces, *key)?;
                if raw.exists() {
                    r.push(spaces, *key, raw)?;
                }
            }
        }
        Scope::Subscribers(ids) => {
            for id in ids {
                for key in r.subscriber(batch, spaces, id)? {
                    r.push(spaces, key, batch.raw(spaces, key)?)?;
                }
            }
        }
        Scope::Page(id, limit) => {
            let Some(job) = batch.job(spaces, *id)? else { return Ok(None) };
            let Some(cursor) = job.cursor.filter(|_| job.has_page()) else { return Ok(None) };
            let back = job.state == JobState::Cancelled;
            let dense = {
                let members = batch.totals.members.get(&job.service).map_or(0, |m| m.total);
                members.saturating_mul(DENSE) >= batch.totals.terminals
            };
            let limit = (*limit).max(1);
            let room = limit.min(MOST_AT_ONCE);
            r.raw.reserve(room);
            r.view.terminals.reserve(room);
            if dense {
                r.dense_page(spaces, &job, cursor, back, limit)?;
            } else {
                r.sparse_page(spaces, &job, cursor, back, limit)?;
            }
            let full = r.raw.len() == limit;
            let behind = |key: TerminalKey| if back { key.prev() } else { key.next() };
            let next = r.raw.last().filter(|_| full).and_then(|(key, _)| behind(*key));
            r.view.more = next.is_some();
            r.view.job = Some(job.clone());
            r.page = Some((job, next));
        }
    }
    Ok(Some(r))
}

impl Reading {
    fn push(&mut self, spaces: &Spaces, key: TerminalKey, raw: Raw) -> Result<(), StoreError> {
        let terminal = raw.terminal(key, spaces.first_t)?;
        self.put(raw, terminal);
        Ok(())
    }

    fn put(&mut self, raw: Raw, terminal: Terminal) {
        self.raw.push((terminal.key, raw));
        self.view.terminals.push(terminal);
    }

    /// Reads a subscriber into the view; its terminals' keys.
    fn subscriber(
        &mut self,
        batch: &Batch,
        spaces: &Spaces,
        id: &SubscriberId,
    ) -> Result<Vec<TerminalKey>, StoreError> {
        let record = batch.subscriber(spaces, id)?;
        let (subscriber, terminals) = record.map_or((None, Vec::new()), |r| (r.subscriber, r.terminals));
        self.view.subscribers.insert(id.clone(), subscriber);
        Ok(terminals)
    }

    fn terminal_and_siblings(
        &mut self,
        batch: &Batch,
        spaces: &Spaces,
        key: TerminalKey,
    ) -> Result<(), StoreError> {
        let raw = batch.raw(spaces, key)?;
        if raw.credential.is_none() {
            return Ok(());
        }
        let terminal = raw.terminal(key, spaces.first_t)?;
        let id = terminal.credential.as_ref().map(|c| c.subscriber.clone());
        self.put(raw, terminal);
        let Some(id) = id else { return Ok(()) };
        for sibling in self.subscriber(batch, spaces, &id)? {
            if sibling == key {
                continue;
            }
            let Some(state) = batch.state(spaces, sibling)? else { continue };
            let read = record::read_state(sibling, &state);
            let known = read.map_err(damaged(format_args!("state of {sibling:?}")))?;
            if known.is_registered() || known.deliveries.iter().any(|d| d.state.is_open()) {
                self.push(spaces, sibling, batch.raw(spaces, sibling)?)?;
            }
        }
        Ok(())
    }

    /// Reads all terminals from the cursor on, or back, and keeps the members: for services that have most of
    /// them.
    fn dense_page(
        &mut self,
        spaces: &Spaces,
        job: &Job,
        cursor: TerminalKey,
        back: bool,
        limit: usize,
    ) -> Result<(), StoreError> {
        let before = |a: TerminalKey, b: TerminalKey| if back { a > b } else { a < b };
        let mut credentials = walk(&spaces.credential, cursor, back);
        let mut credential: Option<(TerminalKey, Slice)> = None;
        let mut ended = false;
        for guard in walk(&spaces.state, cursor, back) {
            if self.raw.len() == limit {
                break;
            }
            let (key, state) = guard.into_inner().map_err(unavailable)?;
            let key = terminal_key(&key)?;
            let read = record::read_state(key, &state);
            let mut terminal = read.map_err(damaged(format_args!("state of {key:?}")))?;
            if !terminal.is_registered_for(job.service) {
                continue;
            }
            while !ended && credential.as_ref().is_none_or(|(k, _)| before(*k, key)) {
                credential = match credentials.next() {
                    Some(guard) => {
                        let (k, value) = guard.into_inner().map_err(unavailable)?;
                        Some((terminal_key(&k)?, value))
                    }
                    None => {
                        ended = true;
                        None
                    }
                };
            }
            let of_this = credential.as_ref().filter(|(k, _)| *k == key).map(|(_, v)| v.clone());
            if let Some(octets) = &of_this {
                let read = record::read_credential(octets);
                terminal.credential = Some(read.map_err(damaged(format_args!("credential of {key:?}")))?);
            }
            self.put(Raw { credential: of_this, state: Some(state) }, terminal);
        }
        Ok(())
    }

    /// Reads the index from the cursor on, or back, and each member by itself.
    fn sparse_page(
        &mut self,
        spaces: &Spaces,
        job: &Job,
        cursor: TerminalKey,
        back: bool,
        limit: usize,
    ) -> Result<(), StoreError> {
        let keys = match back {
            true => members_back(spaces, job.service, cursor, limit)?,
            false => members(spaces, job.service, Bound::Included(cursor), limit)?,
        };
        for key in keys {
            self.push(spaces, key, spaces.raw(key)?)?;
        }
        Ok(())
    }
}

/// A keyspace of terminals from a key on, or back.
fn walk(space: &Keyspace, cursor: TerminalKey, back: bool) -> Box<dyn Iterator<Item = Guard>> {
    match back {
        true => Box::new(space.range(..=cursor.0).rev()),
        false => Box::new(space.range(cursor.0..)),
    }
}

/// Members of a service from a key on, at most `limit`.
pub(super) fn members(
    spaces: &Spaces,
    no: ServiceNo,
    from: Bound<TerminalKey>,
    limit: usize,
) -> Result<Vec<TerminalKey>, StoreError> {
    let from = from.map(|key| member_key(no, key));
    let to = Bound::Included(member_key(no, TerminalKey::MAX));
    let page = spaces.member.range((from, to)).take(limit);
    page.map(member).collect()
}

/// Members of a service from a key back, at most `limit`.
fn members_back(
    spaces: &Spaces,
    no: ServiceNo,
    from: TerminalKey,
    limit: usize,
) -> Result<Vec<TerminalKey>, StoreError> {
    let range = member_key(no, TerminalKey::MIN)..=member_key(no, from);
    spaces.member.range(range).rev().take(limit).map(member).collect()
}

/// The terminal of an index entry.
fn member(guard: Guard) -> Result<TerminalKey, StoreError> {
    terminal_key(&guard.key().map_err(unavailable)?[4..])
}

/// A terminal key from a record's key.
pub(super) fn terminal_key(octets: &[u8]) -> Result<TerminalKey, StoreError> {
    octets.try_into().map(TerminalKey).map_err(|_| StoreError::Damaged("a terminal's key".to_owned()))
}
