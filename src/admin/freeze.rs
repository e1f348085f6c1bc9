//! `POST /v1/freeze`, `/v1/thaw`, `/v1/moved`: the write pause in which `ltkmd migrate` moves the store.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Json;
use super::documents;
use super::handlers::carry_out;
use super::problem::Problem;
use super::query::Query;
use crate::engine::Engine;
use crate::store::FreezeOrder;
use crate::time::Timestamp;

/// A write pause.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Freeze)]
pub(super) struct FreezeView {
    /// Whether it began with this call; false: it was prolonged.
    pub(super) begun: bool,
    /// When it ends by itself unless it is prolonged.
    #[schema(value_type = String, format = DateTime)]
    pub(super) until: Timestamp,
}

/// `POST /v1/freeze`
pub(super) async fn freeze(
    Shared(engine): Shared<Arc<Engine>>,
    query: Query,
    body: Json,
) -> Result<Response, Problem> {
    query.finish()?;
    let (by, span, prolong) = documents::freeze(body.required()?)?;
    let until = engine.now() + span;
    let order = FreezeOrder::Freeze { by, span, prolong };
    let begun = carry_out(&engine, |engine| async move { engine.freeze(order).await }).await?;
    Ok((StatusCode::ACCEPTED, Answer(FreezeView { begun, until })).into_response())
}

/// `POST /v1/thaw`
pub(super) async fn thaw(
    Shared(engine): Shared<Arc<Engine>>,
    mut query: Query,
) -> Result<StatusCode, Problem> {
    let back = query.flag("back")?;
    query.finish()?;
    let order = FreezeOrder::Thaw { back };
    carry_out(&engine, |engine| async move { engine.freeze(order).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/moved`
pub(super) async fn moved(
    Shared(engine): Shared<Arc<Engine>>,
    query: Query,
    body: Json,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let (by, to) = documents::moved(body.required()?)?;
    let order = FreezeOrder::Moved { by, to };
    carry_out(&engine, |engine| async move { engine.freeze(order).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
