//! What is small and written once, at the end: services, keys, jobs, counters. And whether all of it is there.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::ClientWrapper as Client;
use tokio_postgres::types::Type;

use super::batch::copy;
use super::pass::PassReport;
use crate::delivery::{MessageId, State};
use crate::id::TerminalKey;
use crate::store::postgres::change::Counter;
use crate::store::postgres::job::KEPT_JOBS;
use crate::store::postgres::message;
use crate::store::postgres::place::{SHARDS, bounds, shard};
use crate::store::postgres::scope::terminals;
use crate::store::{Job, JobState, StoreError};

/// A counter's row.
type Row = [i64; 9];

/// Jobs that are remembered there: the newest, and those that are open.
fn kept(last: &PassReport) -> impl Iterator<Item = &Job> {
    let newest = last.jobs.iter().map(|job| job.id.0).max().unwrap_or(0);
    last.jobs.iter().filter(move |job| job.is_open() || job.id.0 + KEPT_JOBS as u64 > newest)
}

/// Where a job goes on in a shard: it walks upwards over all terminals, or back when it is cancelled.
fn cursor(job: &Job, of: i32) -> Option<TerminalKey> {
    let at = job.cursor?;
    let (low, high) = bounds(of);
    match (shard(at).cmp(&of), job.state == JobState::Cancelled) {
        (std::cmp::Ordering::Equal, _) => Some(at),
        (std::cmp::Ordering::Less, false) => Some(low),
        (std::cmp::Ordering::Greater, true) => Some(high),
        _ => None,
    }
}

/// The counters of every shard. What the terminals' records do not tell any more, because deliveries are forgotten
/// after a while, counts in the first one: all are added up.
fn counters(last: &PassReport) -> BTreeMap<(i32, Counter), Row> {
    let mut rows = last.tally.clone();
    rows.retain(|(_, (kind, ..)), _| *kind != 3);
    let mut rest = [0; 9];
    for state in State::ALL.into_iter().filter(|state| !state.is_open()) {
        let place = state as usize;
        let counted: i64 = last.tally.iter().filter(|((_, c), _)| c.0 == 0).map(|(_, row)| row[place]).sum();
        rest[place] = last.totals.deliveries[place] as i64 - counted;
    }
    for of in 0..SHARDS {
        let row = rows.entry((of, (0, 0, 0))).or_default();
        if of == 0 {
            row.iter_mut().zip(rest).for_each(|(n, more)| *n += more);
        }
        for job in kept(last) {
            let counter = (3, job.id.0 as i64, 0);
            let counted = last.tally.get(&(of, counter)).copied().unwrap_or_default();
            rows.insert((of, counter), counted);
        }
    }
    for job in kept(last) {
        let counter = (3, job.id.0 as i64, 0);
        let mut rest = [0; 9];
        for (n, states) in rest.iter_mut().zip(job.states) {
            *n = states as i64;
        }
        rest[8] = job.sent as i64;
        for of in 0..SHARDS {
            let counted = rows[&(of, counter)];
            rest.iter_mut().zip(counted).for_each(|(n, counted)| *n -= counted);
        }
        let first = rows.get_mut(&(0, counter)).expect("every shard has a row of the job");
        first.iter_mut().zip(rest).for_each(|(n, more)| *n += more);
    }
    rows
}

