//! What the committer and the callers' threads share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::catalogue;
use super::holders::HolderCounts;
use super::moved;
use super::scope::terminal_key;
use super::spaces::{Spaces, unavailable};
use crate::id::{JobId, TerminalKey};
use crate::store::freeze::Freezer;
use crate::store::held::KeyOf;
use crate::store::queues::{Hints, Queues, lock};
use crate::store::record::{self, Totals};
use crate::store::{Counts, FreezeOrder, FreezeOutcome, Frozen, Holders, Job, Sealer, StoreError};

/// Records that one snapshot is held for while all are scanned.
const SCAN_PAGE: usize = 4096;
/// How long readers may take to let go of a database that is to be opened anew.
const LET_GO: Duration = Duration::from_secs(10);

/// State behind the store's handle.
pub(super) struct Shared {
    dir: PathBuf,
    db_dir: PathBuf,
    sealer: Sealer,
    /// Where the store's own key is; `None`: the master key was given.
    pub(super) own_key: Option<PathBuf>,
    /// Free octets below which nothing is written.
    reserve: u64,
    spaces: RwLock<Option<Arc<Spaces>>>,
    counts: RwLock<Counts>,
    holders: RwLock<BTreeMap<KeyOf, Holders>>,
    /// What is due, and what else is fed by commits and a scan.
    pub(super) queues: Queues,
    /// Raised to end a running scan.
    scan: AtomicU64,
    scanner: Mutex<Option<JoinHandle<()>>>,
    pub(super) next_job: AtomicU64,
    /// Whether changes are taken.
    pub(super) freezer: Mutex<Freezer>,
    /// Jobs with something left to do.
    open_jobs: Mutex<BTreeSet<JobId>>,
}

