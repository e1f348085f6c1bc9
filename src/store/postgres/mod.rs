//! The store that several daemons share: PostgreSQL, or a database of many machines that speaks as it does.
//!
//! An update reads, decides, and writes with few flights of statements, for all requests that came at the same time. Every row has a version, and a write whose row was
//! changed since it was read fails as a whole: it is read and decided again. So decisions need no locks, T is raised by
//! the commit that records it, and it does not matter which daemon does it. What has to be done once (pages of jobs,
//! resends, turns by SMS) belongs to shards, and shards are leased (`lease.rs`); a commit asks in its own transaction
//! whether the leases it relies on still hold.
//!
//! Connections live on threads of the store's own, like the committer of the embedded engine.

mod batch;
mod catalogue;
mod change;
mod cluster;
mod commit;
mod connect;
mod counts;
mod fault;
mod inner;
mod job;
mod keeper;
mod lease;
mod lists;
mod message;
mod migrate;
mod page;
mod place;
mod raise;
mod recent;
mod schema;
mod scope;
mod sql;
mod tls;
mod together;
mod url;
mod walk;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use zeroize::Zeroizing;

pub use self::connect::{Connection, Connector, Pool, ServerFacts, check_server};
pub use self::migrate::{Found, Migration, Pass, PassReport};
pub use self::raise::{Raised, raise_t};
#[doc(hidden)]
pub use self::schema::Upgrade;
#[doc(hidden)]
pub use self::sql::{HOT_STATEMENTS, READ_MESSAGES};
pub use self::url::{PgHost, PgUrl, TlsMode, UrlFault};

use self::inner::Inner;
use self::lease::Leases;
use self::place::shard;
use super::cluster::{Cluster, Membership, late};
use super::{
    CatalogueWrite, Counts, Cursor, Decide, DeliveryFilter, DiskUse, Holders, Job, Lane, Scope, Sealer,
    Store, StoreError, StoreFuture, Subscriber, TerminalFilter,
};
use crate::delivery::{Delivery, MessageId, Terminal};
use crate::id::{BTid, JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::keys::Catalogue;
use crate::secret::Secret;
use crate::time::Timestamp;

/// How long a call may take, waiting for a connection included.
const CALL: Duration = Duration::from_secs(10);

/// How long a call over all terminals may take.
const LONG: Duration = Duration::from_secs(60);

/// Pages of jobs that are decided at the same time: the database works on one while another is decided.
const PAGES: usize = 4;

/// Batches of requests that are read or written at the same time, where one may be about any terminals.
const BATCHES: usize = 2;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct PgSettings {
    /// Where the database is.
    pub url: PgUrl,
    /// The password of its user.
    pub password: Option<Secret>,
    /// Wraps the data key; the same for all daemons.
    pub master: Zeroizing<[u8; 32]>,
    /// This daemon's name, no other's.
    pub node: String,
    /// Where it serves terminals, for who looks at the cluster.
    pub http: String,
    /// Connections at most, besides the one that keeps the leases.
    pub connections: usize,
}

/// A store in a database that other daemons use too.
pub struct PgStore {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for PgStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgStore").finish_non_exhaustive()
    }
}

