//! The daemon's own work, decision by decision, over the real store.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use ltkmd::delivery::{Context, Entropy, Rules, SmsAlone, Terminal};
use ltkmd::gba::{Credential, GbaType};
use ltkmd::id::{BTid, JobId, KeyDomainId, Method, ServiceId, ServiceNo, SubscriberId, TerminalKey};
use ltkmd::keys::{Catalogue, Msk, Service, Validity};
use ltkmd::procedure;
use ltkmd::store::{
    CatalogueWrite, Decide, EmbeddedStore, Job, JobKind, JobState, Scope, Store, StoreError, Subscriber,
    TerminalFilter, View,
};
use ltkmd::time::Timestamp;
use zeroize::Zeroizing;

use crate::wire::{Mark, Message, Pipe};

/// The one service.
const SERVICE: ServiceNo = ServiceNo(1);
/// Terminals in a page of a fan-out.
const PAGE: usize = 1000;
/// Verifications in one update.
const ANSWERS: usize = 100;
/// Answers that wait to be given.
const OPEN_ANSWERS: usize = 100_000;
/// Retained keys.
const KEYS: usize = 4;

/// One child's work.
pub(crate) struct Load {
    pub(crate) store: EmbeddedStore,
    pub(crate) pipe: Pipe,
    terminals: u32,
    rules: Rules,
    catalogue: RwLock<Arc<Catalogue>>,
    /// A clock that never shows the same twice, so that every change leaves a later mark.
    clock: AtomicU64,
    random: AtomicU64,
    answers: Mutex<Vec<(TerminalKey, u32)>>,
    registered: AtomicU64,
    paged: AtomicU64,
    verified: AtomicU64,
    pub(crate) slowest: AtomicU64,
}

/// A terminal's number from its B-TID.
fn number(t: &Terminal) -> Option<u32> {
    t.credential.as_ref()?.btid.as_str().strip_prefix('t')?.parse().ok()
}

fn mark(t: &Terminal) -> Option<Mark> {
    let seen = t.registration.as_ref().map(|r| r.last_seen);
    let latest = t.deliveries.iter().map(|d| d.updated).chain(seen).max()?;
    Some(Mark { terminal: number(t)?, next_t: u32::try_from(t.next_t).ok()?, stamp: latest.0 })
}

impl Load {
    pub(crate) fn new(store: EmbeddedStore, pipe: Pipe, terminals: u32, clock: u64) -> Self {
        let rules = Rules {
            preference: vec![Method::Udp, Method::Http],
            verify: true,
            attempts: 4,
            first_timeout: Duration::from_secs(2),
            sms_alone: SmsAlone::Accept,
            lead_time: Duration::from_secs(600),
            sms: None,
        };
        Self {
            store,
            pipe,
            terminals,
            rules,
            catalogue: RwLock::default(),
            clock: AtomicU64::new(clock),
            random: AtomicU64::new(clock ^ u64::from(std::process::id()) << 32),
            answers: Mutex::default(),
            registered: AtomicU64::new(0),
            paged: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.fetch_add(1, Ordering::Relaxed))
    }

