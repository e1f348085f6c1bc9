//! Fan-out: a key update reaches all registered terminals of its service, page by page, job beside job.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::request::recipient;
use super::{Engine, Recipient, failures};
use crate::delivery::Context;
use crate::delivery::{Order, Reason};
use crate::id::{JobId, Method};
use crate::metrics::JobGauges;
use crate::store::{Job, JobKind, JobState, Scope, StoreError, View};

/// Terminals in one commit: large enough for one sync to be cheap per terminal, small enough for a
/// registration to wait only a few milliseconds behind it.
const PAGE: usize = 1000;

/// Pages whose LTKMs are being made and sent while the next is committed.
const PAGES_OUT: usize = 4;

/// How often jobs are looked at, besides when one is made or its operator changes it.
const LOOK: Duration = Duration::from_millis(250);

/// What one page came to.
struct Page {
    work: Vec<(Recipient, Vec<Order>)>,
    failed: Vec<Reason>,
    visited: usize,
    /// Whether more members are to be visited behind these.
    more: bool,
}

/// Whose turn it is. Every job with pages ahead has one page, then the next job has one.
#[derive(Default)]
struct Turns {
    /// Jobs with pages ahead, the next first.
    queue: VecDeque<Job>,
    /// Jobs that were not over when they were last looked at.
    live: BTreeSet<JobId>,
    /// When that was.
    looked: Option<Instant>,
    /// The span of each live job, from when it was first seen here to its end.
    spans: BTreeMap<JobId, Span>,
}

impl Turns {
    /// Takes over what the store knows: who is in the queue keeps the place, who is new comes behind them.
    /// Gives those that were live and are open no more.
    fn update(&mut self, open: Vec<Job>) -> Vec<JobId> {
        let known: BTreeSet<JobId> = self.queue.iter().map(|job| job.id).collect();
        let paged: BTreeSet<JobId> = open.iter().filter(|job| job.has_page()).map(|job| job.id).collect();
        self.queue.retain(|job| paged.contains(&job.id));
        let live = open.iter().filter(|job| !job.state.is_over()).map(|job| job.id).collect();
        let before = std::mem::replace(&mut self.live, live);
        self.queue.extend(open.into_iter().filter(|job| paged.contains(&job.id) && !known.contains(&job.id)));
        before.difference(&self.live).copied().collect()
    }

    /// A page of the job has ended: with more behind it the job waits for its next turn.
    fn visited(&mut self, job: Job, more: bool) {
        let waits = self.queue.iter().position(|waiting| waiting.id == job.id);
        match (more, waits) {
            (true, None) => self.queue.push_back(job),
            (false, Some(at)) => drop(self.queue.remove(at)),
            _ => {}
        }
    }
}

