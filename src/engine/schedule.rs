//! What time brings by itself: scheduled rotations, purged keys, gauges.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Engine, EngineError, RotateSpec};
use crate::id::ServiceNo;
use crate::keys::ServiceKeys;
use crate::metrics::{ClusterGauges, DiskGauges, LaneGauges, ServiceGauges};
use crate::store::{CatalogueWrite, Counts, DiskUse, Job, JobKind, JobState, Lane, StoreError};
use crate::time::Timestamp;

/// How often the clock is asked.
const TICK: Duration = Duration::from_millis(250);

/// Next keys that are being distributed in their lead time, by service and key number.
type Distributed = HashSet<(ServiceNo, u16)>;

impl ServiceKeys {
    /// When the next key has to be made, and when it begins: one interval after the newest, made and
    /// distributed so long before as [`ServiceKeys::ahead`] says. `None`: no schedule.
    pub(crate) fn next_rotation(&self, default_lead: Duration) -> Option<(Timestamp, Timestamp)> {
        let every = self.service.rotate_every?;
        let newest = self.keys.last()?;
        let begins = newest.valid_from + every;
        Some((begins - self.ahead(default_lead), begins))
    }

    /// The next key and when its lead time began, once it has.
    fn impending(&self, now: Timestamp, default_lead: Duration) -> Option<(u16, Timestamp)> {
        let next = self.next(now).filter(|_| self.service.retired.is_none())?;
        let begun = next.valid_from - self.ahead(default_lead);
        (begun <= now).then_some((next.number, begun))
    }
}

