//! What a backup costs: how long it takes, how large it is, what commits and the disk feel of it meanwhile, and how long
//! restoring takes.
//!
//! ```text
//! cargo bench --bench backup -- 1_000_000
//! ```

mod common;

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ltkmd::engine::{Engine, Outbox};
use ltkmd::id::ServiceId;
use ltkmd::store::backup::BackupStream;
use ltkmd::store::{EmbeddedStore, RestoreOptions, Store, restore};

const KEY: [u8; 32] = [7; 32];

/// Registrations under way at a time while commits are timed.
const LANES: usize = 64;

/// Where LTKMs go: nowhere.
struct Nowhere;

impl Outbox for Nowhere {
    fn send(&self, batch: &[(IpAddr, &[u8])]) -> usize {
        batch.len()
    }
}

/// Registrations a second and their latencies, until told to stop.
async fn load(engine: &Arc<Engine>, service: &ServiceId, terminals: usize, stop: Arc<AtomicBool>) -> String {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let (engine, service, stop) = (Arc::clone(engine), service.clone(), Arc::clone(&stop));
        tasks.spawn(async move {
            let (mut times, mut i) = (Vec::new(), lane);
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let (btid, address) = (common::btid(i), common::address(i));
                engine.register(&btid, address, vec![service.clone()], None, None).await.expect("registered");
                times.push(begun.elapsed());
                i = (i + LANES * 7) % terminals;
            }
            times
        });
    }
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    times.sort();
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    let of = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("{rate:.0} registrations/s, p50 {:.1?}, p99 {:.1?}, longest {:.1?}", of(0.5), of(0.99), of(1.0))
}

/// Takes a backup to a file, synced.
fn take(stream: &mut BackupStream, path: &Path) -> std::io::Result<u64> {
    let (mut file, mut octets) = (File::create(path)?, 0);
    while let Some(more) = stream.next_octets().map_err(std::io::Error::other)? {
        file.write_all(&more)?;
        octets += more.len() as u64;
    }
    file.sync_all()?;
    Ok(octets)
}

async fn measure(terminals: usize) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let embedded = Arc::new(EmbeddedStore::open(&dir.path().join("store"), Some(KEY))?);
    let store: Arc<dyn Store> = Arc::<EmbeddedStore>::clone(&embedded);
    let engine = common::engine(store, Arc::new(Nowhere)).await?;
    let service = ServiceId::new("urn:bench")?;
    common::provision(&engine, &service, terminals).await?;
    common::register_all(&engine, &service, terminals).await;
    println!("{terminals} terminals, store {} MiB", embedded.disk_size()? >> 20);
    let file = dir.path().join("backup");
    for loaded in [false, true] {
        let stop = Arc::new(AtomicBool::new(!loaded));
        if loaded {
            let alone = Arc::new(AtomicBool::new(false));
            let ending = Arc::clone(&alone);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                ending.store(true, Ordering::Relaxed);
            });
            println!("without a backup: {}", load(&engine, &service, terminals, alone).await);
        }
        let (before, memory) = (embedded.disk_size()?, common::resident());
        let loading = {
            let (engine, service, stop) = (Arc::clone(&engine), service.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                match loaded {
                    true => load(&engine, &service, terminals, stop).await,
                    false => "nothing else".to_owned(),
                }
            })
        };
        let begun = Instant::now();
        let mut stream = BackupStream::new(embedded.moment().await?);
        let path = file.clone();
        let octets = tokio::task::spawn_blocking(move || take(&mut stream, &path)).await??;
        let took = begun.elapsed();
        let grew = (embedded.disk_size()? as i64 - before as i64) >> 20;
        let memory = (common::resident() as i64 - memory as i64) >> 20;
        stop.store(true, Ordering::Relaxed);
        println!(
            "backup: {took:.1?}, {} MiB; store {grew:+} MiB, memory {memory:+} MiB; beside it: {}",
            octets >> 20,
            loading.await?
        );
    }
    let begun = Instant::now();
    let options = RestoreOptions { margin: 1_000_000, force: false, dry_run: false };
    let place = dir.path().join("restored");
    let told = restore(&mut File::open(&file)?, &place, Some(KEY), options, &mut |_, _| true)?;
    println!("restored {} records in {:.1?}", told.counts.all(), begun.elapsed());
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<usize> =
        std::env::args().filter_map(|a| a.replace('_', "").parse().ok()).filter(|n| *n > 0).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for terminals in if sizes.is_empty() { vec![100_000] } else { sizes } {
        runtime.block_on(measure(terminals))?;
    }
    Ok(())
}
