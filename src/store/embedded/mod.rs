//! The store inside the daemon: a log-structured database in one directory, one committer thread.
//!
//! Everything that changes goes through the committer ([`committer`]): it runs the decisions one after
//! another over the disk and the changes of its batch ([`batch`]), writes the batch with one sync, and only
//! then answers. Reads take what is committed from the caller's thread.

mod batch;
mod catalogue;
mod committer;
mod format;
mod holders;
mod lists;
mod moment;
mod moved;
mod open;
mod recent;
mod restore;
mod scope;
mod shared;
mod spaces;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

pub(in crate::store) use self::format::FORMAT as RECORDS;
pub use self::restore::{Phase, RestoreError, RestoreOptions, Restored, restore};

use self::committer::{Command, Committer};
use self::moment::EmbeddedMoment;
use self::shared::Shared;
use self::spaces::Spaces;
use super::backup::Moment;
use super::queues::lock;
use super::{
    CatalogueWrite, Counts, Cursor, Decide, DeliveryFilter, DiskUse, FreezeOrder, FreezeOutcome, Frozen,
    Holders, Job, Lane, Scope, Sealer, Store, StoreError, StoreFuture, Subscriber, TerminalFilter,
};
use crate::delivery::{Delivery, MessageId, Terminal};
use crate::id::{BTid, JobId, ServiceNo, SubscriberId, TerminalKey};
use crate::keys::Catalogue;
use crate::time::Timestamp;

/// Updates that may wait for the committer; more wait for their place.
const QUEUE: usize = 4096;
/// Free octets below which the store refuses to write.
const RESERVE: u64 = 64 << 20;
/// Terminals that are read on the caller's own thread at most.
const INLINE: usize = 32;

/// The key that an embedded store made for itself, when it has one.
///
/// # Errors
/// The file cannot be read, or is no key.
pub fn own_key(dir: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
    open::read_key(&dir.join(open::OWN_KEY))
}

/// A store in a directory.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    committer: Option<JoinHandle<()>>,
    /// Keeps other processes out.
    _lock: open::Lock,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is made (mode 0700) when it does not exist.
    ///
    /// `master` wraps the store's data key; without one the store keeps a key of its own in the file
    /// `store.key` of the directory. It is ready at once; what is due is read in the background.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the directory cannot be made, another process has it open, the master key
    /// is another than the store was made with, or its format is a newer one.
    pub fn open(dir: &Path, master: Option<[u8; 32]>) -> Result<Self, StoreError> {
        Self::open_with_reserve(dir, master, RESERVE)
    }

    /// Opens a store that goes on writing until so many octets of the disk are free; see
    /// [`EmbeddedStore::open`]. For tests of a disk that is really full.
    ///
    /// # Errors
    /// See [`EmbeddedStore::open`].
    #[doc(hidden)]
    pub fn open_with_reserve(dir: &Path, master: Option<[u8; 32]>, reserve: u64) -> Result<Self, StoreError> {
        let opened = open::open(dir, master)?;
        let spaces = opened.spaces;
        let mut shared =
            Shared::new(dir, opened.db_dir, opened.sealer, reserve, Arc::clone(&spaces), opened.next_job);
        shared.own_key = opened.own_key;
        let shared = Arc::new(shared);
        let (commands, receiver) = mpsc::channel(QUEUE);
        let committer = Committer::new(Arc::clone(&shared), receiver, &spaces)?;
        let thread = std::thread::Builder::new().name("store-commit".to_owned());
        let committer = thread.spawn(move || committer.run()).map_err(|e| StoreError::Open(e.to_string()))?;
        shared.start_scan(spaces);
        Ok(Self { shared, commands: Some(commands), committer: Some(committer), _lock: opened.lock })
    }

    /// Octets of all journals on disk.
    ///
    /// # Errors
    /// The store is closed, or the file system does not answer.
    pub fn journal_size(&self) -> Result<u64, StoreError> {
        self.shared.spaces()?.db.journal_disk_space().map_err(spaces::unavailable)
    }

    /// Octets of everything on disk.
    ///
    /// # Errors
    /// The store is closed, or the file system does not answer.
    pub fn disk_size(&self) -> Result<u64, StoreError> {
        self.shared.spaces()?.db.disk_space().map_err(spaces::unavailable)
    }

    fn command(
        &self,
        command: impl FnOnce(committer::Done) -> Command + Send + 'static,
    ) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let commands = self.commands.as_ref().ok_or(StoreError::Closed)?;
            commands.send(command(done)).await.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        })
    }

    /// Reads on a thread where reading may take its time.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Spaces, &Sealer) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let spaces = shared.spaces()?;
            read(&spaces, shared.sealer())
        };
        Box::pin(async move {
            if tokio::runtime::Handle::try_current().is_err() {
                return read();
            }
            let ended = tokio::task::spawn_blocking(read).await;
            ended.map_err(|_| StoreError::Unavailable("reading broke off".to_owned()))?
        })
    }

    fn read_terminal(&self, btid: &BTid) -> Result<Option<Terminal>, StoreError> {
        let found = lists::terminals(&*self.shared.spaces()?, &[self.terminal_key(btid)])?;
        Ok(found.into_iter().next())
    }

    fn read_subscriber(&self, id: &SubscriberId) -> Result<Option<(Subscriber, Vec<BTid>)>, StoreError> {
        let spaces = self.shared.spaces()?;
        let Some(record) = spaces.subscriber(id)? else { return Ok(None) };
        let Some(subscriber) = record.subscriber else { return Ok(None) };
        let terminals = lists::terminals(&spaces, &record.terminals)?;
        let btids = terminals.into_iter().filter_map(|t| t.credential).map(|c| c.btid).collect();
        Ok(Some((subscriber, btids)))
    }
}

