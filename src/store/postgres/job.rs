//! Fan-out jobs: a row, counters and a cursor in every shard.

use deadpool_postgres::{ClientWrapper as Client, Transaction};
use tokio_postgres::GenericClient;

use super::catalogue::ensure_counters;
use super::place::SHARDS;
use crate::delivery::State;
use crate::id::{JobId, ServiceNo, TerminalKey};
use crate::store::{Job, JobKind, JobState, StoreError};
use crate::time::Timestamp;

/// Jobs that are remembered; each has a counter in every shard.
pub(super) const KEPT_JOBS: i64 = 1_000;

const COLUMNS: &str = "id, kind, service, number, state, expected, started, finished, open";

/// A job's row, without its counters, and whether it was open when it was last settled.
fn row(row: &tokio_postgres::Row) -> Result<(Job, bool), StoreError> {
    let id: i64 = row.get(0);
    let broken = || StoreError::Damaged(format!("job {id}"));
    let (kind, service, number): (i16, i64, i32) = (row.get(1), row.get(2), row.get(3));
    let (state, expected, started, finished): (i16, i64, i64, Option<i64>) =
        (row.get(4), row.get(5), row.get(6), row.get(7));
    let kind = match kind {
        0 => JobKind::KeyUpdate,
        1 => JobKind::Retire,
        _ => return Err(broken()),
    };
    let state = JobState::ALL.into_iter().find(|s| *s as i16 == state).ok_or_else(broken)?;
    let service = ServiceNo(u32::try_from(service).map_err(|_| broken())?);
    let number = u16::try_from(number).map_err(|_| broken())?;
    let at = |millis: i64| Timestamp(millis as u64);
    let mut job = Job::new(JobId(id as u64), kind, service, number, expected as u64, at(started));
    job.state = state;
    job.finished = finished.map(at);
    job.cursor = None;
    Ok((job, row.get(8)))
}

/// Gives jobs their counts and cursors as they are now.
async fn complete(client: &impl GenericClient, jobs: &mut [Job]) -> Result<(), StoreError> {
    let ids: Vec<i64> = jobs.iter().map(|job| job.id.0 as i64).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let find = |jobs: &mut [Job], id: i64| jobs.iter().position(|job| job.id.0 as i64 == id);
    // Cursors first: of a job that is through, the counts that are read thereafter have all its visits.
    let text = "SELECT job, min(encode(cursor, 'hex')), max(encode(cursor, 'hex')) FROM ltkmd.job_shard WHERE job = \
                ANY($1) AND cursor IS NOT NULL GROUP BY job";
    for row in client.query(text, &[&ids]).await? {
        let Some(place) = find(jobs, row.get(0)) else { continue };
        let job = &mut jobs[place];
        let hex: &str = row.get(if job.state == JobState::Cancelled { 2 } else { 1 });
        let octets = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().and_then(|o| o.try_into().ok());
        job.cursor = Some(TerminalKey(octets.ok_or_else(|| StoreError::Damaged(format!("job {}", job.id)))?));
    }
    let text = "SELECT a, sum(n0)::bigint, sum(n1)::bigint, sum(n2)::bigint, sum(n3)::bigint, sum(n4)::bigint, \
                sum(n5)::bigint, sum(n6)::bigint, sum(n7)::bigint, sum(n8)::bigint FROM ltkmd.tally WHERE kind = 3 \
                AND a = ANY($1) AND shard = ANY($2) GROUP BY a";
    let all: Vec<i32> = (0..SHARDS).collect();
    for row in client.query(text, &[&ids, &all]).await? {
        let Some(place) = find(jobs, row.get(0)) else { continue };
        let n = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
        for i in 0..State::ALL.len() {
            jobs[place].states[i] = n(i + 1);
        }
        jobs[place].sent = n(9);
    }
    Ok(())
}

/// Jobs that a condition selects, as they are now, settled: those whose end is reached are written so.
async fn select(
    client: &Client,
    condition: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Vec<Job>, StoreError> {
    let statement = client.prepare_cached(&format!("SELECT {COLUMNS} FROM ltkmd.job {condition}")).await;
    let rows = client.query(&statement?, params).await?;
    let read: Vec<(Job, bool)> = rows.iter().map(row).collect::<Result<_, _>>()?;
    let (mut jobs, open): (Vec<Job>, Vec<bool>) = read.into_iter().unzip();
    complete(&**client, &mut jobs).await?;
    for (job, was_open) in jobs.iter_mut().zip(open) {
        if !was_open {
            continue;
        }
        job.settle(Timestamp::now());
        if !job.is_open() {
            settle(client, job).await?;
        }
    }
    Ok(jobs)
}

/// Writes that a job has come to its end; what another daemon wrote of it stays.
async fn settle(client: &Client, job: &mut Job) -> Result<(), StoreError> {
    let (id, finished) = (job.id.0 as i64, job.finished.map(|at| at.0 as i64));
    let text = "UPDATE ltkmd.job SET state = CASE WHEN state IN (0, 1) THEN 3 ELSE state END, finished = \
                coalesce(finished, $2), open = false WHERE id = $1 AND open AND state = ANY($3) RETURNING finished";
    // A job that was paused or resumed meanwhile has come to its end all the same; one that was cancelled has not.
    let from: &[i16] = if job.state == JobState::Cancelled { &[2] } else { &[0, 1] };
    if let Some(row) = client.query_opt(text, &[&id, &finished, &from]).await? {
        job.finished = row.get::<_, Option<i64>>(0).map(|at| Timestamp(at as u64));
        client.execute("DELETE FROM ltkmd.job_shard WHERE job = $1", &[&id]).await?;
    } else if let Some(row) = client.query_opt("SELECT finished FROM ltkmd.job WHERE id = $1", &[&id]).await?
    {
        job.finished = row.get::<_, Option<i64>>(0).map(|at| Timestamp(at as u64));
    }
    Ok(())
}

/// One job as it is now.
pub(super) async fn get(client: &Client, id: JobId) -> Result<Option<Job>, StoreError> {
    Ok(select(client, "WHERE id = $1", &[&(id.0 as i64)]).await?.pop())
}

/// A job's row alone.
pub(super) async fn head(client: &Client, id: JobId) -> Result<Option<Job>, StoreError> {
    let statement = client.prepare_cached(&format!("SELECT {COLUMNS} FROM ltkmd.job WHERE id = $1")).await;
    let found = client.query_opt(&statement?, &[&(id.0 as i64)]).await?;
    let found = found.map(|r| row(&r)).transpose()?;
    Ok(found.filter(|(_, open)| *open).map(|(job, _)| job))
}

/// The newest jobs first.
pub(super) async fn list(client: &Client, limit: usize) -> Result<Vec<Job>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    select(client, "ORDER BY id DESC LIMIT $1", &[&limit]).await
}

