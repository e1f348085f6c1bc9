//! Reading what an update is about.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use deadpool_postgres::ClientWrapper as Client;
use futures_util::future::try_join_all;

use super::place::{shard, subscriber_shard};
use super::recent::Recent;
use super::sql;
use super::walk::Visit;
use crate::delivery::Terminal;
use crate::id::{SubscriberId, TerminalKey};
use crate::store::codec::Damaged;
use crate::store::record::{self, SubscriberRecord};
use crate::store::{Job, Scope, Sealer, StoreError, View};

/// A record's own failure to be one.
pub(super) fn damaged(what: impl std::fmt::Display) -> impl FnOnce(Damaged) -> StoreError {
    move |Damaged| StoreError::Damaged(what.to_string())
}

/// A terminal's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Raw {
    /// 0: there is no row.
    pub(super) version: i64,
    pub(super) credential: Option<Vec<u8>>,
    pub(super) state: Option<Vec<u8>>,
}

impl Raw {
    /// The terminal that the row describes; a new one when there is none.
    pub(super) fn terminal(&self, key: TerminalKey, first_t: u64) -> Result<Terminal, StoreError> {
        record::read_terminal(key, self.credential.as_deref(), self.state.as_deref(), first_t)
            .map_err(damaged(format_args!("records of {key:?}")))
    }
}

/// A subscriber's row; version 0: there is none.
#[derive(Debug, Clone)]
pub(super) struct SubscriberRow {
    pub(super) version: i64,
    pub(super) record: SubscriberRecord,
}

/// Subscribers as they were read.
pub(super) type Subscribers = BTreeMap<SubscriberId, SubscriberRow>;

/// What a decision gets, and what belongs to it.
#[derive(Default)]
pub(super) struct Reading {
    /// The terminals' rows in the order of the view.
    pub(super) raw: Vec<(TerminalKey, Raw)>,
    /// The subscribers' rows.
    pub(super) subscribers: Subscribers,
    /// All other terminals of the acting terminal's subscriber, in the view or not.
    pub(super) siblings: Vec<TerminalKey>,
    pub(super) view: View,
    /// For a page: how the job's cursors move.
    pub(super) page: Option<(Job, Visit)>,
}

/// Terminals' keys by what one statement may ask for: all at once or, where the database is distributed, one shard's.
pub(super) fn groups(keys: &[TerminalKey], distributed: bool) -> Vec<Vec<TerminalKey>> {
    if !distributed {
        return if keys.is_empty() { Vec::new() } else { vec![keys.to_vec()] };
    }
    let mut groups: BTreeMap<i32, Vec<TerminalKey>> = BTreeMap::new();
    for key in keys {
        groups.entry(shard(*key)).or_default().push(*key);
    }
    groups.into_values().collect()
}

/// The shards of keys, each once.
pub(super) fn shards(keys: impl Iterator<Item = TerminalKey>) -> Vec<i32> {
    let mut shards: Vec<i32> = keys.map(shard).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}

/// A row of terminals' statements.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<(TerminalKey, Raw), StoreError> {
    let key: &[u8] = row.get(0);
    let key = key.try_into().map_err(|_| StoreError::Damaged("the key of a terminal".to_owned()))?;
    Ok((TerminalKey(key), Raw { version: row.get(1), credential: row.get(2), state: row.get(3) }))
}

/// Terminals' rows; those that exist.
pub(super) async fn terminals(
    client: &Client,
    keys: &[TerminalKey],
    distributed: bool,
) -> Result<HashMap<TerminalKey, Raw>, StoreError> {
    let statement = client.prepare_cached(&sql::placed(sql::READ_TERMINALS, distributed)).await?;
    let asked = groups(keys, distributed).into_iter().map(|group| {
        let statement = &statement;
        async move {
            let in_shards = shards(group.iter().copied());
            let each: Vec<i32> = group.iter().map(|key| shard(*key)).collect();
            let octets: Vec<&[u8]> = group.iter().map(|key| &key.0[..]).collect();
            client.query(statement, &[&in_shards, &each, &octets]).await
        }
    });
    let mut found = HashMap::with_capacity(keys.len());
    for rows in try_join_all(asked).await? {
        for r in &rows {
            let (key, raw) = row(r)?;
            found.insert(key, raw);
        }
    }
    Ok(found)
}

