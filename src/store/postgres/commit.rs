//! One update's transaction: all of it in two flights to the server, and all of it or nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use deadpool_postgres::ClientWrapper as Client;
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Statement};

use super::change::{TerminalWrite, Writes};
use super::place::shard;
use super::scope::shards;
use super::sql;
use crate::id::TerminalKey;
use crate::store::{JobState, StoreError, record};
use crate::time::Timestamp;

/// What has to hold at the moment of the commit.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// Services and keys are of this revision.
    pub(super) revision: Option<i64>,
    /// This node and epoch has the leases of these ranges.
    pub(super) lease: Option<(String, i64, Vec<i32>)>,
    /// This job is in this state.
    pub(super) job: Option<(i64, JobState)>,
}

/// Why nothing was written.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody changed meanwhile what was read: read and decide again.
    Conflict,
    /// What the guard asks for does not hold.
    Guard,
    /// The server takes no writes any more.
    ReadOnly(StoreError),
    /// The store does not work, or it is not known whether it was written.
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a failed statement means.
fn refused(error: Error) -> Refused {
    match error.code() {
        Some(
            &SqlState::NOT_NULL_VIOLATION
            | &SqlState::UNIQUE_VIOLATION
            | &SqlState::T_R_DEADLOCK_DETECTED
            | &SqlState::T_R_SERIALIZATION_FAILURE
            | &SqlState::LOCK_NOT_AVAILABLE
            | &SqlState::QUERY_CANCELED,
        ) => Refused::Conflict,
        Some(&SqlState::DIVISION_BY_ZERO) => Refused::Guard,
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Refused::ReadOnly(error.into()),
        _ => Refused::Store(error.into()),
    }
}

type Step<'a> = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send + 'a>>;

/// A statement with the arrays that it takes.
struct Call {
    statement: Statement,
    params: Vec<Box<dyn ToSql + Sync + Send>>,
}

/// Calls of one transaction, in their order.
struct Calls<'a> {
    client: &'a Client,
    distributed: bool,
    all: Vec<Call>,
}

impl<'a> Calls<'a> {
    fn new(client: &'a Client, distributed: bool) -> Self {
        Self { client, distributed, all: Vec::new() }
    }

    async fn add(
        &mut self,
        text: &'static str,
        params: Vec<Box<dyn ToSql + Sync + Send>>,
    ) -> Result<(), StoreError> {
        let statement = self.client.prepare_cached(&sql::placed(text, self.distributed)).await?;
        self.all.push(Call { statement, params });
        Ok(())
    }

    /// Sends all of them without waiting, then waits. The first failure is told.
    async fn run(&self, before: Option<&str>, after: Option<&str>) -> Result<(), Error> {
        let client = self.client;
        let plain =
            |text| -> Step<'_> { Box::pin(async move { client.batch_execute(text).await.map(|()| 0) }) };
        let mut steps: Vec<Step<'_>> = before.into_iter().map(plain).collect();
        for call in &self.all {
            let params: Vec<&(dyn ToSql + Sync)> =
                call.params.iter().map(|p| &**p as &(dyn ToSql + Sync)).collect();
            steps.push(Box::pin(async move { client.execute(&call.statement, &params).await }));
        }
        steps.extend(after.into_iter().map(plain));
        join_all(steps).await.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    }
}

macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$(Box::new($value) as Box<dyn ToSql + Sync + Send>),*] };
}

fn keys(keys: &[TerminalKey]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.0.to_vec()).collect()
}

fn places(keys: &[TerminalKey]) -> Vec<i32> {
    keys.iter().map(|key| shard(*key)).collect()
}

/// Writes and commits: a flight that begins and asks what the guard says, and one of all that is written with the COMMIT
/// behind it. The second leaves when the first is there: what follows a BEGIN that failed would be written by itself. What
/// follows a statement that failed fails with it, the COMMIT too.
pub(super) async fn commit(
    client: &Client,
    writes: &Writes,
    guard: &Guard,
    distributed: bool,
) -> Result<(), Refused> {
    let begin = begin(client, guard, distributed).await?;
    let calls = calls(client, writes, distributed).await?;
    if let Err(error) = begin.run(Some("BEGIN"), None).await {
        client.batch_execute("ROLLBACK").await.map_err(StoreError::from)?;
        return Err(refused(error));
    }
    calls.run(None, Some("COMMIT")).await.map_err(refused)
}