/// Jobs with something left to do, the oldest first.
pub(super) async fn open(client: &Client) -> Result<Vec<Job>, StoreError> {
    let mut jobs = select(client, "WHERE open ORDER BY id", &[]).await?;
    jobs.retain(Job::is_open);
    Ok(jobs)
}

/// The number of the next job.
pub(super) async fn next_id(client: &Client) -> Result<JobId, StoreError> {
    let text = "UPDATE ltkmd.meta SET next_job = next_job + 1 RETURNING next_job - 1";
    let row = client.query_one(text, &[]).await?;
    Ok(JobId(row.get::<_, i64>(0) as u64))
}

/// Puts a job in, or changes the state of one that exists. No page is between its guard and its commit meanwhile, so
/// what is counted is exact.
pub(super) async fn put(transaction: &Transaction<'_>, written: Job) -> Result<(), StoreError> {
    let id = written.id.0 as i64;
    let text = format!("SELECT {COLUMNS} FROM ltkmd.job WHERE id = $1 FOR UPDATE");
    let statement = transaction.prepare_cached(&text).await?;
    let known = transaction.query_opt(&statement, &[&id]).await?;
    let Some(known) = known.map(|r| row(&r)).transpose()? else { return insert(transaction, written).await };
    let (known, was_open) = known;
    let mut job = [known];
    complete(&**transaction, &mut job).await?;
    let [mut job] = job;
    if !was_open || job.state.is_over() {
        return Ok(());
    }
    // It may have come to its end since it was last looked at.
    job.settle(Timestamp::now());
    job.take_state(&written);
    if job.state == JobState::Cancelled {
        let text = "UPDATE ltkmd.job_shard SET step = step + 1, cursor = CASE WHEN cursor IS NULL THEN \
                    set_byte(decode(repeat('ff', 16), 'hex'), 0, shard) WHEN cursor = set_byte(decode(repeat('00', \
                    16), 'hex'), 0, shard) THEN NULL ELSE cursor END WHERE job = $1";
        transaction.execute(text, &[&id]).await?;
    }
    job.settle(Timestamp::now());
    let (state, expected) = (job.state as i16, job.expected as i64);
    let (finished, open) = (job.finished.map(|at| at.0 as i64), job.is_open());
    let text = "UPDATE ltkmd.job SET state = $2, expected = $3, finished = $4, open = $5 WHERE id = $1";
    transaction.execute(text, &[&id, &state, &expected, &finished, &open]).await?;
    if !open {
        transaction.execute("DELETE FROM ltkmd.job_shard WHERE job = $1", &[&id]).await?;
    }
    Ok(())
}

async fn insert(transaction: &Transaction<'_>, mut job: Job) -> Result<(), StoreError> {
    job.settle(Timestamp::now());
    let (id, open) = (job.id.0 as i64, job.is_open());
    let text = format!("INSERT INTO ltkmd.job ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
    let statement = transaction.prepare_cached(&text).await?;
    let (kind, service, number) = (job.kind as i16, i64::from(job.service.0), i32::from(job.number));
    let (state, expected, started) = (job.state as i16, job.expected as i64, job.started.0 as i64);
    let finished = job.finished.map(|at| at.0 as i64);
    transaction
        .execute(&statement, &[&id, &kind, &service, &number, &state, &expected, &started, &finished, &open])
        .await?;
    let text = "UPDATE ltkmd.meta SET next_job = greatest(next_job, $1::bigint + 1)";
    transaction.execute(text, &[&id]).await?;
    if open {
        ensure_counters(&**transaction, 3, id, 0).await?;
        let text = "INSERT INTO ltkmd.job_shard (shard, job, step, cursor) SELECT shard, $1::bigint, 0, \
                    set_byte(decode(repeat('00', 16), 'hex'), 0, shard) FROM generate_series(0, $2::int) AS shard";
        transaction.execute(text, &[&id, &(SHARDS - 1)]).await?;
    }
    let text = "DELETE FROM ltkmd.job WHERE id <= $1 AND NOT open RETURNING id";
    let gone: Vec<i64> =
        transaction.query(text, &[&(id - KEPT_JOBS)]).await?.iter().map(|row| row.get(0)).collect();
    if !gone.is_empty() {
        let text = "DELETE FROM ltkmd.tally WHERE kind = 3 AND a = ANY($1)";
        transaction.execute(text, &[&gone]).await?;
    }
    Ok(())
}