/// Subscribers' rows, one for each id.
pub(super) async fn subscribers(
    client: &Client,
    ids: &[SubscriberId],
    distributed: bool,
) -> Result<Subscribers, StoreError> {
    let none = SubscriberRecord { subscriber: None, terminals: Vec::new() };
    let mut found: Subscribers =
        ids.iter().map(|id| (id.clone(), SubscriberRow { version: 0, record: none.clone() })).collect();
    if ids.is_empty() {
        return Ok(found);
    }
    let mut groups: BTreeMap<i32, Vec<(i32, &str)>> = BTreeMap::new();
    for id in ids {
        let place = subscriber_shard(id);
        groups.entry(if distributed { place } else { 0 }).or_default().push((place, id.as_str()));
    }
    let statement = client.prepare_cached(&sql::placed(sql::READ_SUBSCRIBERS, distributed)).await?;
    let asked = groups.into_values().map(|group| {
        let statement = &statement;
        async move {
            let (each, names): (Vec<i32>, Vec<&str>) = group.into_iter().unzip();
            let mut in_shards = each.clone();
            in_shards.sort_unstable();
            in_shards.dedup();
            client.query(statement, &[&in_shards, &each, &names]).await
        }
    });
    for row in try_join_all(asked).await?.iter().flatten() {
        let name: &str = row.get(0);
        let id = SubscriberId::new(name);
        let id = id.map_err(|_| StoreError::Damaged("the id of a subscriber".to_owned()))?;
        let record =
            record::read_subscriber(&id, row.get(2)).map_err(damaged(format_args!("subscriber {id}")))?;
        found.insert(id, SubscriberRow { version: row.get(1), record });
    }
    Ok(found)
}

impl Reading {
    /// Reads what requests are about whose terminals these are, each once: a reading for each of them.
    pub(super) async fn of_requests(
        client: &Client,
        keys: &[TerminalKey],
        recent: &Recent,
        first_t: u64,
        distributed: bool,
    ) -> Result<Vec<Self>, StoreError> {
        let mut kept: HashMap<TerminalKey, (Instant, Raw)> =
            keys.iter().filter_map(|key| Some((*key, recent.take_terminal(*key)?))).collect();
        let unread: Vec<_> = keys.iter().copied().filter(|key| !kept.contains_key(key)).collect();
        let mut read = terminals(client, &unread, distributed).await?;
        let mut acting: Vec<Option<(Raw, Terminal, SubscriberId)>> = Vec::with_capacity(keys.len());
        let mut owners = Subscribers::new();
        let mut unread = BTreeSet::new();
        for key in keys {
            let kept = kept.remove(key);
            let at = kept.as_ref().map(|(at, _)| *at);
            let raw = kept.map(|(_, raw)| raw).or_else(|| read.remove(key));
            let Some(raw) = raw.filter(|raw| raw.credential.is_some()) else {
                acting.push(None);
                continue;
            };
            let terminal = raw.terminal(*key, first_t)?;
            let Some(owner) = terminal.credential.as_ref().map(|c| c.subscriber.clone()) else {
                acting.push(None);
                continue;
            };
            match at.and_then(|at| recent.take_subscriber(&owner, at)) {
                Some(row) => drop(owners.insert(owner.clone(), row)),
                None => drop(unread.insert(owner.clone())),
            }
            acting.push(Some((raw, terminal, owner)));
        }
        // After the terminals: who changes a subscriber touches its terminals, so that what was read before fails.
        owners.extend(subscribers(client, &unread.into_iter().collect::<Vec<_>>(), distributed).await?);
        let siblings_of = |key: TerminalKey, owner: &SubscriberId| -> Vec<TerminalKey> {
            owners[owner].record.terminals.iter().copied().filter(|k| *k != key).collect()
        };
        let each = keys.iter().zip(&acting);
        let siblings = each.filter_map(|(key, acting)| Some(siblings_of(*key, &acting.as_ref()?.2)));
        let siblings: Vec<_> = siblings.flatten().collect();
        let read = terminals(client, &unique(&siblings), distributed).await?;
        let mut readings = Vec::with_capacity(keys.len());
        for (key, acting) in keys.iter().zip(acting) {
            let mut r = Self::default();
            if let Some((raw, terminal, owner)) = acting {
                r.put(raw, terminal);
                r.siblings = siblings_of(*key, &owner);
                r.add_subscriber(owner.clone(), owners[&owner].clone());
                for sibling in r.siblings.clone() {
                    let Some(raw) = read.get(&sibling) else { continue };
                    let known = raw.terminal(sibling, first_t)?;
                    if known.is_registered() || known.deliveries.iter().any(|d| d.state.is_open()) {
                        r.put(raw.clone(), known);
                    }
                }
            }
            readings.push(r);
        }
        Ok(readings)
    }