async fn begin<'a>(client: &'a Client, guard: &Guard, distributed: bool) -> Result<Calls<'a>, StoreError> {
    let mut calls = Calls::new(client, distributed);
    calls.add(sql::SHARE, vec![]).await?;
    let (node, epoch, ranges) = match guard.lease.clone() {
        Some((node, epoch, ranges)) => (Some(node), Some(epoch), Some(ranges)),
        None => (None, None, None),
    };
    let leases = ranges.as_ref().map(|r| r.len() as i64);
    let (job, state) = guard.job.map_or((None, None), |(id, state)| (Some(id), Some(state as i16)));
    calls.add(sql::GUARD, params![guard.revision, node, epoch, ranges, leases, job, state]).await?;
    Ok(calls)
}

async fn calls<'a>(client: &'a Client, writes: &Writes, distributed: bool) -> Result<Calls<'a>, StoreError> {
    let mut calls = Calls::new(client, distributed);
    add_terminals(&mut calls, writes).await?;
    add_subscribers(&mut calls, writes).await?;
    add_members(&mut calls, writes).await?;
    add_messages(&mut calls, writes).await?;
    if !writes.tally.is_empty() {
        let mut in_shards: Vec<i32> = writes.tally.keys().map(|(shard, _)| *shard).collect();
        in_shards.dedup();
        let each: Vec<i32> = writes.tally.keys().map(|(shard, _)| *shard).collect();
        let kinds: Vec<i16> = writes.tally.keys().map(|(_, (kind, _, _))| *kind).collect();
        let a: Vec<i64> = writes.tally.keys().map(|(_, (_, a, _))| *a).collect();
        let b: Vec<i32> = writes.tally.keys().map(|(_, (_, _, b))| *b).collect();
        let mut all = params![in_shards, each, kinds, a, b];
        for i in 0..9 {
            let column: Vec<i64> = writes.tally.values().map(|row| row[i]).collect();
            all.push(Box::new(column));
        }
        calls.add(sql::UPDATE_TALLY, all).await?;
    }
    if let Some((job, visit)) = &writes.visit
        && !visit.moves.is_empty()
    {
        let each: Vec<i32> = visit.moves.iter().map(|m| m.shard).collect();
        let old: Vec<Vec<u8>> = visit.moves.iter().map(|m| m.old.0.to_vec()).collect();
        let new: Vec<Option<Vec<u8>>> = visit.moves.iter().map(|m| m.new.map(|k| k.0.to_vec())).collect();
        let all = params![each.clone(), job.0 as i64, each, old, new];
        calls.add(sql::MOVE_CURSORS, all).await?;
    }
    Ok(calls)
}

/// Rows that are changed or touched, all in the order of their keys: two commits that are about the same rows then wait
/// for each other rather than one for the other and the other for the one.
async fn add_terminals(calls: &mut Calls<'_>, writes: &Writes) -> Result<(), StoreError> {
    let (known, new): (Vec<_>, Vec<_>) = writes.terminals.iter().partition(|w| w.version != 0);
    let mut rows: BTreeMap<TerminalKey, Option<&TerminalWrite>> =
        writes.touched.iter().map(|key| (*key, None)).collect();
    rows.extend(known.into_iter().map(|w| (w.key, Some(w))));
    if !rows.is_empty() {
        let all: Vec<TerminalKey> = rows.keys().copied().collect();
        let rows: Vec<Option<&TerminalWrite>> = rows.into_values().collect();
        let credential = |w: &TerminalWrite| w.credential.clone().flatten();
        let all = params![
            shards(all.iter().copied()),
            places(&all),
            keys(&all),
            rows.iter().map(|w| w.map(|w| w.version)).collect::<Vec<_>>(),
            rows.iter().map(|w| w.is_none_or(|w| w.credential.is_none())).collect::<Vec<_>>(),
            rows.iter().map(|w| w.and_then(credential)).collect::<Vec<_>>(),
            rows.iter().map(|w| w.map(|w| w.state.clone())).collect::<Vec<_>>(),
            rows.iter().map(|w| w.and_then(|w| w.look)).collect::<Vec<_>>(),
            rows.iter().map(|w| w.and_then(|w| w.turn)).collect::<Vec<_>>(),
        ];
        calls.add(sql::UPDATE_TERMINALS, all).await?;
    }
    if !new.is_empty() {
        let all: Vec<TerminalKey> = new.iter().map(|w| w.key).collect();
        let all = params![
            places(&all),
            keys(&all),
            vec![1i64; new.len()],
            new.iter().map(|w| w.credential.clone().flatten()).collect::<Vec<_>>(),
            new.iter().map(|w| w.state.clone()).collect::<Vec<_>>(),
            new.iter().map(|w| w.look).collect::<Vec<_>>(),
            new.iter().map(|w| w.turn).collect::<Vec<_>>(),
        ];
        calls.add(sql::INSERT_TERMINALS, all).await?;
    }
    Ok(())
}

