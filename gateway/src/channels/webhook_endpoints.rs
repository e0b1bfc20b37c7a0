//! `/api/v1/webhook-endpoints`: the addresses that an account wants to be told of events.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use common::{
    domain::{
        endpoint::{Endpoint, Secrets},
        event::EventKind,
        ids::EndpointId,
        time::{Millis, Moment},
    },
    store::endpoints::{EndpointChange, EndpointSpec},
};
use http::{StatusCode, header::LOCATION};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::webhook_deliveries::DeliveryObject;
use crate::{
    auth::gate::{Admitted, Door, Webhooks},
    endpoints::Endpoints,
    error::ApiError,
    extract::{FromFields, InPath, JsonBody},
    fields::{FieldFault, Fields},
    openapi::{answers::passing, step::Step},
    respond::Json,
    state::AppState,
};

#[derive(ToSchema)]
#[schema(example = json!({ "url": "https://example.com/hook", "events": ["message.completed"] }))]
struct EndpointRequest {
    /// Where to send events: http or https, at a public address.
    #[schema(format = "uri", max_length = 2048)]
    url: String,
    /// The events to tell; none or absent: all of them.
    events: Option<Vec<EventKind>>,
    /// Whether to send anything; absent: yes.
    enabled: Option<bool>,
}

impl FromFields for EndpointRequest {
    fn from_fields(mut fields: Fields) -> Result<Self, FieldFault> {
        Ok(Self { url: fields.words("url")?, events: events(&mut fields)?, enabled: fields.optional_flag("enabled")? })
    }
}

/// What is to be different; what is absent stays as it is.
#[derive(ToSchema)]
#[schema(example = json!({ "enabled": true }))]
struct EndpointPatch {
    /// Where to send events.
    #[schema(format = "uri", max_length = 2048)]
    url: Option<String>,
    /// The events to tell; an empty list: all of them.
    events: Option<Vec<EventKind>>,
    /// Whether to send anything. Switching it on forgets why it was switched off.
    enabled: Option<bool>,
}

impl FromFields for EndpointPatch {
    fn from_fields(mut fields: Fields) -> Result<Self, FieldFault> {
        Ok(Self {
            url: fields.optional_text("url")?,
            events: events(&mut fields)?,
            enabled: fields.optional_flag("enabled")?,
        })
    }
}

fn events(fields: &mut Fields) -> Result<Option<Vec<EventKind>>, FieldFault> {
    let Some(names) = fields.optional_texts("events")? else { return Ok(None) };
    let mut events = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let event = name.parse().map_err(|_| {
            let known: Vec<_> = EventKind::ALL.into_iter().map(EventKind::name).collect();
            fields.fault(&format!("events[{index}]"), &format!("has to be one of {}", known.join(", ")))
        })?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    Ok(Some(events))
}

/// An endpoint as its owner sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpoint)]
struct EndpointObject {
    /// Its identifier.
    #[schema(value_type = String, format = "uuid")]
    id: EndpointId,
    /// Where events are sent.
    url: String,
    /// The events that are told; none: all of them.
    events: Vec<EventKind>,
    /// Whether anything is sent.
    enabled: bool,
    /// Why it was switched off, when its owner has not done so: `gone` (it answered 410) or `failing` (5 days of
    /// tries without a success).
    #[schema(required)]
    disabled_reason: Option<&'static str>,
    /// Until when the secret before the present one signs too.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    previous_secret_until: Option<Moment>,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    created_at: Moment,
}

impl From<Endpoint> for EndpointObject {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.id,
            url: endpoint.url,
            events: endpoint.events,
            enabled: endpoint.enabled,
            disabled_reason: endpoint.disabled_reason.map(|reason| reason.name()),
            previous_secret_until: previous_until(&endpoint.secrets),
            created_at: Moment(endpoint.created_at),
        }
    }
}

fn previous_until(secrets: &Secrets) -> Option<Moment> {
    secrets.previous_until(Millis::now()).map(Moment)
}

/// An endpoint with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpointWithSecret)]
struct EndpointWithSecret {
    #[serde(flatten)]
    endpoint: EndpointObject,
    /// What signs the webhooks; to be configured at the receiver.
    secret: String,
}

impl From<Endpoint> for EndpointWithSecret {
    fn from(endpoint: Endpoint) -> Self {
        Self { secret: endpoint.secrets.current.reveal(), endpoint: endpoint.into() }
    }
}

/// A new secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = RotatedWebhookSecret)]
struct RotatedSecret {
    /// The endpoint.
    #[schema(value_type = String, format = "uuid")]
    id: EndpointId,
    /// What signs the webhooks from now on; to be configured at the receiver.
    secret: String,
    /// Until when the secret before it signs too.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    previous_secret_until: Option<Moment>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpointList)]
struct EndpointList {
    /// Oldest first.
    endpoints: Vec<EndpointObject>,
}

/// Register an address for events.
#[utoipa::path(
    post,
    path = "/api/v1/webhook-endpoints",
    operation_id = "create_webhook_endpoint",
    tag = "webhooks",
    request_body = EndpointRequest,
    responses((
        status = 201,
        description = "It is made, and told of every message that is accepted from now on. The secret is shown this once.",
        body = EndpointWithSecret,
        headers(("Location" = String, description = "Where the endpoint can be read.")),
    )),
)]
async fn create(
    admitted: Admitted<Webhooks>,
    State(endpoints): State<Arc<Endpoints>>,
    JsonBody(request): JsonBody<EndpointRequest>,
) -> Result<Response, ApiError> {
    let EndpointRequest { url, events, enabled } = request;
    let spec = EndpointSpec { url, events: events.unwrap_or_default(), enabled: enabled.unwrap_or(true) };
    let made = endpoints.create(&admitted.caller, &spec).await?;
    let location = [(LOCATION, format!("/api/v1/webhook-endpoints/{}", made.id))];
    Ok((StatusCode::CREATED, location, Json(EndpointWithSecret::from(made))).into_response())
}

