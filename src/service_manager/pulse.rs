//! Whether the daemon works, asked of the parts that can hang.

use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::Engine;
use crate::store::Store;

/// What the watchdog feels: the store's committer, from the daemon's runtime.
pub struct Pulse {
    engine: Arc<Engine>,
    store: Arc<dyn Store>,
    ending: watch::Receiver<bool>,
}

impl Pulse {
    /// Of a daemon that runs until `ending` holds.
    pub(crate) fn new(engine: Arc<Engine>, store: Arc<dyn Store>, ending: watch::Receiver<bool>) -> Self {
        Self { engine, store, ending }
    }

    /// Comes back once the store's committer has answered, be it that it cannot write. Gives the daemon's state in a
    /// line, unless it is ending.
    pub async fn beat(&self) -> Option<String> {
        // What it answers is the probe's business, which takes readiness away; that it answers is ours.
        let _ = self.store.probe().await;
        (!*self.ending.borrow()).then(|| self.status())
    }

    fn status(&self) -> String {
        let counts = self.store.counts();
        let terminals: u64 = counts.members.values().map(|m| m.total).sum();
        let open: u64 = crate::delivery::State::ALL
            .into_iter()
            .filter(|s| s.is_open())
            .map(|s| counts.open[s as usize])
            .sum();
        let failing: Vec<_> = self
            .engine
            .readiness()
            .into_iter()
            .filter_map(|(name, works)| works.is_err().then_some(name))
            .collect();
        let ready = match failing.is_empty() {
            true => "ready".to_owned(),
            false => format!("not ready: {} does not work", failing.join(", ")),
        };
        format!("{ready}; {terminals} registrations, {open} deliveries open")
    }
}
