//! What load balancers ask, without a key: is it alive, is it ready.

use axum::{Router, extract::State, routing::get};
use common::readiness::Readiness;
use serde::Serialize;

use crate::{error::ApiError, respond::Json, state::AppState};

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

async fn livez() -> Json<Status> {
    Json(Status { status: "ok" })
}

async fn readyz(State(readiness): State<Readiness>) -> Result<Json<Status>, ApiError> {
    let reasons = readiness.reasons().await;
    if reasons.is_empty() { Ok(Json(Status { status: "ready" })) } else { Err(ApiError::NotReady(reasons)) }
}

/// The routes of the probes.
pub fn routes() -> Router<AppState> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz))
}
