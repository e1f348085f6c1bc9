//! What the daemon remembers, durable before anything that relies on it is answered or sent.
//!
//! The trait speaks of the domain, not of rows: a *scope* of terminals is read, a pure decision changes
//! them, and what changed is durable when [`Store::update`] returns. An engine sees to it that two updates
//! of one terminal never overlap, that the counters of services, states and jobs follow every change in
//! the same commit, and that secrets are sealed.

pub mod backup;
pub mod cluster;
mod codec;
mod due;
mod embedded;
mod freeze;
mod held;
mod messages;
mod msk;
pub mod postgres;
mod queues;
mod record;
mod seal;
mod tally;

pub use embedded::{EmbeddedStore, Phase, RestoreError, RestoreOptions, Restored, own_key, restore};
pub use freeze::{FreezeOrder, FreezeOutcome, Frozen, MAX_FREEZE};
pub use postgres::{
    Found, Migration, Pass, PassReport, PgHost, PgSettings, PgStore, PgUrl, Raised, TlsMode, UrlFault,
    raise_t,
};
pub use seal::{SealError, Sealer};

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use self::cluster::{Cluster, Membership};
use crate::delivery::{Delivery, MessageId, State, Terminal};
use crate::id::{BTid, JobId, MethodSet, Msisdn, ServiceId, ServiceNo, SubscriberId, TerminalKey};
use crate::keys::{Catalogue, Msk, Service};
use crate::time::Timestamp;

/// A subscriber and what it may watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// Its IMPI.
    pub id: SubscriberId,
    /// Where SMS goes.
    pub msisdn: Option<Msisdn>,
    /// The services it is entitled to, which `open` ones need not be.
    pub services: Vec<ServiceId>,
}

/// What a fan-out job does at each member of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum JobKind {
    /// Brings the key.
    KeyUpdate = 0,
    /// Ends the registration and invalidates what it brought: the service is being deleted.
    Retire = 1,
}

/// Whether a job still has terminals ahead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum JobState {
    /// Terminals are still to be reached or to answer.
    Running = 0,
    /// Held by its operator: nobody more is visited; what is under way goes on to its end.
    Paused = 1,
    /// Ended by its operator: nobody more is visited, and what waits for its turn does not go out.
    Cancelled = 2,
    /// Every terminal was tried and none is queued or sent.
    Done = 3,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Cancelled, Self::Done];

    /// The admin API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }

    /// Whether the job stays in this state for good.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Cancelled | Self::Done)
    }
}

/// A fan-out job: one key to all members of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// The service.
    pub service: ServiceNo,
    /// The key's number; 0 for [`JobKind::Retire`].
    pub number: u16,
    /// Whether it runs.
    pub state: JobState,
    /// Members when it began: those not visited yet count as queued, and as cancelled once it is cancelled.
    pub expected: u64,
    /// The next member to visit; `None`: all were visited. A cancelled job walks back from here, over those
    /// whom it visited, to cancel what waits for its turn; `None`: nothing waits any more.
    pub cursor: Option<TerminalKey>,
    /// Deliveries of this job by [`State`], kept by the store with every change of one.
    pub states: [u64; State::ALL.len()],
    /// Deliveries of this job that were tried at least once.
    pub sent: u64,
    /// When it began.
    pub started: Timestamp,
    /// When it became done or was cancelled.
    pub finished: Option<Timestamp>,
}

