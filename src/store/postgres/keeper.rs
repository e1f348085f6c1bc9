//! What goes on beside calls: leases are renewed, counters added up, overdue terminals found.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::Client;

use super::connect::{Connection, Pool};
use super::inner::Inner;
use super::lease::RENEW;
use crate::store::{Lane, StoreError};
use crate::time::Timestamp;

/// How long one renewal may take before its connection is given up.
const RENEWAL: Duration = Duration::from_secs(2);

/// How often counters are added up.
const COUNT: Duration = Duration::from_secs(1);

/// How often overdue terminals are looked for.
const OVERDUE: Duration = Duration::from_secs(1);

/// How long past its time a terminal is found by looking for it: what this daemon knows of by itself comes earlier.
const GRACE: Duration = Duration::from_secs(1);

/// Overdue terminals that one look finds.
const BATCH: usize = 2000;

/// How long a daemon waits for another of the same name to be gone.
const NAME: Duration = Duration::from_secs(15);

/// The connection by which this daemon is in the cluster. The database lets go of the name when it breaks.
pub(super) async fn enter(pool: &Pool, name: &str) -> Result<ClientWrapper, StoreError> {
    let client = Connection::take(pool.get().await?);
    let begun = tokio::time::Instant::now();
    loop {
        let text = "SELECT pg_try_advisory_lock(1819569005, hashtext($1))";
        let got: bool = client.query_one(text, &[&name]).await?.get(0);
        if got {
            return Ok(client);
        }
        if begun.elapsed() > NAME {
            return Err(StoreError::Open(format!(
                "another daemon is in the cluster as {name}: give each its own node.name"
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Renews the leases until the store is closed.
pub(super) async fn keep_leases(inner: Arc<Inner>, client: ClientWrapper) {
    let mut client = Some(client);
    let mut ticks = interval(RENEW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut overdue = 0;
    while !inner.closed.load(Ordering::Acquire) {
        tokio::select! {
            _ = ticks.tick() => {}
            () = inner.closing.notified() => break,
        }
        let renewed = timeout(RENEWAL, renew(&inner, &mut client, overdue)).await;
        let renewed = renewed.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the database did not answer in time".to_owned()))
        });
        if renewed.is_err() {
            // Its session is over with it.
            client = None;
        } else if let Some(next) = inner.queues.next_due(Lane::Look) {
            overdue = Timestamp::now().since(next).as_millis() as i64;
        }
        let mut works = inner.works.write().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(()), Err(error)) = (&*works, &renewed) {
            tracing::error!(%error, "the leases could not be renewed");
        }
        *works = renewed;
    }
    if let Some(mut client) = client
        && let Err(error) = inner.leases.leave(&mut client).await
    {
        tracing::warn!(%error, "the leases could not be given up: others take them over when they end");
    }
    inner.left.notify_one();
}

async fn renew(inner: &Inner, kept: &mut Option<ClientWrapper>, overdue: i64) -> Result<(), StoreError> {
    let client = match kept {
        Some(client) => client,
        None => kept.insert(enter(&inner.pool, &inner.leases.node().0).await?),
    };
    let client: &mut Client = client;
    let renewed = inner.leases.renew(client, overdue).await?;
    inner.first_t.store(renewed.first_t, Ordering::Relaxed);
    inner.saw(renewed.revision);
    Ok(())
}

/// Adds counters up until the store is closed.
pub(super) async fn keep_counts(inner: Arc<Inner>) {
    let mut ticks = interval(COUNT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !inner.closed.load(Ordering::Acquire) {
        ticks.tick().await;
        if let Err(error) = inner.refresh().await {
            tracing::debug!(%error, "counters wait for the store");
        }
    }
}

/// Finds what is overdue until the store is closed.
pub(super) async fn keep_queues(inner: Arc<Inner>) {
    let mut ticks = interval(OVERDUE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !inner.closed.load(Ordering::Acquire) {
        ticks.tick().await;
        for lane in [Lane::Look, Lane::Sms] {
            if let Err(error) = inner.find_overdue(lane, Timestamp::now() - GRACE, BATCH).await {
                tracing::debug!(%error, "overdue terminals wait for the store");
            }
        }
    }
}