impl PgStore {
    /// Connects, makes or opens the schema, and enters the cluster. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while the server is not there, starts, or cannot write; [`StoreError::Open`] when
    /// waiting does not help: a wrong password, no right, an old server, a schema or a store key that is not ours,
    /// another daemon of this name.
    pub fn open(settings: &PgSettings) -> Result<Self, StoreError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("store-pg").enable_all().build();
        let runtime = runtime.map_err(|e| StoreError::Open(format!("no threads for the database: {e}")))?;
        let (told, heard) = std::sync::mpsc::channel();
        let settings = settings.clone();
        runtime.spawn(async move { told.send(open(&settings).await) });
        let opened = heard.recv().map_err(|_| StoreError::Open("opening broke off".to_owned()));
        match opened.and_then(|opened| opened) {
            Ok(inner) => Ok(Self { inner, runtime: Some(runtime) }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Runs on the store's own threads, so that connections outlive the caller's.
    fn run<T: Send + 'static, F>(
        &self,
        within: Duration,
        call: impl FnOnce(Arc<Inner>) -> F,
    ) -> StoreFuture<'static, T>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else {
            return Box::pin(std::future::ready(Err(StoreError::Closed)));
        };
        let call = call(Arc::clone(&self.inner));
        let task = runtime.spawn(async move {
            timeout(within, call).await.unwrap_or_else(|_| {
                Err(StoreError::Unavailable(format!(
                    "the database did not answer within {} s",
                    within.as_secs()
                )))
            })
        });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

async fn open(settings: &PgSettings) -> Result<Arc<Inner>, StoreError> {
    let pool = Pool::new(settings.url.clone(), settings.password.clone(), settings.connections + 1)?;
    let mut client = pool.get().await?;
    let facts = check_server(&pool, &client).await?;
    let distributed = facts.citus.is_some();
    let found = schema::open(&mut client, &settings.master, distributed).await?;
    drop(client);
    let mut entered = keeper::enter(&pool, &settings.node).await?;
    let leases = Leases::enter(&entered, &settings.node, &settings.http, schema::FORMAT).await?;
    let at_once = if distributed { settings.connections } else { BATCHES };
    let inner = Inner::new(pool, distributed, found.sealer, found.first_t, leases, found.revision, at_once);
    inner.leases.renew(&mut entered, 0).await?;
    inner.refresh().await?;
    let inner = Arc::new(inner);
    tokio::spawn(keeper::keep_leases(Arc::clone(&inner), entered));
    tokio::spawn(keeper::keep_counts(Arc::clone(&inner)));
    tokio::spawn(keeper::keep_queues(Arc::clone(&inner)));
    Ok(inner)
}

/// Takes a database's schema through steps as an opening daemon does, for tests of steps that no version has yet.
///
/// # Errors
/// A step that a living daemon does not know; a server that does not answer.
#[doc(hidden)]
pub async fn upgrade_schema(pool: &Pool, steps: &[Upgrade]) -> Result<(), StoreError> {
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;
    schema::upgrade(&transaction, steps).await?;
    Ok(transaction.commit().await?)
}

impl Store for PgStore {
    fn sealer(&self) -> &Sealer {
        &self.inner.sealer
    }

    fn catalogue(&self) -> StoreFuture<'_, Catalogue> {
        self.run(CALL, |inner| async move {
            let mut connection = inner.connection().await?;
            let catalogue = catalogue::load(&mut connection, &inner.sealer).await?;
            connection.done();
            Ok(catalogue)
        })
    }

