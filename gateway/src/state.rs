//! What handlers share.

use std::sync::Arc;

use axum::extract::FromRef;
use common::{lifecycle::Lifecycle, metrics::Metrics, readiness::Readiness};

use crate::{
    archive::Archive,
    auth::gate::Gate,
    batches::{archive::BatchArchive, desk::BatchDesk},
    desk::Desk,
    endpoints::Endpoints,
    extract::BodyRules,
    follow::seats::Seats,
};

/// The parts that handlers and layers ask for. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// The parts of an [`AppState`].
pub struct Parts {
    /// Who may come in.
    pub gate: Gate,
    /// Where their prompts go.
    pub desk: Arc<Desk>,
    /// What was submitted.
    pub archive: Arc<Archive>,
    /// Where batches go.
    pub batch_desk: Arc<BatchDesk>,
    /// What batches there are.
    pub batches: Arc<BatchArchive>,
    /// Who follows messages and batches.
    pub seats: Seats,
    /// Where events go.
    pub endpoints: Arc<Endpoints>,
    /// How large and slow a body may be.
    pub body: BodyRules,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether we can serve.
    pub readiness: Readiness,
    /// When to stop.
    pub lifecycle: Lifecycle,
}

impl AppState {
    /// A state of these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

macro_rules! part {
    ($name:ident: $type:ty) => {
        impl FromRef<AppState> for $type {
            fn from_ref(state: &AppState) -> Self {
                state.0.$name.clone()
            }
        }
    };
}

part!(gate: Gate);
part!(desk: Arc<Desk>);
part!(archive: Arc<Archive>);
part!(batch_desk: Arc<BatchDesk>);
part!(batches: Arc<BatchArchive>);
part!(seats: Seats);
part!(endpoints: Arc<Endpoints>);
part!(body: BodyRules);
part!(metrics: Arc<Metrics>);
part!(readiness: Readiness);
part!(lifecycle: Lifecycle);
