//! All routes, and the layers around them.

use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    channels::{
        agents, batch_results, batch_stream, batches, chat, message_stream, messages, probes, reference, retry, submit,
        webhook_deliveries, webhook_endpoints,
    },
    error::ApiError,
    observe,
    openapi::document,
    state::AppState,
};

/// The service of the public port.
///
/// The one layer is around everything, so that every answer has a request id, a line in the log and the shape of our
/// errors, even one to a panic; and it refuses ambiguous heads before anything is believed that they say.
///
/// The key, the account, the rate and then the body with its limits are looked at in the order of the handlers'
/// arguments: who has no key cannot make us read a body.
pub fn build(state: AppState) -> Router {
    let (routes, document) = described().split_for_parts();
    routes
        .merge(reference::routes(document))
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::NoMethod)
        .layer(middleware::from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}

/// The routes of all ways in, each with its part of the document.
fn described() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(document::frame())
        .merge(chat::routes())
        .merge(agents::routes())
        .merge(submit::routes())
        .merge(messages::routes())
        .merge(message_stream::routes())
        .merge(retry::routes())
        .merge(batches::routes())
        .merge(batch_results::routes())
        .merge(batch_stream::routes())
        .merge(webhook_endpoints::routes())
        .merge(webhook_deliveries::routes())
        .merge(probes::routes())
}
