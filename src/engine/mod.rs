//! The middle of the daemon: decisions meet the store, LTKMs are made after the commit and leave.
//!
//! Transports and the admin API call it; it knows neither. Nothing is answered or sent before the commit
//! that it relies on.

mod catalogue;
mod fanout;
mod freeze;
mod intake;
mod jobs;
mod maker;
mod request;
mod resend;
mod schedule;
mod sms;
mod subscriber;

pub use catalogue::{RotateSpec, ServiceSpec};
pub use jobs::JobAction;
pub use maker::Identity;
pub use request::{Authenticable, Served};
pub use sms::{ShortMessage, SmsEvent, SmsOutbox, SmsTag};
pub use subscriber::{CredentialKeys, CredentialSpec, ImportItem, Trigger};

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::{MutexGuard, Notify, watch};

use crate::delivery::{Context, Delivery, Entropy, HeldBack, Reason, Rules, State, Tally};
use crate::id::{BTid, Method, TerminalKey};
use crate::keys::Catalogue;
use crate::metrics::{COALESCED, Metrics};
use crate::secret::Sealed;
use crate::store::{Scope, Store, StoreError, View};
use crate::time::Timestamp;

/// Why an operator's call was not carried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// What the call names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// It is readable, but a field cannot be so.
    #[error("{field}: {why}")]
    Invalid {
        /// The field, as the API spells it.
        field: &'static str,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a PUT came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It did not exist before.
    Created,
    /// It replaced what was there.
    Updated,
}

/// Where LTKMs leave by UDP.
pub trait Outbox: Send + Sync + 'static {
    /// Sends datagrams to terminals' LTKM port; gives how many left. What does not leave is sent again at
    /// its due time like what is lost.
    fn send(&self, batch: &[(IpAddr, &[u8])]) -> usize;
}

/// What the operator configured for the engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decisions' part.
    pub rules: Rules,
    /// Who LTKMs are from.
    pub identity: Identity,
    /// How long keys are kept past their end.
    pub retain: Duration,
    /// Unsolicited LTKMs a second by UDP, at most; `None`: as fast as the socket takes them.
    pub udp_rate: Option<u32>,
    /// How long a digest nonce is good: a terminal's older ones are forgotten when it uses another.
    pub nonce_lifetime: Duration,
}

/// Decisions over the store; see the module.
pub struct Engine {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    settings: Settings,
    metrics: Arc<Metrics>,
    outbox: Arc<dyn Outbox>,
    /// Held while the catalogue is changed: read, decide, write, swap.
    catalogue_change: tokio::sync::Mutex<()>,
    /// Rung when a job may have become runnable.
    jobs: Notify,
    /// A B-TID that exists, whose records are read when an unknown one asks, so that both take as long.
    reference: Mutex<Option<BTid>>,
    readiness: Mutex<Vec<(&'static str, Arc<AtomicBool>)>>,
    /// What the store's probe said last, when the store does not work.
    store_trouble: Mutex<Option<String>>,
}

/// What decisions read, also on the store's threads.
struct Shared {
    catalogue: RwLock<Arc<Catalogue>>,
    rules: Rules,
    seed: AtomicU64,
}

impl Shared {
    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().expect("no holder of this lock panics"))
    }

    /// Runs a decision at this moment, with the services and keys of this moment.
    fn decide<R>(
        &self,
        view: &mut View,
        decision: impl FnOnce(&mut View, &mut Context<'_>) -> R,
    ) -> (R, Tally) {
        let catalogue = self.catalogue();
        view.revision = Some(catalogue.revision());
        let seed = self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let (rules, now, entropy) = (&self.rules, Timestamp::now(), Entropy::new(seed));
        let mut ctx = Context::new(&catalogue, rules, now, entropy);
        let result = decision(view, &mut ctx);
        (result, ctx.tally)
    }
}

impl Engine {
    /// Starts on an open store.
    ///
    /// # Errors
    /// The catalogue cannot be read.
    pub async fn new(
        store: Arc<dyn Store>,
        settings: Settings,
        metrics: Arc<Metrics>,
        outbox: Arc<dyn Outbox>,
    ) -> Result<Self, StoreError> {
        let catalogue = store.catalogue().await?;
        let mut seed = [0u8; 8];
        getrandom::fill(&mut seed)
            .map_err(|e| StoreError::Open(format!("the system gives no randomness: {e}")))?;
        store.decides_with(catalogue.revision());
        metrics.sms_enabled(settings.rules.preference.contains(&Method::Sms));
        let shared = Shared {
            catalogue: RwLock::new(Arc::new(catalogue)),
            rules: settings.rules.clone(),
            seed: AtomicU64::new(u64::from_ne_bytes(seed)),
        };
        Ok(Self {
            store,
            shared: Arc::new(shared),
            settings,
            metrics,
            outbox,
            catalogue_change: tokio::sync::Mutex::new(()),
            jobs: Notify::new(),
            reference: Mutex::new(None),
            readiness: Mutex::new(Vec::new()),
            store_trouble: Mutex::new(None),
        })
    }

