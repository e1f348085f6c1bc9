//! What the page shows: aggregates, open to everybody who reaches the listener, like the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State as Shared;
use serde::Serialize;
use utoipa::ToSchema;

use super::handlers::{checks, registrations};
use super::problem::Problem;
use super::query::Query;
use super::services;
use super::views::{Holding, JobView, Page, Registered};
use crate::delivery::{Reason, State};
use crate::engine::Engine;
use crate::id::{Method, ServiceId};
use crate::keys::{KeyState, ServiceKeys};
use crate::metrics::Minute;
use crate::store::{Counts, Lane};
use crate::time::Timestamp;

/// Jobs in an overview, at most: the newest that are open.
pub(super) const JOBS: usize = 50;

/// How the daemon is now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Overview {
    /// The daemon's version.
    version: &'static str,
    /// Its name in LTKMs.
    fqdn: String,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    started: Timestamp,
    /// Its clock.
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
    /// Whether the store and all listeners work.
    ready: bool,
    /// Each of them: `ok`, or what is wrong.
    checks: BTreeMap<&'static str, String>,
    /// Services.
    services: usize,
    /// Registrations by method: a terminal counts once for each of its services.
    registrations: Registered,
    /// Deliveries by open state.
    deliveries_open: BTreeMap<&'static str, u64>,
    /// The newest 50 jobs that have something left to do, the newest first; null: the store does not tell.
    jobs: Option<Vec<JobView>>,
    /// All jobs that have something left to do.
    jobs_open: usize,
    /// The short message centre.
    sms: Smsc,
    /// The store.
    store: StoreHealth,
}

/// How it is about short messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Smsc {
    /// Whether triggers are sent by SMS at all.
    enabled: bool,
    /// Whether a centre is bound that takes messages.
    up: bool,
    /// Submissions without an answer.
    in_flight: u64,
    /// Turns by SMS that are waited for.
    turns: usize,
}

/// How the store is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoreHealth {
    /// Whether it writes.
    up: bool,
    /// Its calls that failed since the daemon's start.
    errors: u64,
    /// The latest durable commit since the daemon's start.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_commit: Option<Timestamp>,
    /// What it takes of its disk, in octets.
    taken: u64,
    /// What is free there, in octets; `null`: the store cannot tell.
    free: Option<u64>,
}

/// A service's current key and who holds it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Coverage {
    /// The service's id.
    id: String,
    /// The current key's MSK ID, 8 hexadecimal digits; null: no key is valid now.
    msk_id: Option<String>,
    /// The first moment of its validity.
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_from: Option<Timestamp>,
    /// The first moment after its validity.
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_to: Option<Timestamp>,
    /// Terminals registered for the service.
    terminals: Registered,
    /// Those of them that hold the current key.
    holders: Holding,
    /// The key that is valid next, once it is made.
    next: Option<NextKey>,
    /// When the schedule makes the next key; null: it makes none, or none more.
    #[schema(value_type = Option<String>, format = DateTime)]
    rotation_due: Option<Timestamp>,
}

/// A key that becomes valid.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NextKey {
    /// Its MSK ID, 8 hexadecimal digits.
    msk_id: String,
    /// The first moment of its validity.
    #[schema(value_type = String, format = DateTime)]
    valid_from: Timestamp,
    /// Registered terminals that hold it already.
    holders: Holding,
}

/// What became of deliveries in the last hour. In memory alone: a restart begins anew.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Hour {
    /// The daemon's start: nothing from before it is known.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The daemon's clock.
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
    /// The minutes in which something happened, the oldest first; the last may still run.
    minutes: Vec<MinuteView>,
}

/// What became of deliveries in a minute.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Minute)]
pub(super) struct MinuteView {
    /// Its first moment.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// LTKMs sent, by method, resends and triggers included.
    sent: BTreeMap<&'static str, u64>,
    /// Deliveries verified, by the method that the LTKM went by.
    verified: BTreeMap<&'static str, u64>,
    /// Deliveries that failed, by reason; reasons without one are left out.
    failed: BTreeMap<&'static str, u64>,
    /// What half of the verified deliveries took at most, from queued to verified, in milliseconds (to a quarter).
    p50_ms: Option<u64>,
    /// The same for 95 per cent.
    p95_ms: Option<u64>,
    /// The longest commit of the store, in milliseconds.
    commit_ms: Option<u64>,
}