impl Engine {
    /// Minds the clock until the shutdown.
    pub async fn run_schedule(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut distributed = Distributed::new();
        while !*shutdown.borrow() {
            if self.frozen().is_none()
                && let Err(error) = self.tick(&mut distributed).await
            {
                tracing::warn!(%error, "the schedule waits for the store");
            }
            self.show();
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    async fn tick(&self, distributed: &mut Distributed) -> Result<(), EngineError> {
        if !self.store.leads() {
            distributed.clear();
            return Ok(());
        }
        let now = self.now();
        let lead = self.settings.rules.lead_time;
        let due = |s: &ServiceKeys| {
            s.service.retired.is_none() && s.next_rotation(lead).is_some_and(|(make, _)| make <= now)
        };
        let catalogue = self.catalogue();
        let ids: Vec<_> = catalogue.all().filter(|s| due(s)).map(|s| s.service.id.clone()).collect();
        for id in ids {
            let _changing = self.change_catalogue().await?;
            let catalogue = self.catalogue();
            let Some(entry) = catalogue.by_id(&id).filter(|s| due(s)) else { continue };
            let begins = entry.next_rotation(lead).map_or(now, |(_, begins)| begins.max(now));
            let spec = RotateSpec { valid_from: Some(begins), ..RotateSpec::default() };
            let (job, msk_id) = self.rotate_locked(&catalogue, entry, spec).await?;
            distributed.insert((entry.service.no, msk_id.number()));
            tracing::info!(service = %id, %msk_id, %job, valid_from = %begins, "key made by schedule");
        }
        self.distribute_again(now, distributed).await?;
        self.purge(now).await?;
        Ok(())
    }

    /// A key that was made long before its time went to those who were registered then. Once its lead time has
    /// begun a registration brings it; who came between has it brought by another job, so that nobody is
    /// without it when it begins.
    async fn distribute_again(
        &self,
        now: Timestamp,
        distributed: &mut Distributed,
    ) -> Result<(), EngineError> {
        let (catalogue, lead) = (self.catalogue(), self.settings.rules.lead_time);
        let impending = catalogue.all().filter_map(|entry| {
            let (number, begun) = entry.impending(now, lead)?;
            Some(((entry.service.no, number), begun))
        });
        let impending: HashMap<_, _> = impending.collect();
        distributed.retain(|key| impending.contains_key(key));
        if distributed.len() == impending.len() {
            return Ok(());
        }
        let jobs = self.store.jobs(usize::MAX).await?;
        for (key, begun) in impending {
            let (no, number) = key;
            let brings = |job: &Job| {
                let of_this = job.kind == JobKind::KeyUpdate && (job.service, job.number) == key;
                // What its operator holds or has ended is not done behind their back.
                of_this
                    && (job.started >= begun || matches!(job.state, JobState::Paused | JobState::Cancelled))
            };
            if !distributed.contains(&key) && !jobs.iter().any(brings) {
                let members = self.store.counts().members.get(&no).map_or(0, |m| m.total);
                let id = self.store.new_job_id().await?;
                let job = Job::new(id, JobKind::KeyUpdate, no, number, members, now);
                self.write(vec![CatalogueWrite::Job(job)], |_| ()).await?;
                self.jobs.notify_one();
                tracing::info!(job = %id, service = no.0, number, "the key's lead time begins: brought again");
            }
            distributed.insert(key);
        }
        Ok(())
    }

    /// Purges keys that are kept long enough, but never a service's newest, from which numbers go on; and
    /// deleted services with the last of theirs, once nobody is registered for them any more.
    async fn purge(&self, now: Timestamp) -> Result<(), StoreError> {
        let catalogue = self.catalogue();
        let over = |end: Timestamp| end + self.settings.retain <= now;
        // The job that ends the registrations of a deleted service may have been paused for long.
        let members = self.store.counts().members;
        let left =
            |s: &ServiceKeys| s.service.retired.is_some_and(over) && !members.contains_key(&s.service.no);
        let stale = |s: &&Arc<ServiceKeys>| {
            let old_keys = s.keys.iter().rev().skip(1).any(|k| over(k.valid_to));
            old_keys || left(s)
        };
        let numbers: Vec<_> = catalogue.all().filter(stale).map(|s| s.service.no).collect();
        for no in numbers {
            let _changing = self.change_catalogue().await?;
            let catalogue = self.catalogue();
            let Some(entry) = catalogue.get(no) else { continue };
            if left(entry) {
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
            self.show_entry(entry, &counts, now);
        }
        self.metrics.open(&counts.open);
        let lane = |lane| LaneGauges { entries: self.store.due_len(lane), next: self.store.next_due(lane) };
        self.metrics.lanes(lane(Lane::Look), lane(Lane::Sms));
        self.metrics.committed(&self.store.take_commit_times(), now);
        let m = self.store.membership();
        self.metrics.cluster(ClusterGauges {
            alive: m.alive,
            gone: m.gone,
            held: m.held,
            unheld: m.unheld,
            lease_left: m.lease_left.map_or(0.0, |left| left.as_secs_f64()),
            overdue: m.overdue.as_secs_f64(),
            clock_offset: m.clock_offset_ms as f64 / 1000.0,
        });
        self.metrics.ready(self.readiness().iter().all(|(_, works)| works.is_ok()));
    }

    /// Shows a service as it is now.
    pub(super) fn show_entry(&self, entry: &ServiceKeys, counts: &Counts, now: Timestamp) {
        let rotation = entry.next_rotation(self.settings.rules.lead_time);
        let current = entry.current(now);
        let gauges = ServiceGauges {
            terminals: counts.members.get(&entry.service.no).map_or(0, |m| m.total),
            holders: current.map_or(0, |k| self.store.holders(entry.service.no, k.number).total()),
            key_expires: current.map(|k| k.valid_to),
            keys_end: entry.keys.iter().map(|k| k.valid_to).max().filter(|end| *end > now),
            rotation_due: rotation.map(|(make, _)| make),
        };
        self.metrics.service(entry.service.id.as_str(), gauges);
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
            self.metrics.store_up(works.is_ok());
            *self.store_trouble.lock().expect("no holder of this lock panics") =
                works.as_ref().err().map(ToString::to_string);
            // What cannot be told now stays as it was last seen.
            if let Ok(DiskUse { taken, journals, free }) = self.store.disk_use().await {
                self.metrics.store_disk(DiskGauges { taken, journals, free });
            }
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