impl Engine {
    /// Runs jobs until the shutdown: they take turns page by page. Ends with every page's LTKMs sent.
    pub async fn run_fanout(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let pages = Arc::new(Semaphore::new(PAGES_OUT));
        let mut turns = Turns::default();
        // A rate is kept by waiting within a page.
        let at_once = if self.settings.udp_rate.is_some() { 1 } else { self.store.pages_at_once() };
        let mut running = JoinSet::new();
        while !*shutdown.borrow() {
            if self.rests(&mut shutdown).await {
                continue;
            }
            let rung = tokio::select! {
                biased;
                () = self.jobs.notified() => true,
                () = std::future::ready(()) => false,
            };
            let idle = turns.queue.is_empty() && running.is_empty();
            if rung || idle || turns.looked.is_none_or(|at| at.elapsed() >= LOOK) {
                turns.looked = Some(Instant::now());
                if let Err(error) = self.look_at_jobs(&mut turns).await {
                    tracing::warn!(%error, "fan-out waits for the store");
                    turns.queue.clear();
                }
            }
            while running.len() < at_once
                && let Some(job) = turns.queue.pop_front()
            {
                let span = turns.spans.get(&job.id).cloned().unwrap_or_else(Span::none);
                if at_once > 1 {
                    // Its next page may be decided beside this one.
                    turns.queue.push_back(job.clone());
                }
                let (engine, pages) = (Arc::clone(&self), Arc::clone(&pages));
                running.spawn(async move { (engine.page(&job, &pages).instrument(span).await, job) });
            }
            let Some(ended) = running.join_next().await else {
                tokio::select! {
                    () = self.jobs.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    _ = shutdown.changed() => {}
                }
                // Whatever woke it: with an empty queue the next thing is a look.
                continue;
            };
            match ended {
                Ok((Ok(more), job)) => turns.visited(job, more),
                Ok((Err(StoreError::Moved), job)) => turns.visited(job, false),
                Ok((Err(error), job)) => {
                    tracing::warn!(%error, job = %job.id, "a page waits for the store");
                    turns.visited(job, false);
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => tracing::error!(%error, "a page broke"),
            }
        }
        while running.join_next().await.is_some() {}
        let _all_sent = pages.acquire_many(PAGES_OUT as u32).await;
    }

    /// Reads which jobs have something left to do; tells of those that are over since the last look.
    async fn look_at_jobs(&self, turns: &mut Turns) -> Result<(), StoreError> {
        let mut open = self.store.open_jobs().await?;
        if self.catalogue_change.try_lock().is_err() {
            // A job is written with its key, and decisions see the key a moment later: until then it has no turn.
            let catalogue = self.catalogue();
            let has_key = |job: &Job| catalogue.get(job.service).is_some_and(|s| s.key(job.number).is_some());
            open.retain(|job| job.kind == JobKind::Retire || has_key(job));
        }
        let visiting = || open.iter().filter(|job| job.has_page());
        self.metrics.fanout_jobs(JobGauges {
            running: open.iter().filter(|job| job.state == JobState::Running).count(),
            visiting: visiting().count(),
            oldest: visiting().map(|job| job.started).min(),
        });
        for job in open.iter().filter(|job| !job.state.is_over()) {
            turns.spans.entry(job.id).or_insert_with(|| self.job_span(job));
        }
        for id in turns.update(open) {
            let span = turns.spans.remove(&id).unwrap_or_else(Span::none);
            let Some(job) = self.store.job(id).await? else { continue };
            let Some(end) = job.finished else { continue };
            let (terminals, visited) = (job.progress().iter().sum::<u64>(), job.visited());
            let took = end.since(job.started);
            span.record("status", job.state.as_str()).record("took_ms", took.as_millis() as u64);
            if job.state == JobState::Done {
                self.metrics.fanout_ended(took.as_secs_f64());
                span.in_scope(|| tracing::info!(terminals, "fan-out is done"));
            } else {
                span.in_scope(|| tracing::info!(terminals, visited, "fan-out was cancelled"));
            }
        }
        Ok(())
    }

    /// What the lines about a job have in common.
    fn job_span(&self, job: &Job) -> Span {
        let catalogue = self.catalogue();
        let service = catalogue.get(job.service).map(|entry| &entry.service);
        tracing::info_span!(
            "job",
            job = %job.id,
            service = service.map(|service| display(&service.id)),
            msk_id = service.map(|service| display(service.msk_id(job.number))),
            status = Empty,
            took_ms = Empty
        )
    }

    /// One page: decided and committed, then made and sent beside the next one. `false`: no page is left.
    async fn page(self: &Arc<Self>, job: &Job, pages: &Arc<Semaphore>) -> Result<bool, StoreError> {
        let rate = self.settings.udp_rate;
        let limit = rate.map_or(PAGE, |rate| (rate as usize / 20).clamp(1, PAGE));
        let began = Instant::now();
        let (id, kind, service, number) = (job.id, job.kind, job.service, job.number);
        let page = self
            .try_update(Scope::Page(id, limit), move |view, ctx| {
                // Its operator may have changed it since it was looked at.
                if view.job.as_ref().is_some_and(|job| job.state == JobState::Cancelled) {
                    return decide(view, ctx, |terminal, ctx, _| terminal.cancel_job(id, ctx.now));
                }
                let Some(entry) = ctx.catalogue.get(service).cloned() else {
                    return Page { visited: view.terminals.len(), more: view.more, ..Page::empty() };
                };
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
        self.metrics.fanout_visited(page.visited);
        tracing::debug!(terminals = page.visited, "page committed");
        let orders = page.work.iter().flat_map(|(_, orders)| orders);
        let datagrams = orders.filter(|order| order.via == Method::Udp).count();
        if !page.work.is_empty() {
            let permit = Arc::clone(pages).acquire_owned().await.expect("the semaphore is never closed");
            let (engine, work) = (Arc::clone(self), page.work);
            tokio::task::spawn_blocking(move || {
                engine.push_held(&work);
                drop(permit);
            });
        }
        // A page costs as much of `udp.rate` as it sent: who waits for requests or has left costs nothing.
        if let Some(rate) = rate {
            let turn = Duration::from_secs_f64(datagrams as f64 / f64::from(rate));
            tokio::time::sleep(turn.saturating_sub(began.elapsed())).await;
        }
        Ok(page.more)
    }
}

impl Page {
    fn empty() -> Self {
        Self { work: Vec::new(), failed: Vec::new(), visited: 0, more: false }
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
    let (visited, more) = (view.terminals.len(), view.more);
    let (work, failed) = decide_all(view, ctx, decision);
    Page { work, failed, visited, more }
}