    fn write_catalogue(&self, writes: Vec<CatalogueWrite>) -> StoreFuture<'_, ()> {
        self.run(CALL, |inner| async move { write(&inner, None, writes).await.map(drop) })
    }

    fn write_catalogue_at(&self, revision: u64, writes: Vec<CatalogueWrite>) -> StoreFuture<'_, u64> {
        self.run(CALL, move |inner| async move { write(&inner, Some(revision), writes).await })
    }

    fn catalogue_changed(&self) -> StoreFuture<'_, ()> {
        self.run(Duration::MAX, |inner| async move {
            let mut seen = inner.seen.subscribe();
            let newer = seen.wait_for(|seen| *seen > *inner.decides.borrow()).await;
            newer.map(drop).map_err(|_| StoreError::Closed)
        })
    }

    fn newer_catalogue(&self, revision: u64) -> StoreFuture<'_, Option<Catalogue>> {
        self.run(CALL, move |inner| async move { inner.newer_catalogue(revision).await })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn decides_with(&self, revision: u64) {
        self.inner.decides.send_replace(revision);
    }

    fn unit(&self, key: TerminalKey) -> u16 {
        if self.inner.distributed { shard(key) as u16 } else { 0 }
    }

    fn holds(&self, key: TerminalKey) -> bool {
        self.inner.leases.holds(key)
    }

    fn leads(&self) -> bool {
        self.inner.leases.leads()
    }

    fn cluster(&self) -> StoreFuture<'_, Cluster> {
        self.run(CALL, |inner| async move {
            let connection = inner.connection().await?;
            let (here, _) = inner.leases.node();
            let cluster = cluster::look(&connection, &here, inner.distributed).await?;
            connection.done();
            Ok(cluster)
        })
    }

    fn membership(&self) -> Membership {
        self.inner.leases.membership(late(self.next_due(Lane::Look)))
    }

    fn pages_at_once(&self) -> usize {
        PAGES
    }

    fn terminal<'a>(&'a self, btid: &'a BTid) -> StoreFuture<'a, Option<Terminal>> {
        let key = self.terminal_key(btid);
        self.run(CALL, move |inner| async move {
            let connection = inner.connection().await?;
            let found = scope::terminals(&connection, &[key], inner.distributed).await?.remove(&key);
            connection.done();
            let found = found.filter(|raw| raw.credential.is_some());
            found.map(|raw| raw.terminal(key, inner.first_t())).transpose()
        })
    }

    fn terminals(&self, keys: Vec<TerminalKey>) -> StoreFuture<'_, Vec<Terminal>> {
        self.run(CALL, move |inner| async move {
            let connection = inner.connection().await?;
            let found = scope::terminals(&connection, &keys, inner.distributed).await?;
            connection.done();
            let mut terminals = Vec::with_capacity(keys.len());
            for key in keys {
                if let Some(raw) = found.get(&key).filter(|raw| raw.credential.is_some()) {
                    terminals.push(raw.terminal(key, inner.first_t())?);
                    inner.recent.keep_terminal(key, raw.clone());
                }
            }
            Ok(terminals)
        })
    }

    fn terminals_of_subscribers(
        &self,
        keys: Vec<TerminalKey>,
    ) -> StoreFuture<'_, Vec<(Terminal, Subscriber)>> {
        self.run(CALL, |inner| async move { inner.terminals_of_subscribers(keys).await })
    }

    fn subscriber<'a>(&'a self, id: &'a SubscriberId) -> StoreFuture<'a, Option<(Subscriber, Vec<BTid>)>> {
        let id = id.clone();
        self.run(CALL, |inner| async move {
            let connection = inner.connection().await?;
            let mut rows =
                scope::subscribers(&connection, std::slice::from_ref(&id), inner.distributed).await?;
            let row = rows.remove(&id).expect("each id that is asked for has a row");
            let Some((subscriber, keys)) = row.record.subscriber.map(|s| (s, row.record.terminals)) else {
                connection.done();
                return Ok(None);
            };
            let found = scope::terminals(&connection, &keys, inner.distributed).await?;
            connection.done();
            let mut btids = Vec::with_capacity(keys.len());
            for (key, raw) in keys.iter().filter_map(|key| found.get(key).map(|raw| (*key, raw))) {
                btids.extend(raw.terminal(key, inner.first_t())?.credential.map(|c| c.btid));
            }
            Ok(Some((subscriber, btids)))
        })
    }

    fn update(&self, scope: Scope, decide: Decide) -> StoreFuture<'_, ()> {
        self.run(CALL, |inner| async move { inner.update(scope, decide).await })
    }

    fn take_due(&self, lane: Lane, now: Timestamp, limit: usize) -> Vec<TerminalKey> {
        self.inner.take_due(lane, now, limit)
    }

    fn next_due(&self, lane: Lane) -> Option<Timestamp> {
        self.inner.queues.next_due(lane)
    }

    fn due_len(&self, lane: Lane) -> usize {
        self.inner.queues.due_len(lane)
    }

    fn terminals_of_messages(&self, ids: Vec<MessageId>) -> StoreFuture<'_, Vec<Option<TerminalKey>>> {
        let mut found = self.inner.queues.terminals_of_messages(&ids);
        if found.iter().all(Option::is_some) {
            return Box::pin(std::future::ready(Ok(found)));
        }
        self.run(CALL, |inner| async move {
            let unknown = ids.iter().zip(&found).filter(|(_, known)| known.is_none()).map(|(id, _)| id);
            let unknown: Vec<MessageId> = unknown.cloned().collect();
            let connection = inner.connection().await?;
            let others =
                message::terminals(&connection, &unknown, inner.first_t(), inner.distributed).await?;
            connection.done();
            for (id, terminal) in ids.iter().zip(&mut found).filter(|(_, known)| known.is_none()) {
                *terminal = others.get(id).copied();
            }
            Ok(found)
        })
    }

    fn list_terminals(
        &self,
        filter: TerminalFilter,
        after: Option<TerminalKey>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Terminal>> {
        self.run(LONG, move |inner| async move {
            let connection = inner.connection().await?;
            let found = lists::registered(&connection, &filter, after, limit, inner.first_t()).await?;
            connection.done();
            Ok(found)
        })
    }

    fn list_deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(BTid, Delivery, Cursor)>> {
        self.run(LONG, move |inner| async move {
            let connection = inner.connection().await?;
            let found =
                lists::deliveries(&connection, &inner.sealer, &filter, after, limit, inner.first_t()).await?;
            connection.done();
            Ok(found)
        })
    }

    fn job(&self, id: JobId) -> StoreFuture<'_, Option<Job>> {
        self.run(CALL, move |inner| async move {
            let connection = inner.connection().await?;
            let job = job::get(&connection, id).await?;
            connection.done();
            Ok(job)
        })
    }

    fn jobs(&self, limit: usize) -> StoreFuture<'_, Vec<Job>> {
        self.run(CALL, move |inner| async move {
            let connection = inner.connection().await?;
            let jobs = job::list(&connection, limit).await?;
            connection.done();
            Ok(jobs)
        })
    }

    fn open_jobs(&self) -> StoreFuture<'_, Vec<Job>> {
        self.run(CALL, |inner| async move {
            let connection = inner.connection().await?;
            let jobs = job::open(&connection).await?;
            connection.done();
            inner.keep_walks(&jobs.iter().map(|job| job.id).collect());
            Ok(jobs)
        })
    }

    fn new_job_id(&self) -> StoreFuture<'_, JobId> {
        self.run(CALL, |inner| async move {
            let connection = inner.connection().await?;
            let id = job::next_id(&connection).await?;
            connection.done();
            Ok(id)
        })
    }

    fn counts(&self) -> Counts {
        self.inner.kept.counts()
    }

    fn refresh(&self) -> StoreFuture<'_, ()> {
        self.run(CALL, |inner| async move { inner.refresh().await })
    }

    fn holders(&self, service: ServiceNo, number: u16) -> Holders {
        self.inner.kept.holders((service, number))
    }

    fn moment(&self) -> StoreFuture<'_, Box<dyn super::backup::Moment>> {
        Box::pin(std::future::ready(Err(StoreError::Unavailable(
            "the store is a database: back it up with its own tools".to_owned(),
        ))))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        let works = if self.inner.closed.load(Ordering::Acquire) {
            Err(StoreError::Closed)
        } else {
            self.inner.works()
        };
        Box::pin(std::future::ready(works))
    }

    fn disk_use(&self) -> StoreFuture<'_, DiskUse> {
        self.run(CALL, |inner| async move {
            let connection = inner.connection().await?;
            let text = "SELECT pg_database_size(current_database())";
            let taken: i64 = connection.query_one(text, &[]).await?.get(0);
            connection.done();
            // What is free there the database does not tell.
            Ok(DiskUse { taken: taken as u64, journals: 0, free: None })
        })
    }

    fn take_commit_times(&self) -> Vec<f64> {
        self.inner.queues.take_commit_times()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        let Some(runtime) = &self.runtime else { return Box::pin(std::future::ready(Ok(()))) };
        let inner = Arc::clone(&self.inner);
        let closing = runtime.spawn(async move {
            if inner.closed.swap(true, Ordering::AcqRel) {
                return;
            }
            inner.closing.notify_one();
            let left = inner.left.notified();
            if timeout(CALL, left).await.is_err() {
                tracing::warn!("the leases were not given up in time: others take them over when they end");
            }
            inner.pool.close();
        });
        Box::pin(async move { closing.await.map_err(|_| StoreError::Closed) })
    }
}

async fn write(inner: &Inner, at: Option<u64>, writes: Vec<CatalogueWrite>) -> Result<u64, StoreError> {
    let mut connection = inner.connection().await?;
    let written = catalogue::write(&mut connection, &inner.sealer, at, writes).await;
    if matches!(written, Ok(_) | Err(StoreError::Outdated)) {
        connection.done();
    }
    let revision = written?;
    inner.saw(revision);
    Ok(revision)
}

impl Drop for PgStore {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::Release);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
