//! What calls and background tasks share: connections, leases, queues, and the way of an update.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper as Client;
use tokio::sync::{Notify, watch};

use super::CALL;
use super::batch::{Lookups, Requests};
use super::catalogue;
use super::change::{Counter, Writes};
use super::commit::{Guard, Refused, commit};
use super::connect::{self, Pool};
use super::counts::Kept;
use super::lease::Leases;
use super::place::{SHARDS, range, shard};
use super::recent::Recent;
use super::scope::Reading;
use super::sql;
use super::walk::Walks;
use crate::id::TerminalKey;
use crate::store::queues::{Hints, Queues, lock};
use crate::store::{Decide, Lane, Scope, Sealer, StoreError, View};
use crate::time::Timestamp;

/// How long an update may try against others that change the same.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long an update waits for services and keys of a newer revision.
const CATALOGUE_WAIT: Duration = Duration::from_secs(5);

/// When a terminal whose look at its due time was refused comes again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a terminal that was given out as due is not given out again because the database still has it so.
const GIVEN: Duration = Duration::from_secs(5);

/// State behind the store's handle.
pub(super) struct Inner {
    pub(super) pool: Pool,
    /// Whether the database is distributed, so that a statement is best about one shard.
    pub(super) distributed: bool,
    pub(super) sealer: Sealer,
    pub(super) leases: Leases,
    pub(super) queues: Queues,
    pub(super) kept: Kept,
    pub(super) recent: Recent,
    pub(super) first_t: AtomicU64,
    /// The newest revision of services and keys that was seen.
    pub(super) seen: watch::Sender<u64>,
    /// The one that decisions are made under.
    pub(super) decides: watch::Sender<u64>,
    /// What the last renewal came to.
    pub(super) works: RwLock<Result<(), StoreError>>,
    pub(super) closed: AtomicBool,
    /// Rung when the store is closed, and when the leases were given up thereupon.
    pub(super) closing: Notify,
    pub(super) left: Notify,
    pub(super) walks: Mutex<Walks>,
    /// Counters that are known to exist; who makes others holds the lock beside them.
    counters: Mutex<HashSet<Counter>>,
    counting: tokio::sync::Mutex<()>,
    /// What was given out as due, and when.
    given: Mutex<HashMap<TerminalKey, Instant>>,
    /// Requests that are authenticated, and those that are carried out.
    pub(super) lookups: Arc<Lookups>,
    pub(super) requests: Arc<Requests>,
}

/// A connection from the pool. One whose use did not come to its end is closed.
pub(super) struct Connection {
    object: Option<connect::Connection>,
    done: bool,
}

impl Connection {
    /// Its use has come to an end: it may be used again.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Deref for Connection {
    type Target = Client;
    fn deref(&self) -> &Client {
        self.object.as_ref().expect("it is taken out by drop alone")
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        self.object.as_mut().expect("it is taken out by drop alone")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take().filter(|_| !self.done) {
            drop(connect::Connection::take(object));
        }
    }
}

/// What one try of an update came to.
pub(super) enum Tried {
    /// It is committed, or there was nothing to decide or to write.
    Done,
    /// Somebody else changed the same: try again.
    Again,
    /// It was decided under services and keys that are older than these.
    Outdated(u64),
    /// There is no page for this daemon to decide about.
    Nothing,
}

impl Inner {
    pub(super) fn new(
        pool: Pool,
        distributed: bool,
        sealer: Sealer,
        first_t: u64,
        leases: Leases,
        revision: u64,
        at_once: usize,
    ) -> Self {
        Self {
            pool,
            distributed,
            sealer,
            leases,
            queues: Queues::default(),
            kept: Kept::default(),
            recent: Recent::default(),
            first_t: AtomicU64::new(first_t),
            seen: watch::Sender::new(revision),
            // Until somebody tells, decisions do not say what they were made under.
            decides: watch::Sender::new(u64::MAX),
            works: RwLock::new(Ok(())),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            left: Notify::new(),
            walks: Mutex::default(),
            counters: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
            given: Mutex::default(),
            lookups: Arc::new(Lookups::new(at_once, CALL)),
            requests: Arc::new(Requests::new(at_once, CALL)),
        }
    }