impl Store for EmbeddedStore {
    fn sealer(&self) -> &Sealer {
        self.shared.sealer()
    }

    fn catalogue(&self) -> StoreFuture<'_, Catalogue> {
        self.read(catalogue::load)
    }

    fn write_catalogue(&self, writes: Vec<CatalogueWrite>) -> StoreFuture<'_, ()> {
        self.command(|done| Command::Catalogue(writes, done))
    }

    fn terminal<'a>(&'a self, btid: &'a BTid) -> StoreFuture<'a, Option<Terminal>> {
        Box::pin(async move { self.read_terminal(btid) })
    }

    fn terminals(&self, keys: Vec<TerminalKey>) -> StoreFuture<'_, Vec<Terminal>> {
        if keys.len() > INLINE {
            return self.read(move |spaces, _| lists::terminals(spaces, &keys));
        }
        Box::pin(async move { lists::terminals(&*self.shared.spaces()?, &keys) })
    }

    fn terminals_of_subscribers(
        &self,
        keys: Vec<TerminalKey>,
    ) -> StoreFuture<'_, Vec<(Terminal, Subscriber)>> {
        if keys.len() > INLINE {
            return self.read(move |spaces, _| lists::terminals_of_subscribers(spaces, &keys));
        }
        Box::pin(async move { lists::terminals_of_subscribers(&*self.shared.spaces()?, &keys) })
    }

    fn subscriber<'a>(&'a self, id: &'a SubscriberId) -> StoreFuture<'a, Option<(Subscriber, Vec<BTid>)>> {
        Box::pin(async move { self.read_subscriber(id) })
    }

    fn update(&self, scope: Scope, decide: Decide) -> StoreFuture<'_, ()> {
        if let Scope::Terminal(btid) = &scope {
            // Reading ahead: what fails here fails again where it is answered.
            let _ = self.shared.spaces().and_then(|spaces| spaces.warm(self.terminal_key(btid)));
        }
        self.command(|done| Command::Update(scope, decide, done))
    }

    fn take_due(&self, lane: Lane, now: Timestamp, limit: usize) -> Vec<TerminalKey> {
        self.shared.queues.take_due(lane, now, limit)
    }

    fn next_due(&self, lane: Lane) -> Option<Timestamp> {
        self.shared.queues.next_due(lane)
    }

    fn due_len(&self, lane: Lane) -> usize {
        self.shared.queues.due_len(lane)
    }

    fn terminals_of_messages(&self, ids: Vec<MessageId>) -> StoreFuture<'_, Vec<Option<TerminalKey>>> {
        let found = self.shared.queues.terminals_of_messages(&ids);
        Box::pin(std::future::ready(Ok(found)))
    }

    fn list_terminals(
        &self,
        filter: TerminalFilter,
        after: Option<TerminalKey>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Terminal>> {
        self.read(move |spaces, _| lists::registered(spaces, &filter, after, limit))
    }

    fn list_deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(BTid, Delivery, Cursor)>> {
        self.read(move |spaces, sealer| lists::deliveries(spaces, sealer, &filter, after, limit))
    }

    fn job(&self, id: JobId) -> StoreFuture<'_, Option<Job>> {
        Box::pin(async move { self.shared.spaces()?.job(id) })
    }

    fn jobs(&self, limit: usize) -> StoreFuture<'_, Vec<Job>> {
        self.read(move |spaces, _| catalogue::jobs(spaces, limit))
    }

    fn open_jobs(&self) -> StoreFuture<'_, Vec<Job>> {
        let ids = self.shared.open_jobs();
        if ids.is_empty() {
            return Box::pin(async { Ok(Vec::new()) });
        }
        self.read(move |spaces, _| {
            let jobs = ids.into_iter().filter_map(|id| spaces.job(id).transpose());
            jobs.filter(|job| job.as_ref().map_or(true, Job::is_open)).collect()
        })
    }

    /// Numbers go up by one from the newest job on disk. One that was given out and never written as a job
    /// may come again after a restart: nobody has seen it.
    fn new_job_id(&self) -> StoreFuture<'_, JobId> {
        let id = JobId(self.shared.next_job.fetch_add(1, Ordering::Relaxed));
        Box::pin(std::future::ready(Ok(id)))
    }

    fn counts(&self) -> Counts {
        self.shared.counts()
    }

    fn holders(&self, service: ServiceNo, number: u16) -> Holders {
        self.shared.holders((service, number))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.command(Command::Probe)
    }

    fn disk_use(&self) -> StoreFuture<'_, DiskUse> {
        let shared = Arc::clone(&self.shared);
        self.read(move |spaces, _| {
            Ok(DiskUse {
                taken: spaces.db.disk_space().map_err(spaces::unavailable)?,
                journals: spaces.db.journal_disk_space().map_err(spaces::unavailable)?,
                free: Some(shared.free()?),
            })
        })
    }

    fn take_commit_times(&self) -> Vec<f64> {
        self.shared.queues.take_commit_times()
    }

    fn moment(&self) -> StoreFuture<'_, Box<dyn Moment>> {
        Box::pin(async move {
            let moment = EmbeddedMoment::now(Arc::clone(&self.shared))?;
            Ok(Box::new(moment) as Box<dyn Moment>)
        })
    }

    fn freeze(&self, order: FreezeOrder) -> StoreFuture<'_, FreezeOutcome> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let commands = self.commands.as_ref().ok_or(StoreError::Closed)?;
            commands.send(Command::Freeze(order, done)).await.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        })
    }

    fn frozen(&self) -> Option<Frozen> {
        lock(&self.shared.freezer).current(std::time::Instant::now()).cloned()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        let closing = self.command(Command::Close);
        Box::pin(async move {
            match closing.await {
                // Closed before: what was promised is on disk.
                Err(StoreError::Closed) => Ok(()),
                other => other,
            }
        })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
    }
}
