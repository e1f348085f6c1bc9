//! Services and their keys.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json as Answer};

use super::auth::Caller;
use super::body::Json;
use super::documents;
use super::handlers::{carry_out, put_status};
use super::problem::Problem;
use super::query::{PathId, Query};
use super::trail::Named;
use super::views::{Entry, Key, Page, Rotation, Service};
use crate::engine::Engine;
use crate::id::ServiceId;
use crate::keys::ServiceKeys;
use crate::store::Holders;
use crate::time::Timestamp;

fn unknown(id: &ServiceId) -> Problem {
    Problem::not_found(format!("there is no service {id}"))
}

fn find(engine: &Engine, id: &ServiceId) -> Result<Entry, Problem> {
    engine.catalogue().by_id(id).cloned().ok_or_else(|| unknown(id))
}

fn view(engine: &Engine, entry: &Entry) -> Service {
    let members = engine.store().counts().members.get(&entry.service.no).copied().unwrap_or_default();
    let now = engine.now();
    Service::new(entry, members, holders(engine, entry, now), now)
}

/// Who holds the current key.
pub(super) fn holders(engine: &Engine, entry: &ServiceKeys, now: Timestamp) -> Holders {
    let current = entry.current(now);
    current.map_or_else(Holders::default, |key| engine.store().holders(entry.service.no, key.number))
}

/// `PUT /v1/services/{service_id}`
pub(super) async fn put(
    State(engine): State<Arc<Engine>>,
    id: PathId,
    query: Query,
    body: Json,
) -> Result<Response, Problem> {
    query.finish()?;
    let id: ServiceId = id.given()?;
    let spec = documents::service(body.required()?, id.clone())?;
    let put = carry_out(&engine, |engine| async move { engine.put_service(spec).await }).await?;
    let entry = find(&engine, &id)?;
    Ok((put_status(put), Answer(view(&engine, &entry))).into_response())
}

/// `GET /v1/services/{service_id}`
pub(super) async fn show(
    State(engine): State<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Answer<Service>, Problem> {
    query.finish()?;
    let entry = find(&engine, &id.existing()?)?;
    Ok(Answer(view(&engine, &entry)))
}

/// `GET /v1/services`
pub(super) async fn list(
    State(engine): State<Arc<Engine>>,
    mut query: Query,
) -> Result<Answer<Page<Service>>, Problem> {
    let limit = query.limit()?;
    let after: Option<ServiceId> = query.parsed("after")?;
    query.finish()?;
    let (catalogue, counts, now) = (engine.catalogue(), engine.store().counts(), engine.now());
    let services = catalogue.services();
    let start = after.map_or(0, |after| services.partition_point(|entry| entry.service.id <= after));
    let page = services.iter().skip(start).take(limit);
    let items: Vec<_> = page
        .map(|entry| {
            let members = counts.members.get(&entry.service.no).copied().unwrap_or_default();
            Service::new(entry, members, holders(&engine, entry, now), now)
        })
        .collect();
    let end = start + items.len();
    let next = (end < services.len()).then(|| services[end - 1].service.id.to_string());
    Ok(Answer(Page { items, next }))
}

/// `DELETE /v1/services/{service_id}`
pub(super) async fn delete(
    State(engine): State<Arc<Engine>>,
    id: PathId,
    mut query: Query,
) -> Result<StatusCode, Problem> {
    let force = query.flag("force")?;
    query.finish()?;
    let id: ServiceId = id.existing()?;
    carry_out(&engine, |engine| async move { engine.delete_service(&id, force).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/services/{service_id}/rotate`
pub(super) async fn rotate(
    State(engine): State<Arc<Engine>>,
    id: PathId,
    query: Query,
    body: Json,
) -> Result<Response, Problem> {
    query.finish()?;
    let id: ServiceId = id.existing()?;
    let spec = documents::rotate(body.optional())?;
    let (job, msk_id) = carry_out(&engine, |engine| async move { engine.rotate(&id, spec).await }).await?;
    let rotation = Rotation { job: job.0, msk_id: msk_id.to_string() };
    let named = Named::new([("job", vec![job.to_string()]), ("msk_ids", vec![rotation.msk_id.clone()])]);
    let location = [(LOCATION, format!("/v1/jobs/{job}"))];
    Ok((StatusCode::ACCEPTED, location, named, Answer(rotation)).into_response())
}

/// `GET /v1/services/{service_id}/keys`
pub(super) async fn keys(
    State(engine): State<Arc<Engine>>,
    Extension(caller): Extension<Caller>,
    id: PathId,
    mut query: Query,
) -> Result<(Named, Answer<Page<Key>>), Problem> {
    let secrets = query.flag("secrets")?;
    caller.may_read_keys(secrets)?;
    let limit = query.limit()?;
    let after = query.text("after")?;
    query.finish()?;
    let entry = find(&engine, &id.existing()?)?;
    let now = engine.now();
    let msk_id = |number| entry.service.msk_id(number).to_string();
    let start = match &after {
        None => 0,
        Some(after) => match entry.keys.iter().position(|k| msk_id(k.number) == *after) {
            Some(place) => place + 1,
            None => {
                return Err(super::problem::Fault::new("after", "is no MSK ID of a key that is kept").into());
            }
        },
    };
    let items: Vec<_> =
        entry.keys.iter().skip(start).take(limit).map(|key| Key::new(&entry, key, secrets, now)).collect();
    let end = start + items.len();
    let next = (end < entry.keys.len() && end > 0).then(|| msk_id(entry.keys[end - 1].number));
    let read = entry.keys[start..end].iter().map(|key| msk_id(key.number)).collect();
    let named = Named::new([("service", vec![entry.service.id.to_string()]), ("msk_ids", read)]);
    Ok((named, Answer(Page { items, next })))
}
