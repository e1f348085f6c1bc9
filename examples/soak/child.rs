//! The process that is killed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ltkmd::store::{EmbeddedStore, Store, StoreError};

use crate::Options;
use crate::load::Load;
use crate::wire::{Message, Pipe};

/// Registrations under way at a time.
const CLIENTS: usize = 256;
/// Pause between two updates of the quiet hour.
const TRICKLE: Duration = Duration::from_millis(250);

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Phase {
    /// Makes the store and ends.
    Provision,
    /// Runs the mix until it is killed.
    Mix,
    /// Runs a trickle until it is killed.
    Quiet,
}

/// Runs one phase.
pub(crate) fn run(options: &Options, phase: Phase) -> Result<(), String> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let store = EmbeddedStore::open(&options.dir, Some([9; 32])).map_err(|e| e.to_string())?;
    let pipe = Pipe::new();
    pipe.send(&Message::Opened(begun.elapsed().as_micros() as u64));
    let load = Arc::new(Load::new(store, pipe, options.terminals, options.clock));
    runtime.block_on(work(load, phase)).map_err(|e| e.to_string())
}

async fn work(load: Arc<Load>, phase: Phase) -> Result<(), StoreError> {
    tokio::spawn(measure(Arc::clone(&load)));
    if phase == Phase::Provision {
        load.provision().await?;
        load.store.close().await?;
        load.pipe.send(&Message::Finished);
        return Ok(());
    }
    load.load_catalogue().await?;
    let mut tasks = tokio::task::JoinSet::new();
    let reader = Arc::clone(&load);
    if phase == Phase::Quiet {
        reader.read_all().await?;
        loop {
            load.register_one().await?;
            tokio::time::sleep(TRICKLE).await;
        }
    }
    tasks.spawn(async move {
        reader.read_all().await?;
        std::future::pending().await
    });
    for _ in 0..CLIENTS {
        let load = Arc::clone(&load);
        tasks.spawn(async move {
            loop {
                load.register_one().await?;
            }
        });
    }
    let (paging, answering) = (Arc::clone(&load), Arc::clone(&load));
    tasks.spawn(async move { paging.fan_out().await });
    tasks.spawn(async move { answering.verify().await });
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| StoreError::Unavailable(e.to_string()))??;
    }
    Ok(())
}

/// Sends figures once a second.
async fn measure(load: Arc<Load>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let commits = load.store.take_commit_times().into_iter().map(|s| (s * 1e6) as u64).collect();
        load.pipe.send(&Message::Commits(commits));
        let slowest = load.slowest.swap(0, Ordering::Relaxed);
        let journal = load.store.journal_size().unwrap_or(0);
        let disk = load.store.disk_size().unwrap_or(0);
        load.pipe.send(&Message::Figures([slowest, resident(), journal, disk]));
    }
}

/// Resident octets of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}
