//! The one thread that decides and writes: as many updates as are queued share one synced batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::batch::{Batch, load_totals};
use super::catalogue;
use super::holders::HolderCounts;
use super::scope;
use super::shared::Shared;
use super::spaces::Spaces;
use crate::id::TerminalKey;
use crate::store::queues::{Hints, lock};
use crate::store::{CatalogueWrite, Decide, FreezeOrder, FreezeOutcome, Scope, StoreError};
use crate::time::Timestamp;

/// Updates that share one sync, at most.
const BATCH: usize = 512;
/// Work that goes into one batch before it is written.
const BATCH_TIME: Duration = Duration::from_millis(20);
/// How long background work may hold a commit up before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// A commit that takes longer is told.
const SLOW: Duration = Duration::from_millis(250);
/// When a terminal whose look at its due time was refused comes again.
const AGAIN: Duration = Duration::from_secs(1);

/// How a caller learns what became of its command.
pub(super) type Done = oneshot::Sender<Result<(), StoreError>>;

/// What the committer is asked for.
pub(super) enum Command {
    Update(Scope, Decide, Done),
    Catalogue(Vec<CatalogueWrite>, Done),
    Probe(Done),
    Freeze(FreezeOrder, oneshot::Sender<Result<FreezeOutcome, StoreError>>),
    Close(Done),
}

/// The committer's state.
pub(super) struct Committer {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    batch: Batch,
    waiting: Vec<(Done, Vec<TerminalKey>)>,
    failed: Option<StoreError>,
}

