//! Subscribers, credentials, terminals, deliveries, and how the daemon is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State as Shared;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::body::Json;
use super::documents;
use super::problem::{Fault, Problem};
use super::query::{self, PathId, Query};
use super::trail::Named;
use super::views::{CredentialView, DeliveryView, Health, Page, Status, SubscriberView, TerminalView};
use crate::delivery::State;
use crate::engine::{Engine, EngineError, Put};
use crate::id::{BTid, Method, MethodSet, ServiceId, ServiceNo, SubscriberId, TerminalKey};
use crate::keys::Catalogue;
use crate::metrics::Format;
use crate::store::{Counts, DeliveryFilter, JobState, Members, TerminalFilter};

/// 201 or 200.
pub(super) fn put_status(put: Put) -> StatusCode {
    match put {
        Put::Created => StatusCode::CREATED,
        Put::Updated => StatusCode::OK,
    }
}

/// Runs a change to its end, also when the caller hangs up in the middle.
pub(super) async fn carry_out<T, F>(
    engine: &Arc<Engine>,
    change: impl FnOnce(Arc<Engine>) -> F,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, EngineError>> + Send + 'static,
{
    let done = tokio::spawn(change(Arc::clone(engine))).await;
    let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the daemon broke off this change");
    done.map_err(broken)?.map_err(Problem::from)
}

/// `PUT /v1/subscribers/{id}`
pub(super) async fn put_subscriber(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
    body: Json,
) -> Result<Response, Problem> {
    query.finish()?;
    let subscriber = documents::subscriber(body.required()?, id.given()?)?;
    let id = subscriber.id.clone();
    let put = carry_out(&engine, |engine| async move { engine.put_subscriber(subscriber).await }).await?;
    let view = subscriber_view(&engine, &id).await?;
    Ok((put_status(put), Answer(view)).into_response())
}

/// `GET /v1/subscribers/{id}`
pub(super) async fn show_subscriber(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Answer<SubscriberView>, Problem> {
    query.finish()?;
    subscriber_view(&engine, &id.existing()?).await.map(Answer)
}

async fn subscriber_view(engine: &Engine, id: &SubscriberId) -> Result<SubscriberView, Problem> {
    let found = engine.store().subscriber(id).await?;
    let (subscriber, credentials) =
        found.ok_or_else(|| Problem::not_found(format!("there is no subscriber {id}")))?;
    Ok(SubscriberView::new(&subscriber, &credentials))
}

/// `DELETE /v1/subscribers/{id}`
pub(super) async fn delete_subscriber(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let id: SubscriberId = id.existing()?;
    carry_out(&engine, |engine| async move { engine.delete_subscriber(&id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/credentials/{btid}`
pub(super) async fn put_credential(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
    body: Json,
) -> Result<Response, Problem> {
    query.finish()?;
    let spec = documents::credential(body.required()?, id.given()?)?;
    let btid = spec.btid.clone();
    let named = Named::new([("subscriber", vec![spec.subscriber.to_string()])]);
    let put = carry_out(&engine, |engine| async move { engine.put_credential(spec).await }).await?;
    let view = credential_view(&engine, &btid).await?;
    Ok((put_status(put), named, Answer(view)).into_response())
}

/// `GET /v1/credentials/{btid}`
pub(super) async fn show_credential(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Answer<CredentialView>, Problem> {
    query.finish()?;
    credential_view(&engine, &id.existing()?).await.map(Answer)
}

async fn credential_view(engine: &Engine, btid: &BTid) -> Result<CredentialView, Problem> {
    let terminal = engine.store().terminal(btid).await?;
    let view = terminal.and_then(|t| Some(CredentialView::new(t.credential.as_ref()?, t.next_t)));
    view.ok_or_else(|| Problem::not_found(format!("there is no credential {btid}")))
}

/// `DELETE /v1/credentials/{btid}`
pub(super) async fn delete_credential(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let btid: BTid = id.existing()?;
    carry_out(&engine, |engine| async move { engine.delete_credential(&btid).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A filter's service. Retired ones count where deliveries of theirs may still be under way.
fn service_filter(
    query: &mut Query,
    catalogue: &Catalogue,
    retired: bool,
) -> Result<Option<ServiceNo>, Fault> {
    let Some(id) = query.parsed::<ServiceId>("service")? else { return Ok(None) };
    let gone = || catalogue.all().filter(|e| retired && e.service.id == id).last();
    match catalogue.by_id(&id).or_else(gone) {
        Some(entry) => Ok(Some(entry.service.no)),
        None => Err(Fault::new("service", "is no service that exists")),
    }
}

/// `GET /v1/terminals`
pub(super) async fn list_terminals(
    Shared(engine): Shared<Arc<Engine>>,
    mut query: Query,
) -> Result<Answer<Page<TerminalView>>, Problem> {
    let catalogue = engine.catalogue();
    let limit = query.limit()?;
    let after: Option<BTid> = query.parsed("after")?;
    let service = service_filter(&mut query, &catalogue, false)?;
    let method = query::word(&mut query, "method", &Method::ALL, Method::as_str)?;
    query.finish()?;
    let filter = TerminalFilter { service, methods: method.into_iter().collect::<MethodSet>() };
    let store = engine.store();
    let after = after.map(|btid| store.terminal_key(&btid));
    let mut terminals = store.list_terminals(filter, after, limit + 1).await?;
    let more = terminals.len() > limit;
    terminals.truncate(limit);
    let preference = &engine.rules().preference;
    let items: Vec<_> =
        terminals.iter().filter_map(|t| TerminalView::new(t, &catalogue, preference)).collect();
    let last = terminals.last().filter(|_| more).and_then(|t| t.credential.as_ref());
    let next = last.map(|credential| credential.btid.to_string());
    Ok(Answer(Page { items, next }))
}

/// `GET /v1/terminals/{btid}`
pub(super) async fn show_terminal(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
) -> Result<Answer<TerminalView>, Problem> {
    query.finish()?;
    let btid: BTid = id.existing()?;
    let terminal = engine.store().terminal(&btid).await?;
    let (catalogue, preference) = (engine.catalogue(), &engine.rules().preference);
    let view = terminal.and_then(|t| TerminalView::new(&t, &catalogue, preference));
    view.map(Answer).ok_or_else(|| Problem::not_found(format!("no terminal {btid} has registered")))
}

/// `POST /v1/terminals/{btid}/trigger`
pub(super) async fn trigger(
    Shared(engine): Shared<Arc<Engine>>,
    id: PathId,
    query: Query,
    body: Json,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let btid: BTid = id.existing()?;
    let what = documents::trigger(body.required()?)?;
    carry_out(&engine, |engine| async move { engine.trigger(&btid, what).await }).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Octets of a place in the list of deliveries: a terminal's key and a place among its deliveries.
const DELIVERY_PLACE: usize = 16 + 4;

/// `GET /v1/deliveries`
pub(super) async fn list_deliveries(
    Shared(engine): Shared<Arc<Engine>>,
    mut query: Query,
) -> Result<Answer<Page<DeliveryView>>, Problem> {
    let catalogue = engine.catalogue();
    let limit = query.limit()?;
    let after = query::place::<DELIVERY_PLACE>(&mut query)?.map(|octets| {
        let (key, place) = octets.split_at(16);
        let key = TerminalKey(key.try_into().expect("the first 16 of 20"));
        (key, u32::from_be_bytes(place.try_into().expect("the last 4 of 20")))
    });
    let state = query::word(&mut query, "state", &State::ALL, State::as_str)?;
    let service = service_filter(&mut query, &catalogue, true)?;
    let terminal = query.parsed("terminal")?;
    query.finish()?;
    let filter = DeliveryFilter { state, service, terminal };
    let mut found = engine.store().list_deliveries(filter, after, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more).map(|(_, _, cursor)| *cursor);
    let next = last.map(|(key, place)| {
        let octets = [key.0.as_slice(), &place.to_be_bytes()].concat();
        data_encoding::HEXLOWER.encode(&octets)
    });
    let items = found.iter().map(|(btid, d, (key, _))| DeliveryView::new(*key, btid, d, &catalogue));
    Ok(Answer(Page { items: items.collect(), next }))
}

/// What has to work, each `ok` or what is wrong; and whether all is well.
pub(super) fn checks(engine: &Engine) -> (bool, BTreeMap<&'static str, String>) {
    let all = engine.readiness();
    let ready = all.iter().all(|(_, result)| result.is_ok());
    let told = |result: Result<(), String>| result.err().unwrap_or_else(|| "ok".to_owned());
    (ready, all.into_iter().map(|(name, result)| (name, told(result))).collect())
}

/// All registrations: a terminal counts once for each of its services.
pub(super) fn registrations(counts: &Counts) -> Members {
    counts.members.values().fold(Members::default(), |sum, m| Members {
        udp: sum.udp + m.udp,
        http: sum.http + m.http,
        sms: sum.sms + m.sms,
        total: sum.total + m.total,
    })
}

/// `GET /v1/status`
pub(super) async fn status(
    Shared(engine): Shared<Arc<Engine>>,
    query: Query,
) -> Result<Answer<Status>, Problem> {
    query.finish()?;
    let (ready, mut checks) = checks(&engine);
    if let (Some(why), Some(check)) = (engine.store_trouble(), checks.get_mut("store")) {
        *check = why;
    }
    let store = engine.store();
    let (counts, jobs) = (store.counts(), store.open_jobs().await?);
    let open = State::ALL.into_iter().filter(|state| state.is_open());
    Ok(Answer(Status {
        version: env!("CARGO_PKG_VERSION"),
        now: engine.now(),
        ready,
        checks,
        services: engine.catalogue().services().len(),
        registrations: registrations(&counts).into(),
        deliveries_open: open.map(|s| (s.as_str(), counts.open[s as usize])).collect(),
        jobs_running: jobs.iter().filter(|job| job.state == JobState::Running).count(),
        jobs_paused: jobs.iter().filter(|job| job.state == JobState::Paused).count(),
    }))
}

/// `GET /healthz`
pub(super) async fn health() -> Answer<Health> {
    Answer(Health { status: "ok", checks: BTreeMap::new() })
}

/// `GET /readyz`
pub(super) async fn ready(Shared(engine): Shared<Arc<Engine>>) -> Result<Answer<Health>, Problem> {
    let (ready, checks) = checks(&engine);
    if ready {
        return Ok(Answer(Health { status: "ok", checks }));
    }
    let wrong = checks.iter().filter(|(_, told)| *told != "ok");
    let wrong: Vec<_> = wrong.map(|(name, told)| format!("{name}: {told}")).collect();
    Err(Problem::unavailable(format!("not ready: {}", wrong.join("; "))))
}

/// `GET /metrics`
pub(super) async fn metrics(Shared(engine): Shared<Arc<Engine>>, headers: HeaderMap) -> Response {
    let accepts = |v: &axum::http::HeaderValue| {
        v.to_str().is_ok_and(|text| text.contains("application/openmetrics-text"))
    };
    let format = match headers.get_all(ACCEPT).iter().any(accepts) {
        true => Format::OpenMetrics,
        false => Format::Plain,
    };
    engine.show();
    ([(CONTENT_TYPE, format.media_type())], engine.metrics().encode_as(format)).into_response()
}