impl Job {
    /// A job that has visited nobody.
    pub fn new(
        id: JobId,
        kind: JobKind,
        service: ServiceNo,
        number: u16,
        expected: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            kind,
            service,
            number,
            state: JobState::Running,
            expected,
            cursor: Some(TerminalKey::MIN),
            states: [0; State::ALL.len()],
            sent: 0,
            started: now,
            finished: None,
        }
    }

    /// Members that were visited.
    pub fn visited(&self) -> u64 {
        self.states.iter().sum()
    }

    /// Members that are still to be visited, or that never will be because it is cancelled.
    fn unvisited(&self) -> u64 {
        match self.state {
            JobState::Done => 0,
            JobState::Running | JobState::Paused if self.cursor.is_none() => 0,
            _ => self.expected.saturating_sub(self.visited()),
        }
    }

    /// Deliveries by state with the members that were not visited among them: as queued, or as cancelled once
    /// nobody will visit them.
    pub fn progress(&self) -> [u64; State::ALL.len()] {
        let mut states = self.states;
        let cancelled = self.state == JobState::Cancelled;
        let counted = if cancelled { State::Cancelled } else { State::Queued };
        states[counted as usize] += self.unvisited();
        states
    }

    /// Whether somebody has to go on with it: it is not over, or it is cancelled and has not walked back yet.
    pub fn is_open(&self) -> bool {
        !self.state.is_over() || self.cursor.is_some()
    }

    /// Whether the next page is one of members to visit ([`JobState::Running`]) or to visit again
    /// ([`JobState::Cancelled`]).
    pub fn has_page(&self) -> bool {
        self.cursor.is_some() && self.state != JobState::Paused
    }

    /// Becomes done once all members were visited and none is queued or sent, paused or not; a cancelled one
    /// ends its walk once nothing is queued. The store calls it with every change of the counts.
    pub fn settle(&mut self, now: Timestamp) {
        let queued = self.states[State::Queued as usize];
        let waiting = queued + self.states[State::Sent as usize];
        match self.state {
            JobState::Running | JobState::Paused if self.cursor.is_none() && waiting == 0 => {
                self.state = JobState::Done;
                self.finished = Some(now);
            }
            JobState::Cancelled if queued == 0 => self.cursor = None,
            _ => {}
        }
    }

    /// Takes over the state that its operator gave it. Who wrote it may have read it some commits ago: counts
    /// stay as they are, and a job that is over stays so. A cancelled one begins its walk back.
    pub fn take_state(&mut self, written: &Self) {
        if self.state.is_over() {
            return;
        }
        if written.state == JobState::Cancelled {
            // From here on `expected` is what the states add up to.
            self.expected = self.visited() + self.unvisited();
            self.cursor = self.cursor.or(Some(TerminalKey::MAX));
        }
        self.state = written.state;
        self.finished = written.finished.filter(|_| written.state.is_over());
    }
}

/// Terminals registered for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Members {
    /// With UDP in their set.
    pub udp: u64,
    /// With HTTP in their set.
    pub http: u64,
    /// With SMS in their set.
    pub sms: u64,
    /// All of them.
    pub total: u64,
}

/// Terminals that are registered for a service and hold one of its keys, by what brought it to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holders {
    /// By UDP.
    pub udp: u64,
    /// Inside the answer to a request.
    pub http: u64,
    /// Inside the answer to the request that a short message asked for.
    pub sms: u64,
    /// Those of the above that were never asked for a proof ([`State::Assumed`]).
    pub assumed: u64,
}

impl Holders {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.udp + self.http + self.sms
    }
}

/// The counters that the store keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Registered terminals by service.
    pub members: BTreeMap<ServiceNo, Members>,
    /// Deliveries by [`State`]; only the open states are kept exact over the life of the store.
    pub open: [u64; State::ALL.len()],
}

/// Which terminals an update is about.
#[derive(Debug, Clone)]
pub enum Scope {
    /// One terminal first, then its subscriber's other terminals that are registered or have open
    /// deliveries. The subscriber is read too. Nothing is read when the B-TID is unknown.
    Terminal(BTid),
    /// A slot for each of these B-TIDs, known or not, in this order, and the subscribers named.
    Credentials(Vec<BTid>, Vec<SubscriberId>),
    /// Those of these terminals that exist, in this order; one that is named twice comes once.
    Terminals(Vec<TerminalKey>),
    /// The same for terminals that [`Store::take_due`] gave. Where several daemons share a store, it fails with
    /// [`StoreError::Moved`] when looking at one of them is another's by now.
    Due(Vec<TerminalKey>),
    /// These subscribers with all their terminals (terminals in no order).
    Subscribers(Vec<SubscriberId>),
    /// The next page of a job's members, at most so many, while [`Job::has_page`]: from its cursor upwards, or
    /// downwards when it is cancelled. [`View::job`] tells which. The store moves the cursor in the same commit.
    Page(JobId, usize),
}

