//! What time brings by itself: scheduled rotations, purged keys, gauges.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Engine, EngineError, RotateSpec};
use crate::keys::ServiceKeys;
use crate::store::{CatalogueWrite, StoreError};
use crate::time::Timestamp;

/// How often the clock is asked.
const TICK: Duration = Duration::from_millis(250);

impl ServiceKeys {
    /// When the next key has to be made, and when it begins: one interval after the newest, made its lead
    /// time earlier. `None`: no schedule.
    pub(super) fn next_rotation(&self, default_lead: Duration) -> Option<(Timestamp, Timestamp)> {
        let every = self.service.rotate_every?;
        let newest = self.keys.last()?;
        let begins = newest.valid_from + every;
        // A lead as long as the interval would make keys without end.
        let lead = self.lead_time(default_lead).min(every / 2);
        Some((begins - lead, begins))
    }
}

impl Engine {
    /// Minds the clock until the shutdown.
    pub async fn run_schedule(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        while !*shutdown.borrow() {
            if let Err(error) = self.tick().await {
                tracing::warn!(%error, "the schedule waits for the store");
            }
            self.show();
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    async fn tick(&self) -> Result<(), EngineError> {
        let now = self.now();
        let lead = self.settings.rules.lead_time;
        let due = |s: &ServiceKeys| {
            s.service.retired.is_none() && s.next_rotation(lead).is_some_and(|(make, _)| make <= now)
        };
        let catalogue = self.catalogue();
        let ids: Vec<_> = catalogue.all().filter(|s| due(s)).map(|s| s.service.id.clone()).collect();
        for id in ids {
            let _changing = self.catalogue_change.lock().await;
            let catalogue = self.catalogue();
            let Some(entry) = catalogue.by_id(&id).filter(|s| due(s)) else { continue };
            let begins = entry.next_rotation(lead).map_or(now, |(_, begins)| begins.max(now));
            let spec = RotateSpec { valid_from: Some(begins), ..RotateSpec::default() };
            let (job, msk_id) = self.rotate_locked(&catalogue, entry, spec).await?;
            tracing::info!(service = %id, %msk_id, %job, valid_from = %begins, "key made by schedule");
        }
        self.purge(now).await?;
        Ok(())
    }

    /// Purges keys that are kept long enough, but never a service's newest, from which numbers go on; and
    /// deleted services with the last of theirs.
    async fn purge(&self, now: Timestamp) -> Result<(), StoreError> {
        let catalogue = self.catalogue();
        let over = |end: Timestamp| end + self.settings.retain <= now;
        let stale = |s: &&Arc<ServiceKeys>| {
            let old_keys = s.keys.iter().rev().skip(1).any(|k| over(k.valid_to));
            old_keys || s.service.retired.is_some_and(over)
        };
        let numbers: Vec<_> = catalogue.all().filter(stale).map(|s| s.service.no).collect();
        for no in numbers {
            let _changing = self.catalogue_change.lock().await;
            let catalogue = self.catalogue();
            let Some(entry) = catalogue.get(no) else { continue };
            if entry.service.retired.is_some_and(over) {
                let write = vec![CatalogueWrite::RemoveService(no)];
                self.write(write, |catalogue| catalogue.remove(no)).await?;
                continue;
            }
            let newest = entry.keys.last().map(|k| k.number);
            let purged = |k: &crate::keys::Msk| over(k.valid_to) && Some(k.number) != newest;
            let (gone, keys): (Vec<_>, Vec<_>) = entry.keys.iter().cloned().partition(|k| purged(k));
            let service = entry.service.clone();
            let writes = gone.iter().map(|k| CatalogueWrite::RemoveKey(no, k.number)).collect();
            self.write(writes, |catalogue| catalogue.insert(ServiceKeys { service, keys })).await?;
        }
        Ok(())
    }

    /// Brings the gauges up to date, also before each scrape.
    pub fn show(&self) {
        let counts = self.store.counts();
        let now = self.now();
        for entry in self.catalogue().services() {
            let members = counts.members.get(&entry.service.no).map_or(0, |m| m.total);
            let expires = entry.current(now).map(|k| k.valid_to.as_secs());
            self.metrics.service(entry.service.id.as_str(), members, expires);
        }
        self.metrics.open(&counts.open);
        for seconds in self.store.take_commit_times() {
            self.metrics.committed(seconds);
        }
    }

    /// Tries the store once a second until the shutdown and tells the latch.
    pub async fn run_probe(
        self: Arc<Self>,
        latch: Arc<std::sync::atomic::AtomicBool>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        while !*shutdown.borrow() {
            let works = self.store.probe().await;
            let before = latch.swap(works.is_ok(), std::sync::atomic::Ordering::Relaxed);
            match works {
                Ok(()) if !before => tracing::info!("the store works"),
                Err(error) if before => {
                    self.metrics.store_failed();
                    tracing::error!(%error, "not ready");
                }
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = shutdown.changed() => {}
            }
        }
    }
}