    /// A connection.
    pub(super) async fn connection(&self) -> Result<Connection, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let object = self.pool.get().await?;
        Ok(Connection { object: Some(object), done: false })
    }

    pub(super) fn first_t(&self) -> u64 {
        self.first_t.load(Ordering::Relaxed)
    }

    /// Notes which revision of services and keys the database has.
    pub(super) fn saw(&self, revision: u64) {
        self.seen.send_if_modified(|seen| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        });
    }

    /// Reads, decides and writes as one step, again for as long as others change the same meanwhile.
    pub(super) async fn update(self: &Arc<Self>, scope: Scope, mut decide: Decide) -> Result<(), StoreError> {
        if let Scope::Terminal(btid) = scope {
            return self.request(btid, decide).await;
        }
        let result = self.try_update(&scope, &mut decide).await;
        if let (Scope::Terminals(keys) | Scope::Due(keys), Err(_)) = (&scope, &result) {
            let at = Timestamp::now() + AGAIN;
            let looks = keys.iter().map(|key| (at, *key)).collect();
            self.feed(Hints { looks, ..Hints::default() });
        }
        if let Scope::Due(keys) = &scope {
            let mut given = lock(&self.given);
            for key in keys {
                given.remove(key);
            }
        }
        result
    }

    pub(super) async fn try_update(&self, scope: &Scope, decide: &mut Decide) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut tries = 0u32;
        loop {
            let tried = match scope {
                Scope::Page(job, limit) => self.try_page(*job, *limit, decide).await?,
                _ => self.try_once(scope, decide).await?,
            };
            match tried {
                Tried::Done => return Ok(()),
                Tried::Nothing => {
                    if tries > 0 {
                        // What was decided before was refused: the last decision, the one that counts, is about nobody.
                        decided(decide, &mut View::default())?;
                    }
                    return Ok(());
                }
                Tried::Outdated(revision) => self.await_revision(revision).await?,
                Tried::Again => {
                    // The first who comes again at once has good chances; later ones spread.
                    let most = (1u64 << tries.min(6)) - 1;
                    let wait = Duration::from_millis(random_below(most + 1));
                    tokio::time::sleep(wait).await;
                }
            }
            tries += 1;
            if begun.elapsed() > PATIENCE {
                return Err(StoreError::Unavailable(format!(
                    "others changed the same records {tries} times at once: try again"
                )));
            }
        }
    }

    async fn try_once(&self, scope: &Scope, decide: &mut Decide) -> Result<Tried, StoreError> {
        let mut guard = Guard::default();
        if let Scope::Due(keys) = scope {
            if !keys.iter().all(|key| self.leases.holds(*key)) {
                return Err(StoreError::Moved);
            }
            let ranges: BTreeSet<i32> = keys.iter().map(|key| range(shard(*key)) as i32).collect();
            let (name, epoch) = self.leases.node();
            guard.lease = Some((name, epoch, ranges.into_iter().collect()));
        }
        let connection = self.connection().await?;
        let revision = self.revision(&connection);
        let reading =
            Reading::of(&connection, &self.sealer, scope, &self.recent, self.first_t(), self.distributed);
        let (revision, reading) = tokio::try_join!(revision, reading)?;
        self.decide_and_write(connection, scope, reading, revision, guard, decide).await
    }

    /// The database's revision of services and keys.
    pub(super) async fn revision(&self, client: &Client) -> Result<u64, StoreError> {
        let statement = client.prepare_cached(sql::READ_REVISION).await?;
        let row = client.query_one(&statement, &[]).await?;
        let revision = row.get::<_, i64>(0) as u64;
        self.saw(revision);
        Ok(revision)
    }

    pub(super) async fn decide_and_write(
        &self,
        connection: Connection,
        scope: &Scope,
        mut reading: Reading,
        revision: u64,
        mut guard: Guard,
        decide: &mut Decide,
    ) -> Result<Tried, StoreError> {
        let mut view = std::mem::take(&mut reading.view);
        decided(decide, &mut view)?;
        if view.revision.is_some_and(|under| under < revision) {
            connection.done();
            return Ok(Tried::Outdated(revision));
        }
        guard.revision = view.revision.map(|revision| revision as i64);
        let refeed = matches!(scope, Scope::Terminals(_) | Scope::Due(_));
        let first_t = self.first_t();
        let writes = Writes::of(&connection, reading, view, refeed, first_t, self.distributed).await?;
        self.write(connection, writes, &guard).await
    }

    /// Writes what was decided and commits it.
    pub(super) async fn write(
        &self,
        connection: Connection,
        writes: Writes,
        guard: &Guard,
    ) -> Result<Tried, StoreError> {
        if writes.is_empty() {
            connection.done();
            self.feed(writes.hints);
            return Ok(Tried::Done);
        }
        self.ensure_counters(&connection, &writes).await?;
        let begun = Instant::now();
        let committed = commit(&connection, &writes, guard, self.distributed).await;
        match committed {
            Ok(()) => {
                connection.done();
                self.queues.note_commit(begun.elapsed());
                self.feed(writes.hints);
                Ok(Tried::Done)
            }
            Err(Refused::Conflict) => {
                connection.done();
                Ok(Tried::Again)
            }
            Err(Refused::Guard) => {
                let tried = self.why_guarded(&connection, guard).await;
                connection.done();
                tried
            }
            Err(Refused::ReadOnly(error)) => {
                // The connections that wait lead to the same server, which is the primary no more.
                self.pool.forget();
                Err(error)
            }
            Err(Refused::Store(error)) => Err(error),
        }
    }

    /// Which part of the guard did not hold.
    async fn why_guarded(&self, client: &Client, guard: &Guard) -> Result<Tried, StoreError> {
        let revision = self.revision(client).await?;
        if guard.revision.is_some_and(|under| (under as u64) < revision) {
            return Ok(Tried::Outdated(revision));
        }
        if let Some((name, epoch, ranges)) = &guard.lease {
            let text = "SELECT count(*) FROM ltkmd.lease WHERE range = ANY($1) AND node = $2 AND epoch = $3";
            let row = client.query_one(text, &[ranges, name, epoch]).await?;
            if row.get::<_, i64>(0) as usize != ranges.len() {
                return Err(StoreError::Moved);
            }
        }
        // A job's state: it is read anew with the next try.
        Ok(Tried::Again)
    }

    pub(super) async fn await_revision(&self, revision: u64) -> Result<(), StoreError> {
        self.saw(revision);
        let mut decides = self.decides.subscribe();
        let newer = decides.wait_for(|decides| *decides >= revision);
        match tokio::time::timeout(CATALOGUE_WAIT, newer).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::Unavailable("services and keys could not be read anew".to_owned())),
        }
    }

    /// Makes counters in every shard that the writes change and that are not known to exist.
    async fn ensure_counters(&self, client: &Client, writes: &Writes) -> Result<(), StoreError> {
        let unknown: BTreeSet<Counter> = {
            let known = lock(&self.counters);
            let named = writes.tally.keys().map(|(_, counter)| *counter);
            // Those of jobs are made with the job, or nobody counts it.
            named.filter(|counter| matches!(counter.0, 1 | 2) && !known.contains(counter)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        // One call looks, the others wait for what it found.
        let _one_by_one = self.counting.lock().await;
        for counter in unknown {
            if lock(&self.counters).contains(&counter) {
                continue;
            }
            let (kind, a, b) = counter;
            let text = "SELECT count(*) FROM ltkmd.tally WHERE kind = $1 AND a = $2 AND b = $3";
            let there: i64 = client.query_one(text, &[&kind, &a, &b]).await?.get(0);
            if there < i64::from(SHARDS) {
                catalogue::ensure_counters(&**client, kind, a, b).await?;
            }
            lock(&self.counters).insert(counter);
        }
        Ok(())
    }

    /// Lets the queues know what is due at terminals that this daemon looks after.
    pub(super) fn feed(&self, mut hints: Hints) {
        hints.looks.retain(|(_, key)| self.leases.holds(*key));
        hints.turns.retain(|(_, key)| self.leases.holds(*key));
        self.queues.feed(&mut hints);
    }

    /// Takes what is due of terminals that this daemon looks after; of one shard alone where that matters.
    pub(super) fn take_due(&self, lane: Lane, now: Timestamp, limit: usize) -> Vec<TerminalKey> {
        let mut taken = self.queues.take_due(lane, now, limit);
        taken.retain(|key| self.leases.holds(*key));
        if self.distributed
            && let Some(first) = taken.first().map(|key| shard(*key))
        {
            let (of_first, others): (Vec<_>, Vec<_>) =
                taken.into_iter().partition(|key| shard(*key) == first);
            let again: Vec<_> = others.into_iter().map(|key| (now, key)).collect();
            self.queues.feed(&mut match lane {
                Lane::Look => Hints { looks: again, ..Hints::default() },
                Lane::Sms => Hints { turns: again, ..Hints::default() },
            });
            taken = of_first;
        }
        let at = Instant::now();
        lock(&self.given).extend(taken.iter().map(|key| (*key, at)));
        taken
    }

    /// Feeds what the database has as overdue and this daemon does not know of: another one's registration, or what a
    /// daemon left that is gone.
    pub(super) async fn find_overdue(
        &self,
        lane: Lane,
        until: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let (mine, _) = self.leases.shards();
        if mine.is_empty() {
            return Ok(0);
        }
        let connection = self.connection().await?;
        let text = if lane == Lane::Look { sql::DUE_LOOKS } else { sql::DUE_TURNS };
        let statement = connection.prepare_cached(text).await?;
        let found = connection.query(&statement, &[&mine, &(until.0 as i64), &(limit as i64)]).await?;
        connection.done();
        // At the time that it is due at, so that it is not there twice when the queue knows it too.
        let mut entries: Vec<(Timestamp, TerminalKey)> = Vec::with_capacity(found.len());
        for row in &found {
            let key: &[u8] = row.get(0);
            let key = key.try_into().map_err(|_| StoreError::Damaged("the key of a terminal".to_owned()))?;
            entries.push((Timestamp(row.get::<_, i64>(1) as u64), TerminalKey(key)));
        }
        let overdue = entries.len();
        {
            let mut given = lock(&self.given);
            let now = Instant::now();
            given.retain(|_, at| now.duration_since(*at) < GIVEN);
            entries.retain(|(_, key)| !given.contains_key(key));
            given.extend(entries.iter().map(|(_, key)| (*key, now)));
        }
        self.feed(match lane {
            Lane::Look => Hints { looks: entries, ..Hints::default() },
            Lane::Sms => Hints { turns: entries, ..Hints::default() },
        });
        Ok(overdue)
    }

    /// Brings the counters up to date.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        self.kept.refresh(&connection).await?;
        connection.done();
        Ok(())
    }

    /// Services and keys, when they are newer than this revision.
    pub(super) async fn newer_catalogue(
        &self,
        revision: u64,
    ) -> Result<Option<crate::keys::Catalogue>, StoreError> {
        let mut connection = self.connection().await?;
        let newer = if self.revision(&connection).await? > revision {
            Some(catalogue::load(&mut connection, &self.sealer).await?)
        } else {
            None
        };
        connection.done();
        Ok(newer)
    }

    /// What the last renewal of the leases came to.
    pub(super) fn works(&self) -> Result<(), StoreError> {
        self.works.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs a decision.
pub(super) fn decided(decide: &mut Decide, view: &mut View) -> Result<(), StoreError> {
    catch_unwind(AssertUnwindSafe(|| decide(view)))
        .map_err(|_| StoreError::Unavailable("a decision broke off".to_owned()))
}

/// A number below `end`, for spreading tries.
fn random_below(end: u64) -> u64 {
    getrandom::u64().unwrap_or(0) % end.max(1)
}