    /// Reads a scope but a page.
    pub(super) async fn of(
        client: &Client,
        sealer: &Sealer,
        scope: &Scope,
        recent: &Recent,
        first_t: u64,
        distributed: bool,
    ) -> Result<Self, StoreError> {
        let mut r = Self::default();
        match scope {
            Scope::Terminal(btid) => {
                let keys = [sealer.terminal_key(btid)];
                let read = Self::of_requests(client, &keys, recent, first_t, distributed).await?;
                return Ok(read.into_iter().next().unwrap_or_default());
            }
            Scope::Credentials(btids, subscribers) => {
                let keys: Vec<_> = btids.iter().map(|btid| sealer.terminal_key(btid)).collect();
                let found = terminals(client, &unique(&keys), distributed).await?;
                for key in keys {
                    let raw = found.get(&key).cloned().unwrap_or_default();
                    let terminal = raw.terminal(key, first_t)?;
                    r.put(raw, terminal);
                }
                r.add_subscribers(client, subscribers.clone(), distributed).await?;
            }
            Scope::Terminals(keys) | Scope::Due(keys) => {
                let keys = unique(keys);
                let kept = keys.iter().filter_map(|key| Some((*key, recent.take_terminal(*key)?.1)));
                let mut found: HashMap<TerminalKey, Raw> = kept.collect();
                let unread: Vec<_> = keys.iter().copied().filter(|key| !found.contains_key(key)).collect();
                found.extend(terminals(client, &unread, distributed).await?);
                for key in keys {
                    if let Some(raw) = found.remove(&key) {
                        let terminal = raw.terminal(key, first_t)?;
                        r.put(raw, terminal);
                    }
                }
            }
            Scope::Subscribers(ids) => {
                r.add_subscribers(client, ids.clone(), distributed).await?;
                let keys: Vec<_> =
                    r.subscribers.values().flat_map(|s| s.record.terminals.iter().copied()).collect();
                let mut found = terminals(client, &keys, distributed).await?;
                for key in keys {
                    let raw = found.remove(&key).unwrap_or_default();
                    let terminal = raw.terminal(key, first_t)?;
                    r.put(raw, terminal);
                }
            }
            Scope::Page(..) => {}
        }
        Ok(r)
    }

    /// Puts a terminal into the view.
    pub(super) fn put(&mut self, raw: Raw, terminal: Terminal) {
        self.raw.push((terminal.key, raw));
        self.view.terminals.push(terminal);
    }

    async fn add_subscribers(
        &mut self,
        client: &Client,
        ids: Vec<SubscriberId>,
        distributed: bool,
    ) -> Result<(), StoreError> {
        for (id, row) in subscribers(client, &ids, distributed).await? {
            self.add_subscriber(id, row);
        }
        Ok(())
    }

    fn add_subscriber(&mut self, id: SubscriberId, row: SubscriberRow) {
        self.view.subscribers.insert(id.clone(), row.record.subscriber.clone());
        self.subscribers.insert(id, row);
    }
}

/// Each key once, where it comes first.
pub(super) fn unique(keys: &[TerminalKey]) -> Vec<TerminalKey> {
    let mut seen = HashSet::with_capacity(keys.len());
    keys.iter().copied().filter(|key| seen.insert(*key)).collect()
}