impl Committer {
    /// Ready to run on the store that `shared` holds open.
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        spaces: &Spaces,
    ) -> Result<Self, StoreError> {
        HolderCounts::ensure(spaces)?;
        let (totals, holders) = (load_totals(spaces)?, HolderCounts::load(spaces)?);
        shared.publish(&totals);
        shared.publish_all_holders(&holders);
        shared.load_open_jobs(spaces)?;
        Ok(Self { shared, commands, batch: Batch::new(totals, holders), waiting: Vec::new(), failed: None })
    }

    /// Runs until the store is closed or dropped.
    pub(super) fn run(mut self) {
        let mut closed = None;
        while let Some(command) = self.commands.blocking_recv() {
            let begun = Instant::now();
            let mut next = Some(command);
            let mut taken = 0;
            self.batch.clear();
            while let Some(command) = next.take() {
                if let Command::Close(done) = command {
                    closed = Some(done);
                    self.commands.close();
                } else {
                    self.take(command);
                }
                taken += 1;
                if taken < BATCH && begun.elapsed() < BATCH_TIME {
                    next = self.commands.try_recv().ok();
                }
            }
            self.commit();
        }
        self.shared.stop_scan();
        self.shared.release();
        if let Some(done) = closed {
            let _ = done.send(Ok(()));
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Update(scope, decide, done) => {
                let due = match &scope {
                    Scope::Terminals(keys) | Scope::Due(keys) => keys.clone(),
                    _ => Vec::new(),
                };
                let result = self.update(scope, decide);
                self.wait_or_answer(result, done, due);
            }
            Command::Catalogue(writes, done) => {
                let result = self.catalogue(writes);
                self.wait_or_answer(result, done, Vec::new());
            }
            Command::Probe(done) => {
                let _ = done.send(self.probe());
            }
            Command::Freeze(order, done) => {
                // What came before is on disk when the answer comes.
                self.commit();
                let _ = done.send(self.shared.freeze(order));
            }
            Command::Close(_) => {}
        }
    }

    fn wait_or_answer(&mut self, result: Result<(), StoreError>, done: Done, due: Vec<TerminalKey>) {
        match result {
            Ok(()) => self.waiting.push((done, due)),
            Err(e) => {
                self.again(due);
                let _ = done.send(Err(e));
            }
        }
    }

    /// Terminals that were taken from the queue and not looked at come again.
    fn again(&self, due: Vec<TerminalKey>) {
        let at = Timestamp::now() + AGAIN;
        let looks = due.into_iter().map(|key| (at, key)).collect();
        self.shared.queues.feed(&mut Hints { looks, ..Hints::default() });
    }

    /// The database, while nothing failed and the disk has room.
    fn spaces(&mut self) -> Result<Arc<Spaces>, StoreError> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        lock(&self.shared.freezer).check(Instant::now())?;
        if self.batch.is_empty() && self.waiting.is_empty() {
            self.shared.check_room()?;
        }
        self.shared.spaces()
    }

    fn update(&mut self, scope: Scope, mut decide: Decide) -> Result<(), StoreError> {
        if matches!(scope, Scope::Page(..)) {
            // A page walks over the index on disk.
            self.commit();
        }
        let spaces = self.spaces()?;
        let Some(reading) = scope::read(&self.batch, &spaces, self.shared.sealer(), &scope)? else {
            return Ok(());
        };
        let scope::Reading { raw, mut view, page } = reading;
        catch_unwind(AssertUnwindSafe(|| decide(&mut view)))
            .map_err(|_| StoreError::Unavailable("a decision broke off".to_owned()))?;
        self.batch.absorb(&spaces, &scope, &raw, view)?;
        if let Some((job, cursor)) = page {
            self.batch.move_cursor(job, cursor);
        }
        Ok(())
    }

    fn catalogue(&mut self, writes: Vec<CatalogueWrite>) -> Result<(), StoreError> {
        let spaces = self.spaces()?;
        catalogue::write(&mut self.batch, &spaces, self.shared.sealer(), writes)
    }

    /// Makes what was decided durable and answers those who wait for it.
    fn commit(&mut self) {
        let result = if self.batch.is_empty() { Ok(()) } else { self.write() };
        match result {
            Ok(()) => {
                self.shared.publish(&self.batch.totals);
                self.shared.publish_holders(&self.batch.holders);
                self.shared.note_jobs(self.batch.jobs());
                self.shared.queues.feed(&mut self.batch.hints);
                for (done, _) in self.waiting.drain(..) {
                    let _ = done.send(Ok(()));
                }
            }
            Err(e) => {
                tracing::error!(error = %e, "a commit failed: the store stops writing");
                for (done, due) in std::mem::take(&mut self.waiting) {
                    self.again(due);
                    let _ = done.send(Err(e.clone()));
                }
                self.failed = Some(e);
            }
        }
        self.batch.clear();
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let spaces = self.shared.spaces()?;
        let begun = Instant::now();
        while spaces.is_behind() {
            spaces.check()?;
            if begun.elapsed() > PATIENCE {
                return Err(StoreError::Unavailable("flushing does not come to an end".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let waited = begun.elapsed();
        self.batch.commit(&spaces)?;
        let took = begun.elapsed();
        if took > SLOW {
            tracing::warn!(?took, ?waited, "a slow commit; waited is for flushes and compaction");
        }
        self.shared.queues.note_commit(took);
        Ok(())
    }

    /// Tells whether writing works. After a failure the database is opened anew from what is on disk:
    /// counters and due times are read again, so that nothing in memory is ahead of it.
    fn probe(&mut self) -> Result<(), StoreError> {
        self.commit();
        self.shared.check_room()?;
        if self.failed.is_none() {
            match self.shared.spaces()?.check() {
                Ok(()) => return Ok(()),
                Err(e) => self.failed = Some(e),
            }
        }
        let spaces = self.shared.reopen()?;
        let (totals, holders) = (load_totals(&spaces)?, HolderCounts::load(&spaces)?);
        // A disk that is read and not written opens well: the counters are written once more, synced, as proof.
        let mut batch = Batch::new(totals, holders);
        batch.touch_totals();
        batch.commit(&spaces)?;
        batch.clear();
        self.shared.publish(&batch.totals);
        self.shared.publish_all_holders(&batch.holders);
        self.shared.load_open_jobs(&spaces)?;
        self.batch = batch;
        self.failed = None;
        self.shared.start_scan(spaces);
        tracing::info!("the store writes again");
        Ok(())
    }
}
