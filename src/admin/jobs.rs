//! Fan-out jobs: how far they are, and the operator's hand on them.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::handlers::carry_out;
use super::problem::{Fault, Problem};
use super::query::{self, PathId, Query};
use super::views::{JobView, Page};
use crate::engine::{Engine, JobAction};
use crate::id::JobId;
use crate::store::JobState;

/// Jobs that a list reads at most: more than are ever remembered.
const ALL: usize = 1 << 20;

/// `GET /v1/jobs`, the newest first
pub(super) async fn list(
    Shared(engine): Shared<Arc<Engine>>,
    mut query: Query,
) -> Result<Answer<Page<JobView>>, Problem> {
    let limit = query.limit()?;
    let after: Option<JobId> = match query.text("after")? {
        None => None,
        Some(text) => match text.parse() {
            Ok(number) => Some(JobId(number)),
            Err(_) => return Err(Fault::new("after", "is no job's number").into()),
        },
    };
    let state = query::word(&mut query, "state", &JobState::ALL, JobState::as_str)?;
    query.finish()?;
    let store = engine.store();
    // Numbers are given out once and rise: so many jobs at most are not older than `after`.
    let newer = match (after, store.jobs(1).await?.first()) {
        (Some(after), Some(newest)) => (newest.id.0 + 1).saturating_sub(after.0),
        _ => 0,
    };
    let unfiltered = usize::try_from(newer).unwrap_or(ALL).saturating_add(limit + 1).min(ALL);
    let jobs = store.jobs(if state.is_some() { ALL } else { unfiltered }).await?;
    let listed = jobs.iter().filter(|job| after.is_none_or(|after| job.id < after));
    let listed = listed.filter(|job| state.is_none_or(|state| job.state == state));
    let page: Vec<_> = listed.take(limit + 1).collect();
    let more = page.len() > limit;
    let page = &page[..page.len().min(limit)];
    let next = page.last().filter(|_| more).map(|job| job.id.to_string());
    let catalogue = engine.catalogue();
    Ok(Answer(Page { items: page.iter().map(|job| JobView::new(job, &catalogue)).collect(), next }))
}

/// `GET /v1/jobs/{id}`
pub(super) async fn show(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Answer<JobView>, Problem> {
    query.finish()?;
    let number: u64 = id.existing()?;
    let job = engine.store().job(JobId(number)).await?;
    let view = job.map(|job| JobView::new(&job, &engine.catalogue()));
    view.map(Answer).ok_or_else(|| Problem::not_found(format!("there is no job {number}")))
}

/// `POST /v1/jobs/{id}/pause`
pub(super) async fn pause(
    engine: Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Response, Problem> {
    act(engine, id, query, JobAction::Pause).await
}

/// `POST /v1/jobs/{id}/resume`
pub(super) async fn resume(
    engine: Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Response, Problem> {
    act(engine, id, query, JobAction::Resume).await
}

/// `POST /v1/jobs/{id}/cancel`
pub(super) async fn cancel(
    engine: Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Response, Problem> {
    act(engine, id, query, JobAction::Cancel).await
}

async fn act(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
    action: JobAction,
) -> Result<Response, Problem> {
    query.finish()?;
    let id = JobId(id.existing()?);
    let job = carry_out(&engine, |engine| async move { engine.act_on_job(id, action).await }).await?;
    Ok((StatusCode::ACCEPTED, Answer(JobView::new(&job, &engine.catalogue()))).into_response())
}