impl Shared {
    pub(super) fn new(
        dir: &Path,
        db_dir: PathBuf,
        sealer: Sealer,
        reserve: u64,
        spaces: Arc<Spaces>,
        next_job: u64,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            db_dir,
            sealer,
            own_key: None,
            reserve,
            spaces: RwLock::new(Some(spaces)),
            counts: RwLock::default(),
            holders: RwLock::default(),
            queues: Queues::default(),
            scan: AtomicU64::new(0),
            scanner: Mutex::default(),
            next_job: AtomicU64::new(next_job),
            freezer: Mutex::default(),
            open_jobs: Mutex::default(),
        }
    }

    /// Reads which jobs have something left to do.
    pub(super) fn load_open_jobs(&self, spaces: &Spaces) -> Result<(), StoreError> {
        let all = catalogue::jobs(spaces, usize::MAX)?;
        *lock(&self.open_jobs) = all.iter().filter(|job| job.is_open()).map(|job| job.id).collect();
        Ok(())
    }

    /// Notes jobs as a commit left them.
    pub(super) fn note_jobs<'a>(&self, jobs: impl Iterator<Item = &'a Job>) {
        let mut open = lock(&self.open_jobs);
        for job in jobs {
            if job.is_open() {
                open.insert(job.id);
            } else {
                open.remove(&job.id);
            }
        }
    }

    /// Jobs with something left to do, the oldest first.
    pub(super) fn open_jobs(&self) -> Vec<JobId> {
        lock(&self.open_jobs).iter().copied().collect()
    }

    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The database; an error while there is none.
    pub(super) fn spaces(&self) -> Result<Arc<Spaces>, StoreError> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.clone().ok_or(StoreError::Closed)
    }

    /// Octets that are free on the directory's file system, for who is not root.
    pub(super) fn free(&self) -> Result<u64, StoreError> {
        let stat = nix::sys::statvfs::statvfs(&self.dir)
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", self.dir.display())))?;
        #[allow(clippy::useless_conversion, reason = "the field types differ between systems")]
        Ok(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
    }

    /// Refuses while the disk has less room than the reserve: a full disk would end every flush.
    pub(super) fn check_room(&self) -> Result<(), StoreError> {
        let free = self.free()?;
        if free < self.reserve {
            return Err(StoreError::Unavailable(format!(
                "the disk of {} is full: {} MiB free, {} MiB are kept in reserve",
                self.dir.display(),
                free >> 20,
                self.reserve >> 20
            )));
        }
        Ok(())
    }

    /// Carries an order out, for the committer.
    pub(super) fn freeze(&self, order: FreezeOrder) -> Result<FreezeOutcome, StoreError> {
        let (mut freezer, now) = (lock(&self.freezer), Instant::now());
        let before = freezer.current(now).cloned();
        let outcome = match order {
            FreezeOrder::Freeze { by, span, prolong } => freezer.freeze(by, span, prolong, now),
            FreezeOrder::Moved { by, to } => {
                if let Err(why) = freezer.may_move(&by, now) {
                    return Ok(FreezeOutcome::Refused(why));
                }
                moved::mark(&self.dir, &to)?;
                freezer.moved(to);
                FreezeOutcome::Changed
            }
            FreezeOrder::Thaw { back } => match before {
                None => FreezeOutcome::Same,
                Some(Frozen::Moved(_)) if !back => FreezeOutcome::Refused(
                    "the store has moved: to go back, see that no daemon has worked on the other one, and say so",
                ),
                Some(_) => {
                    moved::unmark(&self.dir)?;
                    freezer.thaw();
                    FreezeOutcome::Changed
                }
            },
        };
        if outcome == FreezeOutcome::Changed {
            match freezer.current(now) {
                Some(frozen) => tracing::warn!("the store takes no changes: {frozen}"),
                None => tracing::warn!("the store takes changes again"),
            }
        }
        Ok(outcome)
    }

    /// Lets everybody see the counters of a commit.
    pub(super) fn publish(&self, totals: &Totals) {
        let mut counts = self.counts.write().unwrap_or_else(PoisonError::into_inner);
        counts.open = totals.deliveries;
        if counts.members != totals.members {
            counts.members.clone_from(&totals.members);
        }
    }

    /// Lets everybody see who holds which key after a commit.
    pub(super) fn publish_holders(&self, holders: &HolderCounts) {
        if holders.is_clean() {
            return;
        }
        let mut all = self.holders.write().unwrap_or_else(PoisonError::into_inner);
        for (key, now) in holders.changed() {
            match now {
                Some(now) => drop(all.insert(key, now)),
                None => drop(all.remove(&key)),
            }
        }
    }

    /// Lets everybody see who holds which key.
    pub(super) fn publish_all_holders(&self, holders: &HolderCounts) {
        self.holders.write().unwrap_or_else(PoisonError::into_inner).clone_from(holders.all());
    }

    pub(super) fn holders(&self, key: KeyOf) -> Holders {
        let all = self.holders.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&key).copied().unwrap_or_default()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of the database; it is closed once the last reader lets go too.
    pub(super) fn release(&self) {
        *self.spaces.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Closes the database and opens it from what is on disk.
    pub(super) fn reopen(&self) -> Result<Arc<Spaces>, StoreError> {
        self.stop_scan();
        let old = self.spaces.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut old) = old {
            let begun = Instant::now();
            while let Err(held) = Arc::try_unwrap(old).map(drop) {
                old = held;
                if begun.elapsed() > LET_GO {
                    self.spaces.write().unwrap_or_else(PoisonError::into_inner).replace(old);
                    return Err(StoreError::Unavailable("readers hold the broken database".to_owned()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.queues.clear();
        let spaces = Arc::new(Spaces::open(&self.db_dir).map_err(unavailable)?);
        self.spaces.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(&spaces));
        Ok(spaces)
    }

    /// Begins to feed the queue with every due time that is on disk.
    pub(super) fn start_scan(self: &Arc<Self>, spaces: Arc<Spaces>) {
        let shared = Arc::clone(self);
        let turn = self.scan.load(Ordering::Acquire);
        let scan = move || {
            let begun = Instant::now();
            match shared.scan(&spaces, turn) {
                Ok(fed) => tracing::debug!(fed, took = ?begun.elapsed(), "due times are read"),
                Err(e) => tracing::error!(error = %e, "due times could not be read: resends are missing"),
            }
        };
        match std::thread::Builder::new().name("store-due".to_owned()).spawn(scan) {
            Ok(handle) => *lock(&self.scanner) = Some(handle),
            Err(e) => tracing::error!(error = %e, "no thread to read due times: resends are missing"),
        }
    }

    fn scan(&self, spaces: &Spaces, turn: u64) -> Result<u64, StoreError> {
        let mut from = Some(TerminalKey::MIN);
        let mut fed = 0;
        while let Some(begin) = from {
            if self.scan.load(Ordering::Acquire) != turn {
                return Ok(fed);
            }
            let mut hints = Hints::default();
            let mut last = None;
            for guard in spaces.state.range(begin.0..).take(SCAN_PAGE) {
                let (key, octets) = guard.into_inner().map_err(unavailable)?;
                let key = terminal_key(&key)?;
                match record::read_state(key, &octets) {
                    Ok(terminal) => hints.of(&terminal),
                    // One broken record does not stop the resends of all others.
                    Err(_) => tracing::error!(?key, "a damaged record"),
                }
                last = Some(key);
            }
            fed += hints.looks.len() as u64;
            self.queues.feed(&mut hints);
            from = last.and_then(TerminalKey::next);
        }
        Ok(fed)
    }

    /// Ends a running scan and waits for its thread.
    pub(super) fn stop_scan(&self) {
        self.scan.fetch_add(1, Ordering::AcqRel);
        if let Some(handle) = lock(&self.scanner).take() {
            let _ = handle.join();
        }
    }
}