impl From<Minute> for MinuteView {
    fn from(m: Minute) -> Self {
        let by_method = |counts: [u64; Method::ALL.len()]| {
            Method::ALL.into_iter().map(|method| (method.as_str(), counts[method as usize])).collect()
        };
        let failed = Reason::ALL.into_iter().zip(m.failed).filter(|(_, n)| *n > 0);
        let ms = |took: std::time::Duration| took.as_millis().try_into().unwrap_or(u64::MAX);
        Self {
            at: m.at,
            sent: by_method(m.sent),
            verified: by_method(m.verified),
            failed: failed.map(|(reason, n)| (reason.as_str(), n)).collect(),
            p50_ms: m.took(50).map(ms),
            p95_ms: m.took(95).map(ms),
            commit_ms: m.commit.map(ms),
        }
    }
}

impl Overview {
    /// How the daemon is at this moment.
    pub(super) async fn new(engine: &Engine) -> Self {
        let (ready, checks) = checks(engine);
        let (store, glance, catalogue) = (engine.store(), engine.metrics().glance(), engine.catalogue());
        let counts = store.counts();
        let jobs = store.open_jobs().await.ok();
        let jobs_open = jobs.as_ref().map_or(0, Vec::len);
        let newest = |jobs: Vec<crate::store::Job>| {
            jobs.iter().rev().take(JOBS).map(|job| JobView::new(job, &catalogue)).collect()
        };
        let open = State::ALL.into_iter().filter(|state| state.is_open());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            fqdn: engine.fqdn().to_owned(),
            started: glance.start,
            now: engine.now(),
            ready,
            checks,
            services: catalogue.services().len(),
            registrations: registrations(&counts).into(),
            deliveries_open: open.map(|s| (s.as_str(), counts.open[s as usize])).collect(),
            jobs: jobs.map(newest),
            jobs_open,
            sms: Smsc {
                enabled: glance.sms_enabled,
                up: glance.smsc_up,
                in_flight: glance.sms_in_flight,
                turns: store.due_len(Lane::Sms),
            },
            store: StoreHealth {
                up: glance.store_up,
                errors: glance.store_errors,
                last_commit: glance.store_last_commit,
                taken: glance.store_taken,
                free: glance.store_free,
            },
        }
    }
}

impl Coverage {
    fn new(engine: &Engine, entry: &ServiceKeys, counts: &Counts, now: Timestamp) -> Self {
        let no = entry.service.no;
        let current = entry.current(now);
        let next = entry.keys.iter().find(|key| entry.state(key, now) == KeyState::Next);
        Self {
            id: entry.service.id.to_string(),
            msk_id: current.map(|key| entry.service.msk_id(key.number).to_string()),
            valid_from: current.map(|key| key.valid_from),
            valid_to: current.map(|key| key.valid_to),
            terminals: counts.members.get(&no).copied().unwrap_or_default().into(),
            holders: services::holders(engine, entry, now).into(),
            next: next.map(|key| NextKey {
                msk_id: entry.service.msk_id(key.number).to_string(),
                valid_from: key.valid_from,
                holders: engine.store().holders(no, key.number).into(),
            }),
            rotation_due: entry.next_rotation(engine.rules().lead_time).map(|(make, _)| make),
        }
    }
}

/// `GET /status/overview`
pub(super) async fn overview(Shared(engine): Shared<Arc<Engine>>) -> Answer<Overview> {
    Answer(Overview::new(&engine).await)
}

/// `GET /status/services`
pub(super) async fn coverage(
    Shared(engine): Shared<Arc<Engine>>,
    mut query: Query,
) -> Result<Answer<Page<Coverage>>, Problem> {
    let limit = query.limit()?;
    let after: Option<ServiceId> = query.parsed("after")?;
    query.finish()?;
    let (catalogue, counts, now) = (engine.catalogue(), engine.store().counts(), engine.now());
    let services = catalogue.services();
    let start = after.map_or(0, |after| services.partition_point(|entry| entry.service.id <= after));
    let page = services.iter().skip(start).take(limit);
    let items: Vec<_> = page.map(|entry| Coverage::new(&engine, entry, &counts, now)).collect();
    let end = start + items.len();
    let next = (end < services.len()).then(|| services[end - 1].service.id.to_string());
    Ok(Answer(Page { items, next }))
}

/// `GET /status/hour`
pub(super) async fn hour(Shared(engine): Shared<Arc<Engine>>) -> Answer<Hour> {
    let (metrics, now) = (engine.metrics(), engine.now());
    // What the store has measured meanwhile.
    metrics.committed(&engine.store().take_commit_times(), now);
    let minutes = metrics.minutes(now).into_iter().map(MinuteView::from).collect();
    Answer(Hour { since: metrics.glance().start, now, minutes })
}
