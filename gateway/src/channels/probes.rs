//! What load balancers ask, without a key: is it alive, is it ready.

use axum::extract::State;
use common::readiness::Readiness;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    openapi::{answers::passing, step::Step},
    respond::Json,
    state::AppState,
};

#[derive(Serialize, ToSchema)]
struct Status {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Whether this process lives.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "livez",
    tag = "probes",
    responses((status = 200, description = "It does.", body = Status, example = json!({ "status": "ok" }))),
)]
async fn livez() -> Json<Status> {
    Json(Status { status: "ok" })
}

/// Whether this process can serve now.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "probes",
    responses((status = 200, description = "It can.", body = Status, example = json!({ "status": "ready" }))),
)]
async fn readyz(State(readiness): State<Readiness>) -> Result<Json<Status>, ApiError> {
    let reasons = readiness.reasons().await;
    if reasons.is_empty() { Ok(Json(Status { status: "ready" })) } else { Err(ApiError::NotReady(reasons)) }
}

/// The routes of the probes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(passing(&[], routes!(livez))).routes(passing(&[Step::Readiness], routes!(readyz)))
}