/// The account's endpoints.
#[utoipa::path(
    get,
    path = "/api/v1/webhook-endpoints",
    operation_id = "list_webhook_endpoints",
    tag = "webhooks",
    responses((status = 200, description = "All of them.", body = EndpointList)),
)]
async fn list(
    admitted: Admitted<Webhooks>,
    State(endpoints): State<Arc<Endpoints>>,
) -> Result<Json<EndpointList>, ApiError> {
    let found = endpoints.list(&admitted.caller).await?;
    Ok(Json(EndpointList { endpoints: found.into_iter().map(EndpointObject::from).collect() }))
}

/// One endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/webhook-endpoints/{id}",
    operation_id = "get_webhook_endpoint",
    tag = "webhooks",
    params(("id" = String, Path, format = "uuid", description = "The endpoint.")),
    responses((status = 200, description = "The endpoint.", body = EndpointObject)),
)]
async fn get(
    admitted: Admitted<Webhooks>,
    InPath(id): InPath<EndpointId>,
    State(endpoints): State<Arc<Endpoints>>,
) -> Result<Json<EndpointObject>, ApiError> {
    Ok(Json(endpoints.get(&admitted.caller, id).await?.into()))
}

/// Change an endpoint.
#[utoipa::path(
    patch,
    path = "/api/v1/webhook-endpoints/{id}",
    operation_id = "change_webhook_endpoint",
    tag = "webhooks",
    params(("id" = String, Path, format = "uuid", description = "The endpoint.")),
    request_body = EndpointPatch,
    responses((status = 200, description = "The endpoint as it is now.", body = EndpointObject)),
)]
async fn change(
    admitted: Admitted<Webhooks>,
    InPath(id): InPath<EndpointId>,
    State(endpoints): State<Arc<Endpoints>>,
    JsonBody(EndpointPatch { url, events, enabled }): JsonBody<EndpointPatch>,
) -> Result<Json<EndpointObject>, ApiError> {
    let change = EndpointChange { url, events, enabled };
    Ok(Json(endpoints.change(&admitted.caller, id, change).await?.into()))
}

/// Remove an endpoint. What was on its way to it is dropped.
#[utoipa::path(
    delete,
    path = "/api/v1/webhook-endpoints/{id}",
    operation_id = "delete_webhook_endpoint",
    tag = "webhooks",
    params(("id" = String, Path, format = "uuid", description = "The endpoint.")),
    responses((status = 204, description = "It is gone.")),
)]
async fn delete(
    admitted: Admitted<Webhooks>,
    InPath(id): InPath<EndpointId>,
    State(endpoints): State<Arc<Endpoints>>,
) -> Result<StatusCode, ApiError> {
    endpoints.delete(&admitted.caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give an endpoint a new secret. The one before signs too for 24 hours.
#[utoipa::path(
    post,
    path = "/api/v1/webhook-endpoints/{id}/rotate-secret",
    operation_id = "rotate_webhook_secret",
    tag = "webhooks",
    params(("id" = String, Path, format = "uuid", description = "The endpoint.")),
    responses((status = 200, description = "The new secret, shown this once.", body = RotatedSecret)),
)]
async fn rotate_secret(
    admitted: Admitted<Webhooks>,
    InPath(id): InPath<EndpointId>,
    State(endpoints): State<Arc<Endpoints>>,
) -> Result<Json<RotatedSecret>, ApiError> {
    let secrets = endpoints.rotate_secret(&admitted.caller, id).await?;
    let previous_secret_until = previous_until(&secrets);
    Ok(Json(RotatedSecret { id, secret: secrets.current.reveal(), previous_secret_until }))
}

/// Send an endpoint the event `webhook.test`.
#[utoipa::path(
    post,
    path = "/api/v1/webhook-endpoints/{id}/test",
    operation_id = "test_webhook_endpoint",
    tag = "webhooks",
    params(("id" = String, Path, format = "uuid", description = "The endpoint.")),
    responses((status = 202, description = "It is on its way.", body = DeliveryObject)),
)]
async fn test(
    admitted: Admitted<Webhooks>,
    InPath(id): InPath<EndpointId>,
    State(endpoints): State<Arc<Endpoints>>,
) -> Result<Response, ApiError> {
    let made = endpoints.test(&admitted.caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryObject::new(made, Vec::new()))).into_response())
}

/// The routes of this API.
pub fn routes() -> OpenApiRouter<AppState> {
    let gate = Step::Gate(Webhooks::NEEDS);
    OpenApiRouter::new()
        .routes(passing(&[gate, Step::WholeKey, Step::Body, Step::EndpointRoom], routes!(create)))
        .routes(passing(&[gate, Step::WholeKey], routes!(list)))
        .routes(passing(&[gate, Step::WholeKey, Step::Endpoint], routes!(get, delete)))
        .routes(passing(&[gate, Step::WholeKey, Step::Endpoint, Step::Body], routes!(change)))
        .routes(passing(&[gate, Step::WholeKey, Step::Endpoint], routes!(rotate_secret)))
        .routes(passing(&[gate, Step::WholeKey, Step::Endpoint], routes!(test)))
}
