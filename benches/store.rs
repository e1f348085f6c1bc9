//! What the embedded store does on this machine, with the budgets it is measured against.
//!
//! ```text
//! cargo bench --bench store                      # 200,000 terminals
//! LTKMD_BENCH_TERMINALS=1000000 LTKMD_BENCH_DIR=/var/tmp cargo bench --bench store
//! ```

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ltkmd::delivery::{Context, Entropy, Rules, SmsAlone};
use ltkmd::gba::{Credential, GbaType};
use ltkmd::id::{BTid, KeyDomainId, Method, ServiceId, ServiceNo, SubscriberId, TerminalKey};
use ltkmd::keys::{Catalogue, Msk, Service, Validity};
use ltkmd::procedure;
use ltkmd::store::{
    CatalogueWrite, Decide, EmbeddedStore, Job, JobKind, Scope, Store, StoreError, Subscriber, View,
};
use ltkmd::time::Timestamp;
use zeroize::Zeroizing;

const SERVICE: ServiceNo = ServiceNo(1);
const PAGE: usize = 1000;
/// Registrations under way at a time.
const CLIENTS: u64 = 256;
/// How long random work is measured.
const SPAN: Duration = Duration::from_secs(10);

fn rules() -> Rules {
    Rules {
        preference: vec![Method::Udp, Method::Http],
        verify: true,
        attempts: 4,
        first_timeout: Duration::from_secs(2),
        sms_alone: SmsAlone::Accept,
        lead_time: Duration::from_secs(600),
        sms: None,
    }
}

fn btid(n: u64) -> BTid {
    BTid::new(&format!("t{n}@bsf.mnc001.mcc262.pub.3gppnetwork.org")).expect("a B-TID")
}

fn impi(n: u64) -> SubscriberId {
    SubscriberId::new(&format!("26201{n:010}@ims.mnc001.mcc262.3gppnetwork.org")).expect("an IMPI")
}

fn service_id() -> ServiceId {
    ServiceId::new("urn:bench").expect("a service id")
}

/// A well-spread number.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 8
}

struct Bench {
    store: EmbeddedStore,
    catalogue: Arc<Catalogue>,
    terminals: u64,
}

