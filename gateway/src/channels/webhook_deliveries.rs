//! What became of each event for an endpoint, try by try, and sending one again.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use common::domain::{
    delivery::{Delivery, DeliveryStatus, Try},
    event::EventKind,
    ids::{BatchId, DeliveryId, EndpointId, MessageId},
    time::Moment,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::gate::{Admitted, Door, Webhooks},
    endpoints::Endpoints,
    error::ApiError,
    extract::InPath,
    openapi::{answers::passing, shapes, step::Step},
    query::Parameters,
    respond::Json,
    state::AppState,
};

/// How many deliveries one page has when nobody says.
const USUAL_PAGE: usize = 50;
/// How many it has at most.
const MOST_PAGE: usize = 100;

/// One event on its way to one receiver.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub struct DeliveryObject {
    /// Its identifier.
    #[schema(value_type = String, format = "uuid")]
    id: DeliveryId,
    /// The endpoint; `null` for the callback of a message.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    endpoint_id: Option<EndpointId>,
    /// The message that the event is of.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    message_id: Option<MessageId>,
    /// The batch that the event is of; a test is of neither.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    batch_id: Option<BatchId>,
    /// The event.
    event: EventKind,
    /// Where it stands: `pending`, `delivered`, `failed` (every try was in vain) or `dropped` (its endpoint was
    /// switched off or removed).
    #[schema(schema_with = shapes::delivery_status)]
    status: &'static str,
    /// When it is tried next, while it is pending.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    next_at: Option<Moment>,
    /// When the event happened.
    #[schema(value_type = String, format = "date-time")]
    created_at: Moment,
    /// Every try so far, the first one first.
    tries: Vec<TryObject>,
}

/// One request to a receiver.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookTry)]
struct TryObject {
    /// Counts from 1.
    n: u32,
    /// When it began.
    #[schema(value_type = String, format = "date-time")]
    at: Moment,
    /// The status that came back; `null` when there was no answer.
    #[schema(required)]
    status: Option<u16>,
    /// Why there was none.
    #[schema(required)]
    error: Option<String>,
    /// How long it took.
    duration_ms: u32,
}

impl DeliveryObject {
    /// `delivery` and its `tries`.
    pub fn new(delivery: Delivery, tries: Vec<Try>) -> Self {
        let is_pending = delivery.status == DeliveryStatus::Pending;
        Self {
            id: delivery.id,
            endpoint_id: delivery.endpoint,
            message_id: delivery.message,
            batch_id: delivery.batch,
            event: delivery.event,
            status: delivery.status.name(),
            next_at: is_pending.then_some(Moment(delivery.next_at)),
            created_at: Moment(delivery.created_at),
            tries: tries.into_iter().map(TryObject::from).collect(),
        }
    }
}

impl From<Try> for TryObject {
    fn from(one: Try) -> Self {
        Self { n: one.n, at: Moment(one.at), status: one.status, error: one.error, duration_ms: one.duration_ms }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDeliveryList)]
struct DeliveryList {
    /// Newest first.
    deliveries: Vec<DeliveryObject>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What was sent to an endpoint, or is to be.
#[utoipa::path(
    get,
    path = "/api/v1/webhook-endpoints/{id}/deliveries",
    operation_id = "list_webhook_deliveries",
    tag = "webhooks",
    params(
        ("id" = String, Path, format = "uuid", description = "The endpoint."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, description = "How many; absent: 50."),
        ("cursor" = Option<String>, Query, format = "uuid", description = "The `next_cursor` of the page before."),
    ),
    responses((status = 200, description = "Deliveries, newest first, with every try.", body = DeliveryList)),
)]
async fn list(
    admitted: Admitted<Webhooks>,
    InPath(id): InPath<EndpointId>,
    State(endpoints): State<Arc<Endpoints>>,
    mut query: Parameters,
) -> Result<Json<DeliveryList>, ApiError> {
    let limit = query.within("limit", USUAL_PAGE, 1..=MOST_PAGE)?;
    let before = query.parsed("cursor", "one that this list has given")?;
    let mut found = endpoints.deliveries(&admitted.caller, id, before, limit as u64 + 1).await?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| !is_last).map(|(delivery, _)| delivery.id.to_string());
    let deliveries = found.into_iter().map(|(delivery, tries)| DeliveryObject::new(delivery, tries)).collect();
    Ok(Json(DeliveryList { deliveries, next_cursor }))
}

/// Send a delivery again, from the beginning of its schedule. It keeps its `webhook-id`.
#[utoipa::path(
    post,
    path = "/api/v1/webhook-deliveries/{id}/replay",
    operation_id = "replay_webhook_delivery",
    tag = "webhooks",
    params(("id" = String, Path, format = "uuid", description = "The delivery.")),
    responses((status = 202, description = "It is on its way again.", body = DeliveryObject)),
)]
async fn replay(
    admitted: Admitted<Webhooks>,
    InPath(id): InPath<DeliveryId>,
    State(endpoints): State<Arc<Endpoints>>,
) -> Result<Response, ApiError> {
    let (delivery, tries) = endpoints.replay(&admitted.caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryObject::new(delivery, tries))).into_response())
}

/// The routes of this API.
pub fn routes() -> OpenApiRouter<AppState> {
    let gate = Step::Gate(Webhooks::NEEDS);
    OpenApiRouter::new()
        .routes(passing(&[gate, Step::WholeKey, Step::Endpoint, Step::Query], routes!(list)))
        .routes(passing(&[gate, Step::WholeKey, Step::Delivery, Step::EnabledEndpoint], routes!(replay)))
}