/// What an update read and may change. Terminals and subscribers that are put in place of what was read
/// are written; a subscriber set to `None` is deleted; a terminal whose credential is set to `None` keeps
/// its counter. Membership, counters, due times and job counts follow by themselves.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The scope's terminals.
    pub terminals: Vec<Terminal>,
    /// The scope's subscribers; `None` where there is none of this id.
    pub subscribers: BTreeMap<SubscriberId, Option<Subscriber>>,
    /// The job of [`Scope::Page`].
    pub job: Option<Job>,
    /// Whether this daemon has more of [`Scope::Page`]'s members to visit behind these.
    pub more: bool,
    /// Which revision of services and keys the decision was made under, when it knows; the decision sets it. Where
    /// several daemons share a store, one that was made under an older revision is made again.
    pub revision: Option<u64>,
}

/// A pure decision over a view. It may run more than once (an engine retries after a conflict); only its
/// last run counts.
pub type Decide = Box<dyn FnMut(&mut View) + Send>;

/// A change of services, keys and jobs, written as one commit with others.
#[derive(Debug, Clone)]
pub enum CatalogueWrite {
    /// Puts a service in.
    Service(Service),
    /// Puts a key in.
    Key(Msk),
    /// Purges a key.
    RemoveKey(ServiceNo, u16),
    /// Purges a service with its keys.
    RemoveService(ServiceNo),
    /// Puts a job in, or changes the state of one that exists as [`Job::take_state`] says; the counts that the
    /// store keeps are left alone.
    Job(Job),
}

/// Which terminals a list shows.
#[derive(Debug, Clone, Default)]
pub struct TerminalFilter {
    /// Registered for this service; `None`: for any.
    pub service: Option<ServiceNo>,
    /// With one of these methods in the set; empty: with any.
    pub methods: MethodSet,
}

/// Which deliveries a list shows.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// In this state.
    pub state: Option<State>,
    /// Of this service.
    pub service: Option<ServiceNo>,
    /// Of this terminal.
    pub terminal: Option<BTid>,
}

impl TerminalFilter {
    /// Whether a terminal passes: it is registered, and as the filter asks.
    fn lists(&self, terminal: &Terminal) -> bool {
        let Some(r) = terminal.registration.as_ref().filter(|r| !r.services.is_empty()) else { return false };
        let by_service = self.service.is_none_or(|no| r.services.contains(&no));
        by_service && (self.methods.is_empty() || !r.set.intersection(self.methods).is_empty())
    }
}

impl DeliveryFilter {
    /// Whether a delivery passes; whose it is has been looked at.
    fn lists(&self, d: &Delivery) -> bool {
        self.state.is_none_or(|state| state == d.state) && self.service.is_none_or(|no| no == d.service)
    }
}

/// What a terminal is due for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A look at its deliveries: a wait is over ([`Terminal::next_due`]).
    Look,
    /// Its turn by SMS ([`Terminal::next_turn`]).
    Sms,
}

/// A store's disk, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUse {
    /// What the store takes, its journals included.
    pub taken: u64,
    /// What its journals take.
    pub journals: u64,
    /// What is free on the file system; `None`: the store cannot tell.
    pub free: Option<u64>,
}

/// Where a list goes on: the terminal's key and the place within its deliveries.
pub type Cursor = (TerminalKey, u32);

/// What keeps the store from doing its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened: who has to do what is in the text.
    #[error("the store cannot be opened: {0}")]
    Open(String),
    /// Reading or writing failed: the disk is full or broken, the server is gone. Nothing was promised.
    #[error("the store does not work: {0}")]
    Unavailable(String),
    /// A record that this version cannot have written.
    #[error("the store holds a damaged record: {0}")]
    Damaged(String),
    /// The work is another daemon's by now: nothing was done, and nothing of it may be sent.
    #[error("the work has moved to another daemon")]
    Moved,
    /// Services or keys were changed by another daemon since they were read: nothing was written.
    #[error("another daemon changed services or keys at this moment: repeat the call")]
    Outdated,
    /// It takes no changes now, or none any more ([`Store::freeze`]): nothing was promised.
    #[error("the store takes no changes: {0}")]
    Frozen(&'static str),
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Moved | Self::Outdated | Self::Frozen(_))
    }
}

