//! Reading what an update is about.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::ClientWrapper as Client;
use futures_util::future::try_join_all;
use tokio_postgres::types::ToSql;

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
    let statement = client.prepare_cached(sql::READ_TERMINALS).await?;
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
pub(super) async fn subscribers(client: &Client, ids: &[SubscriberId]) -> Result<Subscribers, StoreError> {
    let none = SubscriberRecord { subscriber: None, terminals: Vec::new() };
    let mut found: Subscribers =
        ids.iter().map(|id| (id.clone(), SubscriberRow { version: 0, record: none.clone() })).collect();
    if ids.is_empty() {
        return Ok(found);
    }
    let statement = client.prepare_cached(sql::READ_SUBSCRIBERS).await?;
    let each: Vec<i32> = ids.iter().map(subscriber_shard).collect();
    let mut in_shards = each.clone();
    in_shards.sort_unstable();
    in_shards.dedup();
    let names: Vec<&str> = ids.iter().map(SubscriberId::as_str).collect();
    let params: [&(dyn ToSql + Sync); 3] = [&in_shards, &each, &names];
    for row in client.query(&statement, &params).await? {
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
                let key = sealer.terminal_key(btid);
                let (read, known) = match recent.take_terminal(key) {
                    Some((read, raw)) => (Some(read), Some(raw)),
                    None => (None, terminals(client, &[key], distributed).await?.remove(&key)),
                };
                let Some(raw) = known.filter(|raw| raw.credential.is_some()) else { return Ok(r) };
                let terminal = raw.terminal(key, first_t)?;
                let owner = terminal.credential.as_ref().map(|c| c.subscriber.clone());
                r.put(raw, terminal);
                // After the terminal: who changes a subscriber touches its terminals, so that what was read before
                // fails.
                if let Some(id) = owner {
                    match read.and_then(|read| recent.take_subscriber(&id, read)) {
                        Some(row) => r.add_subscriber(id.clone(), row),
                        None => r.add_subscribers(client, vec![id.clone()]).await?,
                    }
                    r.siblings =
                        r.subscribers[&id].record.terminals.iter().copied().filter(|k| *k != key).collect();
                    let mut found = terminals(client, &r.siblings, distributed).await?;
                    for sibling in r.siblings.clone() {
                        let Some(raw) = found.remove(&sibling) else { continue };
                        let known = raw.terminal(sibling, first_t)?;
                        if known.is_registered() || known.deliveries.iter().any(|d| d.state.is_open()) {
                            r.put(raw, known);
                        }
                    }
                }
            }
            Scope::Credentials(btids, subscribers) => {
                let keys: Vec<_> = btids.iter().map(|btid| sealer.terminal_key(btid)).collect();
                let found = terminals(client, &unique(&keys), distributed).await?;
                for key in keys {
                    let raw = found.get(&key).cloned().unwrap_or_default();
                    let terminal = raw.terminal(key, first_t)?;
                    r.put(raw, terminal);
                }
                r.add_subscribers(client, subscribers.clone()).await?;
            }
            Scope::Terminals(keys) | Scope::Due(keys) => {
                let keys = unique(keys);
                let mut found = terminals(client, &keys, distributed).await?;
                for key in keys {
                    if let Some(raw) = found.remove(&key) {
                        let terminal = raw.terminal(key, first_t)?;
                        r.put(raw, terminal);
                    }
                }
            }
            Scope::Subscribers(ids) => {
                r.add_subscribers(client, ids.clone()).await?;
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

    async fn add_subscribers(&mut self, client: &Client, ids: Vec<SubscriberId>) -> Result<(), StoreError> {
        for (id, row) in subscribers(client, &ids).await? {
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
fn unique(keys: &[TerminalKey]) -> Vec<TerminalKey> {
    let mut seen = HashSet::with_capacity(keys.len());
    keys.iter().copied().filter(|key| seen.insert(*key)).collect()
}