impl Bench {
    async fn update(
        &self,
        scope: Scope,
        mut decide: impl FnMut(&mut View, &mut Context<'_>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let catalogue = Arc::clone(&self.catalogue);
        let decide: Decide = Box::new(move |view| {
            let (now, entropy) = (Timestamp::now(), Entropy::new(1));
            let rules = rules();
            let mut ctx = Context::new(&catalogue, &rules, now, entropy);
            decide(view, &mut ctx);
        });
        self.store.update(scope, decide).await
    }

    async fn provision(&self) -> Result<(), StoreError> {
        for begin in (0..self.terminals).step_by(PAGE) {
            let numbers: Vec<u64> = (begin..self.terminals.min(begin + PAGE as u64)).collect();
            let sealer = self.store.sealer();
            let credential = |n: &u64| {
                let btid = btid(*n);
                let mrk = sealer.seal_mrk(&btid, &[1; 32]).expect("randomness");
                let muk = sealer.seal_muk(&btid, &[2; 32]).expect("randomness");
                Credential { btid, subscriber: impi(*n), mrk, muk, gba: GbaType::Me, expires: None }
            };
            let credentials: Vec<Credential> = numbers.iter().map(credential).collect();
            let btids = credentials.iter().map(|c| c.btid.clone()).collect();
            let ids: Vec<_> = numbers.iter().map(|n| impi(*n)).collect();
            self.update(Scope::Credentials(btids, ids.clone()), move |view, ctx| {
                for (terminal, credential) in view.terminals.iter_mut().zip(&credentials) {
                    terminal.credential = Some(credential.clone());
                    let address = IpAddr::from([127, 0, 0, 1]);
                    let services = [service_id()];
                    procedure::register(terminal, &mut [], &services, address, &services, None, ctx);
                }
                for id in &ids {
                    let subscriber =
                        Subscriber { id: id.clone(), msisdn: None, services: vec![service_id()] };
                    view.subscribers.insert(id.clone(), Some(subscriber));
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Visits all members; each takes a T and sends the key again.
    async fn page_pass(&self) -> Result<Duration, StoreError> {
        let id = self.store.new_job_id().await?;
        let job = Job::new(id, JobKind::KeyUpdate, SERVICE, 2, self.terminals, Timestamp::now());
        self.store.write_catalogue(vec![CatalogueWrite::Job(job)]).await?;
        let mut longest = Duration::ZERO;
        loop {
            let begun = Instant::now();
            self.update(Scope::Page(id, PAGE), move |view, ctx| {
                let catalogue = ctx.catalogue;
                let Some(entry) = catalogue.get(SERVICE) else { return };
                let mut orders = Vec::with_capacity(PAGE);
                for terminal in &mut view.terminals {
                    terminal.deliveries.clear();
                    terminal.update(entry, 2, id, ctx, &mut orders);
                }
            })
            .await?;
            longest = longest.max(begun.elapsed());
            if self.store.job(id).await?.is_none_or(|j| j.cursor.is_none()) {
                return Ok(longest);
            }
        }
    }

    /// One registration as the daemon does it: who is it, then the update.
    async fn register(&self, n: u64) -> Result<(), StoreError> {
        let btid = btid(mix(n) % self.terminals);
        self.store.terminal(&btid).await?;
        self.update(Scope::Terminal(btid), |view, ctx| {
            if let Some((terminal, others)) = view.terminals.split_first_mut() {
                let (address, services) = (IpAddr::from([127, 0, 0, 1]), [service_id()]);
                procedure::register(terminal, others, &services, address, &services, Some(&[2]), ctx);
            }
        })
        .await
    }

    /// Answers of random terminals, as the intake takes them: read in a batch, written in a batch.
    async fn verify(&self, n: u64) -> Result<(), StoreError> {
        let key = |i: u64| self.store.terminal_key(&btid(mix(n * 100 + i) % self.terminals));
        let keys: Vec<TerminalKey> = (0..100).map(key).collect();
        let known = self.store.terminals(keys.clone()).await?;
        let ts: Vec<u32> = known.iter().map(|t| t.next_t.saturating_sub(1) as u32).collect();
        self.update(Scope::Terminals(keys), move |view, ctx| {
            for (terminal, t) in view.terminals.iter_mut().zip(&ts) {
                terminal.answered(*t, ctx.now);
            }
        })
        .await
    }
}

/// Resident octets of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Processor time of the committer's thread, which other load on the machine does not change much.
fn committer_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
    let stat = tasks.filter_map(stat).find(|s| s.contains("(store-commit)")).unwrap_or_default();
    let fields: Vec<&str> = stat.split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(13) + ticks(14)) * 10)
}

async fn catalogue(store: &EmbeddedStore) -> Result<Arc<Catalogue>, StoreError> {
    let service = Service {
        no: SERVICE,
        id: service_id(),
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
    let key = |number| Msk {
        service: SERVICE,
        number,
        msk: Zeroizing::new([3; 16]),
        salt: None,
        valid_from: Timestamp(0),
        valid_to: Timestamp::MAX,
        mtk_ids: (0, 0),
    };
    let writes =
        vec![CatalogueWrite::Service(service), CatalogueWrite::Key(key(1)), CatalogueWrite::Key(key(2))];
    store.write_catalogue(writes).await?;
    Ok(Arc::new(store.catalogue().await?))
}

/// Runs `work` from many tasks for a while; how often it ended in a second.
async fn for_a_while<F, W>(bench: &Arc<Bench>, tasks: u64, work: F) -> f64
where
    F: Fn(Arc<Bench>, u64) -> W + Copy + Send + 'static,
    W: Future<Output = Result<(), StoreError>> + Send,
{
    let counter = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (bench, counter) = (Arc::clone(bench), Arc::clone(&counter));
        set.spawn(async move {
            while begun.elapsed() < SPAN {
                let n = counter.fetch_add(1, Ordering::Relaxed);
                work(Arc::clone(&bench), n).await.expect("the store works");
            }
        });
    }
    while set.join_next().await.is_some() {}
    counter.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

fn say(what: &str, value: String) {
    println!("{what:<52} {value}");
}

async fn measure(dir: PathBuf, terminals: u64) -> Result<(), StoreError> {
    let at_rest = resident();
    let store = EmbeddedStore::open(&dir, Some([9; 32]))?;
    let catalogue = catalogue(&store).await?;
    let bench = Arc::new(Bench { store, catalogue, terminals });

    let begun = Instant::now();
    bench.provision().await?;
    say("provisioned and registered, terminals/s", rate(terminals, begun.elapsed()));
    let octets = bench.store.disk_size()?.saturating_sub(bench.store.journal_size()?);
    say("on disk without journals, octets/terminal", (octets / terminals).to_string());

    for pass in ["first", "second"] {
        let (begun, spent) = (Instant::now(), committer_time());
        let longest = bench.page_pass().await?;
        say(&format!("{pass} page pass, terminals/s"), rate(terminals, begun.elapsed()));
        let each = (committer_time() - spent).as_secs_f64() * 1e6 / terminals as f64;
        say("  the committer's own time, µs/terminal", format!("{each:.2}"));
        say("  longest page, ms", format!("{:.1}", longest.as_secs_f64() * 1e3));
    }
    bench.store.take_commit_times();
    let spent = committer_time();
    let done = for_a_while(&bench, CLIENTS, |b, n| async move { b.register(n).await }).await;
    say("random registrations/s", format!("{done:.0}"));
    let each = (committer_time() - spent).as_secs_f64() * 1e6 / (done * SPAN.as_secs_f64());
    say("  the committer's own time, µs/registration", format!("{each:.2}"));
    let mut times = bench.store.take_commit_times();
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times.get((times.len() as f64 * q) as usize).copied().unwrap_or_default() * 1e3;
    say(
        "  commit median / p99 / longest, ms",
        format!("{:.2} / {:.2} / {:.2}", at(0.5), at(0.99), at(0.9999)),
    );
    let done = for_a_while(&bench, 8, |b, n| async move { b.verify(n).await }).await;
    say("verifications/s", format!("{:.0}", done * 100.0));
    say("resident, MiB (of them before opening)", format!("{} ({})", resident() >> 20, at_rest >> 20));

    drop(bench);
    let begun = Instant::now();
    let store = EmbeddedStore::open(&dir, Some([9; 32]))?;
    say("reopened without closing, ms", format!("{:.0}", begun.elapsed().as_secs_f64() * 1e3));
    store.close().await
}

fn rate(n: u64, took: Duration) -> String {
    format!("{:.0}", n as f64 / took.as_secs_f64())
}

fn main() {
    let terminals =
        std::env::var("LTKMD_BENCH_TERMINALS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let parent = std::env::var_os("LTKMD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("{terminals} terminals");
    runtime.block_on(measure(dir.path().join("store"), terminals)).expect("the store works");
}