    fn draw(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().expect("no writer breaks off"))
    }

    pub(crate) async fn load_catalogue(&self) -> Result<(), StoreError> {
        let catalogue = self.store.catalogue().await?;
        *self.catalogue.write().expect("no writer breaks off") = Arc::new(catalogue);
        Ok(())
    }

    fn btid(n: u32) -> BTid {
        BTid::new(&format!("t{n}")).expect("a B-TID")
    }

    /// Runs a decision; what it changed is acknowledged to the parent once the commit is durable.
    async fn update(
        self: &Arc<Self>,
        scope: Scope,
        mut decide: impl FnMut(&mut View, &mut Context<'_>) + Send + 'static,
    ) -> Result<usize, StoreError> {
        let marks = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let (load, catalogue, slot) = (Arc::clone(self), self.catalogue(), Arc::clone(&marks));
        let seed = self.draw();
        let decide: Decide = Box::new(move |view| {
            let entropy = Entropy::new(seed);
            let mut ctx = Context::new(&catalogue, &load.rules, load.now(), entropy);
            let found: Vec<Mark> = view.terminals.iter().filter_map(mark).collect();
            decide(view, &mut ctx);
            let left: Vec<Mark> = view.terminals.iter().filter_map(mark).collect();
            *slot.lock().expect("one decision at a time") = (found, left);
        });
        let begun = Instant::now();
        self.store.update(scope, decide).await?;
        self.slowest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        let (found, left) = std::mem::take(&mut *marks.lock().expect("the decision is over"));
        let n = left.len();
        if n > 0 {
            self.pipe.send(&Message::Found(found));
            self.pipe.send(&Message::Acked(left));
        }
        Ok(n)
    }

    /// Puts a service, subscribers and registered terminals in.
    pub(crate) async fn provision(self: &Arc<Self>) -> Result<(), StoreError> {
        let service = Service {
            no: SERVICE,
            id: ServiceId::new("urn:soak").expect("a service id"),
            key_domain: KeyDomainId([0x62, 0xF2, 0x10]),
            key_group: 1,
            validity: Validity::Ntp,
            lifetime: Duration::from_secs(86_400),
            rotate_every: None,
            open: false,
            ext_bcast: None,
            invalidate_on_deregister: true,
            mtk_ids: (0, 0),
            salt: false,
            srtp: None,
            lead_time: None,
            retired: None,
        };
        self.store.write_catalogue(vec![CatalogueWrite::Service(service)]).await?;
        self.load_catalogue().await?;
        self.new_key().await?;
        for begin in (0..self.terminals).step_by(PAGE) {
            let numbers: Vec<u32> = (begin..self.terminals.min(begin + PAGE as u32)).collect();
            let subscriber = |n: u32| SubscriberId::new(&format!("s{n}@ims.example")).expect("an IMPI");
            let credentials = numbers.iter().map(|n| {
                let btid = Self::btid(*n);
                let no_randomness = |e: getrandom::Error| StoreError::Unavailable(e.to_string());
                let mrk = self.store.sealer().seal_mrk(&btid, &[1; 32]).map_err(no_randomness)?;
                let muk = self.store.sealer().seal_muk(&btid, &[2; 32]).map_err(no_randomness)?;
                Ok(Credential { btid, subscriber: subscriber(*n), mrk, muk, gba: GbaType::Me, expires: None })
            });
            let credentials = credentials.collect::<Result<Vec<_>, StoreError>>()?;
            let btids = credentials.iter().map(|c| c.btid.clone()).collect();
            let subscribers: Vec<_> = numbers.iter().map(|n| subscriber(*n)).collect();
            let scope = Scope::Credentials(btids, subscribers.clone());
            self.update(scope, move |view, ctx| {
                for (terminal, credential) in view.terminals.iter_mut().zip(&credentials) {
                    terminal.credential = Some(credential.clone());
                    register(terminal, &mut [], &[Method::Udp as u8], ctx);
                }
                for id in &subscribers {
                    let services = vec![ServiceId::new("urn:soak").expect("a service id")];
                    let subscriber = Subscriber { id: id.clone(), msisdn: None, services };
                    view.subscribers.insert(id.clone(), Some(subscriber));
                }
            })
            .await?;
        }
        Ok(())
    }

    /// A new key for the service; the oldest goes.
    async fn new_key(&self) -> Result<u16, StoreError> {
        let catalogue = self.catalogue();
        let entry = catalogue.get(SERVICE).expect("the service is there");
        let group = (entry.service.key_domain, entry.service.key_group);
        let number = catalogue.free_key_number(group.0, group.1).expect("few are retained");
        let key = Msk {
            service: SERVICE,
            number,
            msk: Zeroizing::new([3; 16]),
            salt: None,
            valid_from: Timestamp(0),
            valid_to: Timestamp(u64::MAX),
            mtk_ids: (0, 0),
        };
        let mut writes = vec![CatalogueWrite::Key(key)];
        let excess = (entry.keys.len() + 1).saturating_sub(KEYS);
        writes.extend(entry.keys.iter().take(excess).map(|k| CatalogueWrite::RemoveKey(SERVICE, k.number)));
        self.store.write_catalogue(writes).await?;
        self.load_catalogue().await?;
        Ok(number)
    }

    /// One registration of a random terminal.
    pub(crate) async fn register_one(self: &Arc<Self>) -> Result<(), StoreError> {
        let draw = self.draw();
        let btid = Self::btid((draw % u64::from(self.terminals)) as u32);
        let declared: &[u8] = if draw >> 40 & 1 == 0 { &[0, 2] } else { &[0] };
        self.update(Scope::Terminal(btid), move |view, ctx| {
            if let Some((terminal, others)) = view.terminals.split_first_mut() {
                register(terminal, others, declared, ctx);
            }
        })
        .await?;
        self.registered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether work of this kind is ahead of a third of the registrations.
    fn is_ahead(&self, done: &AtomicU64) -> bool {
        done.load(Ordering::Relaxed) * 3 > self.registered.load(Ordering::Relaxed)
    }

    /// Fan-outs of key after key, page by page.
    pub(crate) async fn fan_out(self: &Arc<Self>) -> Result<(), StoreError> {
        loop {
            let unfinished = |j: &Job| j.state == JobState::Running && j.cursor.is_some();
            let job = match self.store.jobs(1).await?.into_iter().find(unfinished) {
                Some(job) => job,
                None => self.new_job().await?,
            };
            let (id, number) = (job.id, job.number);
            while self.store.job(id).await?.is_some_and(|j| unfinished(&j)) {
                if self.is_ahead(&self.paged) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let n = self.page(id, number).await?;
                self.paged.fetch_add(n as u64, Ordering::Relaxed);
            }
        }
    }

    async fn new_job(&self) -> Result<Job, StoreError> {
        let number = self.new_key().await?;
        let expected = self.store.counts().members.get(&SERVICE).map_or(0, |m| m.total);
        let id = self.store.new_job_id().await?;
        let job = Job::new(id, JobKind::KeyUpdate, SERVICE, number, expected, self.now());
        self.store.write_catalogue(vec![CatalogueWrite::Job(job.clone())]).await?;
        Ok(job)
    }

    async fn page(self: &Arc<Self>, id: JobId, number: u16) -> Result<usize, StoreError> {
        let load = Arc::clone(self);
        self.update(Scope::Page(id, PAGE), move |view, ctx| {
            let catalogue = ctx.catalogue;
            let Some(entry) = catalogue.get(SERVICE) else { return };
            let mut out = Vec::new();
            for terminal in &mut view.terminals {
                let mut orders = Vec::new();
                terminal.update(entry, number, id, ctx, &mut orders);
                terminal.prune(catalogue, ctx.now);
                out.extend(orders.iter().map(|o| (terminal.key, o.t)));
            }
            let mut answers = load.answers.lock().expect("no holder breaks off");
            if answers.len() < OPEN_ANSWERS {
                answers.extend(out);
            }
        })
        .await
    }

    /// Answers to what fan-outs sent.
    pub(crate) async fn verify(self: &Arc<Self>) -> Result<(), StoreError> {
        loop {
            let batch: Vec<(TerminalKey, u32)> = {
                let mut answers = self.answers.lock().expect("no holder breaks off");
                let rest = answers.len().saturating_sub(ANSWERS);
                answers.split_off(rest)
            };
            if batch.is_empty() || self.is_ahead(&self.verified) {
                self.answers.lock().expect("no holder breaks off").extend(batch);
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let n = batch.len();
            let keys = batch.iter().map(|(key, _)| *key).collect();
            self.update(Scope::Terminals(keys), move |view, ctx| {
                for (terminal, (_, t)) in view.terminals.iter_mut().zip(&batch) {
                    terminal.answered(*t, ctx.now);
                }
            })
            .await?;
            self.verified.fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    /// Reads every terminal back.
    pub(crate) async fn read_all(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.list_terminals(TerminalFilter::default(), after, 10_000).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            self.pipe.send(&Message::ReadBack(page.iter().filter_map(mark).collect()));
        }
        self.pipe.send(&Message::ReadAll);
        Ok(())
    }
}

fn register(terminal: &mut Terminal, others: &mut [Terminal], declared: &[u8], ctx: &mut Context<'_>) {
    let service = [ServiceId::new("urn:soak").expect("a service id")];
    let address = IpAddr::from([127, 0, 0, 1]);
    let outcome = procedure::register(terminal, others, &service, address, &service, Some(declared), ctx);
    assert!(outcome.is_some(), "the declared methods can serve");
}
