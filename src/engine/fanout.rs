//! Fan-out: a key update reaches all registered terminals of its service, page by page, job beside job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

use super::request::recipient;
use super::{Engine, Recipient, failures};
use crate::delivery::Context;
use crate::delivery::{Order, Reason};
use crate::id::JobId;
use crate::store::{Job, JobKind, JobState, Scope, StoreError, View};

/// Terminals in one commit: large enough for one sync to be cheap per terminal, small enough for a
/// registration to wait only a few milliseconds behind it.
const PAGE: usize = 1000;

/// Pages whose LTKMs are being made and sent while the next is committed.
const PAGES_OUT: usize = 4;

/// Jobs looked at; older ones are done or cancelled long since.
const JOBS: usize = 1000;

/// How often jobs that wait for answers are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What one page came to.
struct Page {
    work: Vec<(Recipient, Vec<Order>)>,
    failed: Vec<Reason>,
    visited: usize,
}

impl Engine {
    /// Runs jobs until the shutdown: two take turns page by page. Ends with every page's LTKMs sent.
    pub async fn run_fanout(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let pages = Arc::new(Semaphore::new(PAGES_OUT));
        let mut running: Vec<JobId> = Vec::new();
        let mut scanning: Vec<Job> = Vec::new();
        let mut looked: Option<Instant> = None;
        while !*shutdown.borrow() {
            if scanning.is_empty() || looked.is_none_or(|at| at.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                scanning = self.running_jobs(&mut running).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "fan-out waits for the store");
                    Vec::new()
                });
            }
            let mut going_on = Vec::with_capacity(scanning.len());
            for job in scanning.drain(..) {
                match self.page(&job, &pages).await {
                    Ok(true) => going_on.push(job),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, job = %job.id, "a page waits for the store");
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
            scanning = going_on;
            if scanning.is_empty() {
                tokio::select! {
                    () = self.jobs.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    _ = shutdown.changed() => {}
                }
            }
        }
        let _all_sent = pages.acquire_many(PAGES_OUT as u32).await;
    }

    /// Jobs that still have members to visit; notes those that ended since the last look.
    async fn running_jobs(&self, running: &mut Vec<JobId>) -> Result<Vec<Job>, StoreError> {
        let jobs = self.store.jobs(JOBS).await?;
        for job in jobs.iter().filter(|j| running.contains(&j.id)) {
            if let (JobState::Done, Some(end)) = (job.state, job.finished) {
                self.metrics.fanout_ended(end.since(job.started).as_secs_f64());
                tracing::info!(job = %job.id, terminals = job.states.iter().sum::<u64>(), "fan-out is done");
            }
        }
        let live: Vec<_> = jobs.into_iter().filter(|j| j.state == JobState::Running).collect();
        *running = live.iter().map(|j| j.id).collect();
        self.metrics.fanout_jobs(running.len());
        Ok(live.into_iter().filter(|j| j.cursor.is_some()).collect())
    }

    /// One page: decided and committed, then made and sent beside the next one. `false`: no page is left.
    async fn page(self: &Arc<Self>, job: &Job, pages: &Arc<Semaphore>) -> Result<bool, StoreError> {
        let (limit, pause) = match self.settings.udp_rate {
            Some(rate) => {
                let limit = (rate as usize / 20).clamp(1, PAGE);
                (limit, Duration::from_secs_f64(limit as f64 / f64::from(rate)))
            }
            None => (PAGE, Duration::ZERO),
        };
        let began = Instant::now();
        let (id, kind, service, number) = (job.id, job.kind, job.service, job.number);
        let page = self
            .try_update(Scope::Page(id, limit), move |view, ctx| {
                let Some(entry) = ctx.catalogue.get(service).cloned() else { return Page::empty() };
                decide(view, ctx, |terminal, ctx, orders| match kind {
                    JobKind::KeyUpdate => terminal.update(&entry, number, id, ctx, orders),
                    JobKind::Retire => terminal.leave(&entry, false, ctx, orders),
                })
            })
            .await?;
        let Some(page) = page else { return Ok(false) };
        for reason in page.failed {
            self.metrics.failed(reason, 1);
        }
        tracing::debug!(job = %id, terminals = page.visited, "page committed");
        if !page.work.is_empty() {
            let permit = Arc::clone(pages).acquire_owned().await.expect("the semaphore is never closed");
            let (engine, work) = (Arc::clone(self), page.work);
            tokio::task::spawn_blocking(move || {
                engine.push_all(&work);
                drop(permit);
            });
        }
        tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
        Ok(page.visited == limit)
    }
}

impl Page {
    fn empty() -> Self {
        Self { work: Vec::new(), failed: Vec::new(), visited: 0 }
    }
}

/// Applies a decision to each terminal of a view and gathers what is to be sent.
pub(super) fn decide_all(
    view: &mut View,
    ctx: &mut Context<'_>,
    mut decision: impl FnMut(&mut crate::delivery::Terminal, &mut Context<'_>, &mut Vec<Order>),
) -> (Vec<(Recipient, Vec<Order>)>, Vec<Reason>) {
    let (mut work, mut failed) = (Vec::new(), Vec::new());
    for terminal in &mut view.terminals {
        let mut orders = Vec::new();
        decision(terminal, ctx, &mut orders);
        terminal.prune(ctx.catalogue, ctx.now);
        failed.extend(failures(&terminal.deliveries, ctx.now));
        if !orders.is_empty()
            && let Some(recipient) = recipient(terminal)
        {
            work.push((recipient, orders));
        }
    }
    (work, failed)
}

fn decide(
    view: &mut View,
    ctx: &mut Context<'_>,
    decision: impl FnMut(&mut crate::delivery::Terminal, &mut Context<'_>, &mut Vec<Order>),
) -> Page {
    let visited = view.terminals.len();
    let (work, failed) = decide_all(view, ctx, decision);
    Page { work, failed, visited }
}
