//! How far fan-out jobs have come in the shards that this daemon looks after.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deadpool_postgres::ClientWrapper as Client;

use super::place::{bounds, range, shard};
use super::scope::{Reading, row};
use super::sql;
use crate::id::{JobId, TerminalKey};
use crate::store::{Job, JobState, StoreError};

/// Shards that one page looks into at most.
const SPAN: usize = 256;

/// A shard's cursor before and after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) shard: i32,
    pub(super) old: TerminalKey,
    /// `None`: the job is through with the shard.
    pub(super) new: Option<TerminalKey>,
}

/// What a page does to a job's cursors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) moves: Vec<Move>,
}

impl Visit {
    /// The ranges that have to be this daemon's.
    pub(super) fn ranges(&self) -> Vec<i32> {
        let ranges: BTreeSet<i32> = self.moves.iter().map(|m| range(m.shard) as i32).collect();
        ranges.into_iter().collect()
    }
}

/// A job's cursors in the shards of this daemon, as of its last page here.
#[derive(Debug)]
struct Walk {
    state: JobState,
    leases: u64,
    pending: BTreeMap<i32, TerminalKey>,
    busy: BTreeSet<i32>,
}

/// The walks of all open jobs.
#[derive(Debug, Default)]
pub(super) struct Walks(HashMap<JobId, Walk>);

impl Walks {
    /// Whether the job's cursors have to be read, for leases of this generation.
    pub(super) fn is_stale(&self, job: &Job, leases: u64) -> bool {
        self.0.get(&job.id).is_none_or(|walk| walk.state != job.state || walk.leases != leases)
    }

    /// Takes cursors over as they were read. Pages that are under way keep their shards.
    pub(super) fn load(&mut self, job: &Job, leases: u64, pending: BTreeMap<i32, TerminalKey>) {
        let busy = self.0.remove(&job.id).map_or_else(BTreeSet::new, |walk| walk.busy);
        self.0.insert(job.id, Walk { state: job.state, leases, pending, busy });
    }

    /// Begins a page: shards to look into, in their order, about enough for `limit` members when a shard has `each`.
    pub(super) fn begin(&mut self, job: &Job, shards: usize) -> Vec<(i32, TerminalKey)> {
        let Some(walk) = self.0.get_mut(&job.id) else { return Vec::new() };
        let free = |(shard, _): &(&i32, &TerminalKey)| !walk.busy.contains(*shard);
        let back = job.state == JobState::Cancelled;
        let pending: Box<dyn Iterator<Item = (&i32, &TerminalKey)>> =
            if back { Box::new(walk.pending.iter().rev()) } else { Box::new(walk.pending.iter()) };
        let taken: Vec<_> = pending
            .filter(free)
            .take(shards.clamp(1, SPAN))
            .map(|(shard, cursor)| (*shard, *cursor))
            .collect();
        walk.busy.extend(taken.iter().map(|(shard, _)| *shard));
        taken
    }

    /// Ends a page that was committed.
    pub(super) fn committed(&mut self, job: JobId, taken: &[i32], visit: &Visit) {
        self.abandoned(job, taken);
        let Some(walk) = self.0.get_mut(&job) else { return };
        for m in &visit.moves {
            match m.new {
                Some(cursor) => drop(walk.pending.insert(m.shard, cursor)),
                None => drop(walk.pending.remove(&m.shard)),
            }
        }
    }

    /// Ends a page that was not committed.
    pub(super) fn abandoned(&mut self, job: JobId, taken: &[i32]) {
        if let Some(walk) = self.0.get_mut(&job) {
            for shard in taken {
                walk.busy.remove(shard);
            }
        }
    }

    /// The cursors have to be read again.
    pub(super) fn forget(&mut self, job: JobId) {
        if let Some(walk) = self.0.get_mut(&job) {
            walk.leases = u64::MAX;
        }
    }

    /// Whether a page is left that nobody has begun.
    pub(super) fn has_more(&self, job: JobId) -> bool {
        self.0.get(&job).is_some_and(|walk| walk.pending.keys().any(|shard| !walk.busy.contains(shard)))
    }

    /// Keeps the walks of these jobs alone.
    pub(super) fn retain(&mut self, open: &BTreeSet<JobId>) {
        self.0.retain(|job, walk| open.contains(job) || !walk.busy.is_empty());
    }
}

/// A job's cursors in some shards.
pub(super) async fn cursors(
    client: &Client,
    job: JobId,
    shards: &[i32],
) -> Result<BTreeMap<i32, TerminalKey>, StoreError> {
    let text =
        "SELECT shard, cursor FROM ltkmd.job_shard WHERE job = $1 AND shard = ANY($2) AND cursor IS NOT NULL";
    let statement = client.prepare_cached(text).await?;
    let rows = client.query(&statement, &[&(job.0 as i64), &shards]).await?;
    let cursor = |row: &tokio_postgres::Row| {
        let octets: &[u8] = row.get(1);
        let key = octets.try_into().map_err(|_| StoreError::Damaged(format!("a cursor of job {job}")))?;
        Ok((row.get(0), TerminalKey(key)))
    };
    rows.iter().map(cursor).collect()
}

/// Reads the members of a page in these shards, and how the cursors move when it is committed.
pub(super) async fn page(
    client: &Client,
    job: &Job,
    taken: &[(i32, TerminalKey)],
    limit: usize,
    first_t: u64,
    distributed: bool,
    reading: &mut Reading,
) -> Result<Visit, StoreError> {
    let back = job.state == JobState::Cancelled;
    let text = if back { sql::PAGE_DOWN } else { sql::PAGE_UP };
    let statement = client.prepare_cached(&sql::placed(text, distributed)).await?;
    let shards: Vec<i32> = taken.iter().map(|(shard, _)| *shard).collect();
    let from: Vec<&[u8]> = taken.iter().map(|(_, cursor)| &cursor.0[..]).collect();
    let (service, most) = (i64::from(job.service.0), limit as i64);
    let rows = client.query(&statement, &[&shards, &shards, &from, &service, &most]).await?;
    let mut last = None;
    for r in &rows {
        let (key, raw) = row(r)?;
        let terminal = raw.terminal(key, first_t)?;
        reading.put(raw, terminal);
        last = Some(key);
    }
    let mut visit = Visit::default();
    let full = rows.len() == limit;
    for (place, old) in taken {
        let (shard_of, old) = (*place, *old);
        let new = match last.filter(|key| full && shard(*key) == shard_of) {
            Some(key) => behind(key, back).filter(|next| shard(*next) == shard_of),
            None => None,
        };
        debug_assert!({
            let (low, high) = bounds(shard_of);
            (low..=high).contains(&old)
        });
        visit.moves.push(Move { shard: shard_of, old, new });
        if full && last.is_some_and(|key| shard(key) == shard_of) {
            break;
        }
    }
    Ok(visit)
}

fn behind(key: TerminalKey, back: bool) -> Option<TerminalKey> {
    if back { key.prev() } else { key.next() }
}