/// What a store call gives.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// An engine. Every change is durable when its future is ready with `Ok`.
pub trait Store: Send + Sync + 'static {
    /// Seals and opens secrets, and derives what only the store's own key can.
    fn sealer(&self) -> &Sealer;

    /// Services with their keys, as of the last write.
    fn catalogue(&self) -> StoreFuture<'_, Catalogue>;

    /// Writes services, keys and jobs in one commit.
    fn write_catalogue(&self, writes: Vec<CatalogueWrite>) -> StoreFuture<'_, ()>;

    /// One terminal as it is now; `None` when no credential of this B-TID exists.
    fn terminal<'a>(&'a self, btid: &'a BTid) -> StoreFuture<'a, Option<Terminal>>;

    /// Several terminals as they are now, those that have a credential, in the order asked for.
    fn terminals(&self, keys: Vec<TerminalKey>) -> StoreFuture<'_, Vec<Terminal>>;

    /// Several terminals as they are now, those that have a credential and a subscriber that is known, each with its
    /// subscriber, in the order asked for: what requests are authenticated with.
    fn terminals_of_subscribers(
        &self,
        keys: Vec<TerminalKey>,
    ) -> StoreFuture<'_, Vec<(Terminal, Subscriber)>>;

    /// One subscriber with the B-TIDs of its credentials.
    fn subscriber<'a>(&'a self, id: &'a SubscriberId) -> StoreFuture<'a, Option<(Subscriber, Vec<BTid>)>>;

    /// Reads a scope, decides, and writes what changed, as one durable step. Updates of a terminal follow
    /// one another; a decision sees every change that was decided before it.
    fn update(&self, scope: Scope, decide: Decide) -> StoreFuture<'_, ()>;

    /// Takes terminals that are due in a lane, the earliest first, at most `limit`. Each is given out once
    /// until a later update gives it a new due time; after a restart all that is due comes again.
    fn take_due(&self, lane: Lane, now: Timestamp, limit: usize) -> Vec<TerminalKey>;

    /// When the earliest due time of a lane is that is known now.
    fn next_due(&self, lane: Lane) -> Option<Timestamp>;

    /// Due times of a lane that are noted, those that a later update made stale included.
    fn due_len(&self, lane: Lane) -> usize;

    /// The terminals that short messages went to, in the order asked for; `None`: nobody knows it. Known are the million
    /// latest that this daemon has seen and, where several daemons share a store, all that deliveries name. Of two
    /// messages of one id the newer counts, one that this daemon has seen before one that it has not.
    fn terminals_of_messages(&self, ids: Vec<MessageId>) -> StoreFuture<'_, Vec<Option<TerminalKey>>>;

    /// Registered terminals in the order of their keys, those behind `after`, at most `limit`.
    fn list_terminals(
        &self,
        filter: TerminalFilter,
        after: Option<TerminalKey>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Terminal>>;

    /// Deliveries, those behind `after`, at most `limit`, each with its B-TID and the cursor behind it.
    fn list_deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(BTid, Delivery, Cursor)>>;

    /// A job as it is now.
    fn job(&self, id: JobId) -> StoreFuture<'_, Option<Job>>;

    /// All jobs, the newest first, at most `limit`.
    fn jobs(&self, limit: usize) -> StoreFuture<'_, Vec<Job>>;

    /// Jobs with something left to do ([`Job::is_open`]), the oldest first: all of them, however many newer
    /// ones there are.
    fn open_jobs(&self) -> StoreFuture<'_, Vec<Job>>;

    /// A number for a new job, never given out before.
    fn new_job_id(&self) -> StoreFuture<'_, JobId>;

    /// The counters, as of the last commit. Where several daemons share a store: as of a moment ago, or of the last
    /// [`Store::refresh`].
    fn counts(&self) -> Counts;

    /// Brings what [`Store::counts`] and [`Store::holders`] give up to date with what other daemons have committed.
    fn refresh(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Writes services, keys and jobs as [`Store::write_catalogue`] does, if services and keys are still those of
    /// this revision. The revision that they have afterwards.
    fn write_catalogue_at(&self, revision: u64, writes: Vec<CatalogueWrite>) -> StoreFuture<'_, u64> {
        Box::pin(async move { self.write_catalogue(writes).await.map(|()| revision) })
    }

    /// Is ready when another daemon may have changed services or keys since [`Store::decides_with`] was told; never
    /// where there is no other.
    fn catalogue_changed(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Services with their keys, when they are of a newer revision than this; never where there is no other daemon.
    fn newer_catalogue(&self, _revision: u64) -> StoreFuture<'_, Option<Catalogue>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether several daemons may share this store.
    fn is_shared(&self) -> bool {
        false
    }

    /// Tells the store which revision of services and keys decisions are made under from now on.
    fn decides_with(&self, _revision: u64) {}

    /// Terminals with the same unit can be changed by one update at the least cost. One unit where that makes no
    /// difference.
    fn unit(&self, _key: TerminalKey) -> u16 {
        0
    }

    /// Whether what this daemon has decided for a terminal by [`Scope::Page`] or [`Scope::Due`] may go out now. Always
    /// so where no other daemon could take the work over.
    fn holds(&self, _key: TerminalKey) -> bool {
        true
    }

    /// Whether this daemon minds what is to be done once for all daemons: schedules, purging.
    fn leads(&self) -> bool {
        true
    }

    /// Pages of fan-out jobs that are worth deciding at the same time.
    fn pages_at_once(&self) -> usize {
        1
    }

    /// What the store holds now, to be read piece by piece while it goes on: all commits before this moment and
    /// nothing of those behind it. Reading it blocks; until it is dropped, the engine keeps what newer commits replace.
    fn moment(&self) -> StoreFuture<'_, Box<dyn backup::Moment>>;

    /// Who holds a key, as of the last commit.
    fn holders(&self, service: ServiceNo, number: u16) -> Holders;

    /// Whether the store can write now. After a failure it tries to write again.
    fn probe(&self) -> StoreFuture<'_, ()>;

    /// What the store takes of its disk, and what is free there.
    fn disk_use(&self) -> StoreFuture<'_, DiskUse>;

    /// Durations of commits since the last call, in seconds, for the histogram; bounded.
    fn take_commit_times(&self) -> Vec<f64>;

    /// All daemons on this store, the shard ranges that they hold, and the database behind it.
    fn cluster(&self) -> StoreFuture<'_, Cluster> {
        let overdue = cluster::late(self.next_due(Lane::Look));
        Box::pin(std::future::ready(Ok(Cluster::alone(overdue))))
    }

    /// What this daemon knows of its cluster without asking anybody.
    fn membership(&self) -> Membership {
        Membership::alone(cluster::late(self.next_due(Lane::Look)))
    }

    /// Begins, prolongs or ends the write pause in which the store is moved. Once it has begun, all that was promised is
    /// in the next [`Store::moment`], and nothing is promised any more. A store that daemons share does not move.
    fn freeze(&self, _order: FreezeOrder) -> StoreFuture<'_, FreezeOutcome> {
        let refused = FreezeOutcome::Refused("the store is a database that daemons share: it does not move");
        Box::pin(std::future::ready(Ok(refused)))
    }

    /// Why the store takes no changes now; `None`: it does.
    fn frozen(&self) -> Option<Frozen> {
        None
    }

    /// Where a B-TID's terminal is.
    fn terminal_key(&self, btid: &BTid) -> TerminalKey {
        self.sealer().terminal_key(btid)
    }

    /// Ends all work in order; what was promised is on disk afterwards.
    fn close(&self) -> StoreFuture<'_, ()>;
}