/// Writes all of it, as one commit.
pub(super) async fn fill(client: &Client, last: &PassReport) -> Result<(), StoreError> {
    client
        .batch_execute("BEGIN; TRUNCATE ltkmd.service, ltkmd.msk, ltkmd.job, ltkmd.tally, ltkmd.job_shard")
        .await?;
    let services = last.services.iter().map(|(no, record)| (i64::from(no.0), &record[..]));
    let types = [Type::INT8, Type::BYTEA];
    copy(client, "service (no, record)", types, services, |(no, record)| [no, record]).await?;
    let keys = last.keys.iter().map(|(no, number, key, record)| {
        (i64::from(no.0), i32::from(*number), key.ordinal as i64, &record[..])
    });
    let types = [Type::INT8, Type::INT4, Type::INT8, Type::BYTEA];
    copy(client, "msk (service, number, ordinal, record)", types, keys, |(no, number, ordinal, record)| {
        [no, number, ordinal, record]
    })
    .await?;
    for job in kept(last) {
        let text = "INSERT INTO ltkmd.job (id, kind, service, number, state, expected, started, finished, open) VALUES \
                    ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let (service, number) = (i64::from(job.service.0), i32::from(job.number));
        let finished = job.finished.map(|at| at.0 as i64);
        let (id, expected, started) = (job.id.0 as i64, job.expected as i64, job.started.0 as i64);
        let (kind, state, open) = (job.kind as i16, job.state as i16, job.is_open());
        let statement = client.prepare_cached(text).await?;
        client
            .execute(
                &statement,
                &[&id, &kind, &service, &number, &state, &expected, &started, &finished, &open],
            )
            .await?;
    }
    let cursors = kept(last).filter(|job| job.is_open()).flat_map(|job| {
        (0..SHARDS).map(|of| (of, job.id.0 as i64, cursor(job, of).map(|key| key.0.to_vec())))
    });
    let types = [Type::INT4, Type::INT8, Type::INT4, Type::BYTEA];
    copy(client, "job_shard (shard, job, step, cursor)", types, cursors, |(shard, job, cursor)| {
        [shard, job, &0i32, cursor]
    })
    .await?;
    let types = [
        Type::INT4,
        Type::INT2,
        Type::INT8,
        Type::INT4,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ];
    let into = "tally (shard, kind, a, b, n0, n1, n2, n3, n4, n5, n6, n7, n8)";
    copy(
        client,
        into,
        types,
        counters(last),
        |((shard, (kind, a, b)), [n0, n1, n2, n3, n4, n5, n6, n7, n8])| {
            [shard, kind, a, b, n0, n1, n2, n3, n4, n5, n6, n7, n8]
        },
    )
    .await?;
    let next_job = last.jobs.iter().map(|job| job.id.0 + 1).max().unwrap_or(1) as i64;
    let text = "UPDATE ltkmd.meta SET first_t = $1, next_service = $2, next_ordinal = $3, next_job = $4";
    let (first_t, next_service) = (last.first_t as i64, i64::from(last.totals.next_service));
    client.execute(text, &[&first_t, &next_service, &(last.totals.next_ordinal as i64), &next_job]).await?;
    client.batch_execute("COMMIT").await?;
    Ok(())
}

/// Compares how many there are, and some of the terminals octet by octet, with their messages.
pub(super) async fn verify(client: &Client, last: &PassReport, distributed: bool) -> Result<(), StoreError> {
    for (table, wanted) in
        [("terminal", last.terminals), ("subscriber", last.subscribers), ("member", last.members)]
    {
        let row = client.query_one(&format!("SELECT count(*) FROM ltkmd.{table}"), &[]).await?;
        let found: i64 = row.get(0);
        if found != wanted as i64 {
            return Err(StoreError::Damaged(format!(
                "the database has {found} rows of {table} and should have {wanted}: did something else write to it?"
            )));
        }
    }
    let keys: Vec<TerminalKey> = last.sample.iter().map(|(key, ..)| *key).collect();
    let found = terminals(client, &keys, distributed).await?;
    for (key, credential, state) in &last.sample {
        let same = found.get(key).is_some_and(|raw| raw.credential == *credential && raw.state == *state);
        if !same {
            return Err(StoreError::Damaged(format!(
                "the database has another record of {key:?} than was copied: did something else write to it?"
            )));
        }
    }
    // Of two terminals with one id in one shard the database knows one: what is sure is that each id is there.
    let mut named = BTreeSet::new();
    for (key, raw) in &found {
        named.extend(message::ids(&raw.terminal(*key, last.first_t)?).into_iter().cloned());
    }
    let named: Vec<MessageId> = named.into_iter().collect();
    let known = message::terminals(client, &named, last.first_t, distributed).await?;
    if let Some(id) = named.iter().find(|id| !known.contains_key(id)) {
        return Err(StoreError::Damaged(format!(
            "the database does not know the message {}, which was copied: did something else write to it?",
            id.as_str()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobId, ServiceNo};
    use crate::store::JobKind;
    use crate::time::Timestamp;

    #[test]
    fn a_job_goes_on_in_each_shard_where_it_was_over_all() {
        let mut job = Job::new(JobId(1), JobKind::KeyUpdate, ServiceNo(1), 1, 10, Timestamp(0));
        assert!((0..SHARDS).all(|of| cursor(&job, of) == Some(bounds(of).0)), "it has visited nobody");
        let mut at = TerminalKey([9; 16]);
        at.0[0] = 100;
        job.cursor = Some(at);
        assert_eq!((cursor(&job, 99), cursor(&job, 100)), (None, Some(at)));
        assert_eq!(cursor(&job, 101), Some(bounds(101).0));
        job.state = JobState::Cancelled;
        assert_eq!(cursor(&job, 99), Some(bounds(99).1), "it walks back");
        assert_eq!((cursor(&job, 100), cursor(&job, 101)), (Some(at), None));
        job.cursor = None;
        assert!((0..SHARDS).all(|of| cursor(&job, of).is_none()));
    }
}