async fn add_subscribers(calls: &mut Calls<'_>, writes: &Writes) -> Result<(), StoreError> {
    if writes.subscribers.is_empty() {
        return Ok(());
    }
    // A row that is made anew begins higher than the one that was deleted could have come.
    let fresh = i64::try_from(Timestamp::now().0).unwrap_or(i64::MAX / 2) << 10;
    let next = |version: i64| if version == 0 { fresh } else { version + 1 };
    let all = &writes.subscribers;
    let (places, ids): (Vec<i32>, Vec<String>) =
        all.iter().map(|w| (w.shard, w.id.as_str().to_owned())).unzip();
    let versions: Vec<i64> = all.iter().map(|w| next(w.version)).collect();
    let read: Vec<i64> = all.iter().map(|w| w.version).collect();
    let records: Vec<Vec<u8>> = all.iter().map(|w| record::put_subscriber(&w.record)).collect();
    calls.add(sql::PUT_SUBSCRIBERS, params![places, ids, read, versions, records]).await?;
    let gone = all.iter().filter(|w| w.record.subscriber.is_none() && w.record.terminals.is_empty());
    let gone: Vec<_> = gone.map(|w| (w.shard, w.id.as_str().to_owned(), next(w.version))).collect();
    if !gone.is_empty() {
        let mut in_shards: Vec<i32> = gone.iter().map(|(shard, _, _)| *shard).collect();
        let each = in_shards.clone();
        in_shards.sort_unstable();
        in_shards.dedup();
        let ids: Vec<String> = gone.iter().map(|(_, id, _)| id.clone()).collect();
        let versions: Vec<i64> = gone.iter().map(|(_, _, version)| *version).collect();
        calls.add(sql::DELETE_SUBSCRIBERS, params![in_shards, each, ids, versions]).await?;
    }
    Ok(())
}

async fn add_members(calls: &mut Calls<'_>, writes: &Writes) -> Result<(), StoreError> {
    let split = |members: &[(crate::id::ServiceNo, TerminalKey)]| -> (Vec<i64>, Vec<TerminalKey>) {
        members.iter().map(|(no, key)| (i64::from(no.0), *key)).unzip()
    };
    if !writes.left.is_empty() {
        let (services, all) = split(&writes.left);
        let all = params![shards(all.iter().copied()), places(&all), services, keys(&all)];
        calls.add(sql::DELETE_MEMBERS, all).await?;
    }
    if calls.distributed {
        // Such a statement goes to one place by itself.
        for (no, key) in &writes.joined {
            let all = params![shard(*key), i64::from(no.0), key.0.to_vec()];
            calls.add(sql::INSERT_MEMBER, all).await?;
        }
    } else if !writes.joined.is_empty() {
        let (services, all) = split(&writes.joined);
        calls.add(sql::INSERT_MEMBERS, params![places(&all), services, keys(&all)]).await?;
    }
    Ok(())
}

/// What an id no more stands for goes first: it may stand for something else now.
async fn add_messages(calls: &mut Calls<'_>, writes: &Writes) -> Result<(), StoreError> {
    if !writes.unnamed.is_empty() {
        let (ids, all): (Vec<String>, Vec<TerminalKey>) =
            writes.unnamed.iter().map(|(id, key)| (id.as_str().to_owned(), *key)).unzip();
        let all = params![shards(all.iter().copied()), places(&all), ids, keys(&all)];
        calls.add(sql::DELETE_MESSAGES, all).await?;
    }
    if calls.distributed {
        for ((shard, id), key) in &writes.named {
            let all = params![*shard, id.as_str().to_owned(), key.0.to_vec()];
            calls.add(sql::PUT_MESSAGE, all).await?;
        }
    } else if !writes.named.is_empty() {
        let ids: Vec<String> = writes.named.keys().map(|(_, id)| id.as_str().to_owned()).collect();
        let all: Vec<TerminalKey> = writes.named.values().copied().collect();
        calls.add(sql::PUT_MESSAGES, params![places(&all), ids, keys(&all)]).await?;
    }
    Ok(())
}