    /// The moment, for those who ask the engine about things in time.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Services and keys as they are now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.shared.catalogue()
    }

    /// Takes over what other daemons change of services and keys, until the shutdown.
    pub async fn run_catalogue(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        const RETRY: Duration = Duration::from_millis(200);
        while !*shutdown.borrow() {
            let changed = tokio::select! {
                changed = self.store.catalogue_changed() => changed,
                _ = shutdown.changed() => return,
            };
            let taken = match changed {
                Ok(()) => self.change_catalogue().await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                tracing::debug!(%error, "services and keys wait for the store");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    _ = shutdown.changed() => {}
                }
            }
        }
    }

    /// Brings services, keys and counters up to date with what other daemons on the same store have changed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        if !self.store.is_shared() {
            return Ok(());
        }
        if self.store.newer_catalogue(self.catalogue().revision()).await?.is_some() {
            drop(self.change_catalogue().await?);
        }
        self.store.refresh().await
    }

    /// Begins a change of services and keys: nobody else here changes them meanwhile, and what is in memory is the
    /// newest that the store has.
    async fn change_catalogue(&self) -> Result<MutexGuard<'_, ()>, StoreError> {
        let changing = self.catalogue_change.lock().await;
        if let Some(newer) = self.store.newer_catalogue(self.catalogue().revision()).await? {
            let gone: Vec<_> = self.catalogue().services().iter().map(|s| s.service.id.clone()).collect();
            for id in gone.iter().filter(|id| newer.by_id(id).is_none()) {
                self.metrics.forget_service(id.as_str());
            }
            self.store_catalogue(newer);
            self.jobs.notify_one();
        }
        Ok(changing)
    }

    /// Decisions are made with these services and keys from now on.
    fn store_catalogue(&self, catalogue: Catalogue) {
        let revision = catalogue.revision();
        *self.shared.catalogue.write().expect("no holder of this lock panics") = Arc::new(catalogue);
        self.store.decides_with(revision);
    }

    /// The store, for what only reads.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Who LTKMs are from.
    pub fn fqdn(&self) -> &str {
        &self.settings.identity.fqdn
    }

    /// The operator's part of decisions.
    pub fn rules(&self) -> &Rules {
        &self.settings.rules
    }

    /// Adds a latch that has to be set for the daemon to be ready.
    pub fn add_latch(&self, name: &'static str) -> Arc<AtomicBool> {
        let latch = Arc::new(AtomicBool::new(false));
        self.readiness.lock().expect("no holder of this lock panics").push((name, Arc::clone(&latch)));
        latch
    }

    /// What has to work for the daemon to be ready, and whether it does.
    pub fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        let latches = self.readiness.lock().expect("no holder of this lock panics");
        let told = |set: bool| if set { Ok(()) } else { Err("does not work now".to_owned()) };
        let mut all: Vec<_> =
            latches.iter().map(|(name, latch)| (*name, told(latch.load(Ordering::Relaxed)))).collect();
        all.extend(self.frozen().map(|frozen| ("changes", Err(frozen.to_string()))));
        all
    }

    /// Why the store does not work now, in the words of its disk: for operators, since it may name a path.
    pub fn store_trouble(&self) -> Option<String> {
        self.store_trouble.lock().expect("no holder of this lock panics").clone()
    }

    /// Reads a scope, decides, and gives the last run's result once it is durable; `None` when the scope
    /// had nothing to decide about.
    async fn try_update<R: Send + 'static>(
        &self,
        scope: Scope,
        mut decide: impl FnMut(&mut View, &mut Context<'_>) -> R + Send + 'static,
    ) -> Result<Option<R>, StoreError> {
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let shared = Arc::clone(&self.shared);
        let run = move |view: &mut View| {
            let outcome = shared.decide(view, &mut decide);
            *slot.lock().expect("no holder of this lock panics") = Some(outcome);
        };
        self.store.update(scope, Box::new(run)).await.inspect_err(|error| {
            // A store that rests has not failed.
            if !matches!(error, StoreError::Frozen(_)) {
                self.metrics.store_failed();
            }
        })?;
        let outcome = result.lock().expect("no holder of this lock panics").take();
        Ok(outcome.map(|(outcome, tally)| {
            self.count(tally);
            outcome
        }))
    }

    /// Counts what a decision did, now that it is durable.
    fn count(&self, tally: Tally) {
        for pulled in tally.pulled {
            self.metrics.verified(pulled.via, pulled.after.as_secs_f64());
        }
        for why in HeldBack::ALL {
            self.metrics.sms_held_back(why.as_str(), tally.held_back[why as usize]);
        }
        self.metrics.sms_held_back(COALESCED, tally.coalesced);
    }

    /// [`Engine::try_update`] for scopes whose decision always runs.
    async fn update<R: Send + 'static>(
        &self,
        scope: Scope,
        decide: impl FnMut(&mut View, &mut Context<'_>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let outcome = self.try_update(scope, decide).await?;
        outcome.ok_or_else(|| StoreError::Damaged("an update ended without its decision".to_owned()))
    }
}

/// Deliveries that failed at this moment, for the metric.
fn failures(deliveries: &[Delivery], now: Timestamp) -> Vec<Reason> {
    let failed = |d: &&Delivery| d.state == State::Failed && d.updated == now;
    deliveries.iter().filter(failed).filter_map(|d| d.error).collect()
}

/// What the driver needs of a terminal to carry out its orders after the commit.
#[derive(Debug, Clone)]
struct Recipient {
    btid: BTid,
    muk: Sealed,
    address: IpAddr,
    key: TerminalKey,
}
