//! Submission without waiting: `POST /api/v1/messages`, and `POST /api/v1/webhook` for the Webhooks channel.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use common::domain::{channel::Channel, ids::MessageId, message::MessageStatus};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    accepted::{Accepted, accepted},
    message_request::{MessageBody, MessageRequest},
};
use crate::{
    auth::{
        caller::Caller,
        gate::{Admitted, Door, Rest, Webhooks},
    },
    context::RequestContext,
    desk::Desk,
    error::{ApiError, status_url},
    idempotency::ticket::Manner,
    openapi::{answers::passing, samples, step::Step},
    respond,
    state::AppState,
    work::Work,
};

const MESSAGES: &str = "/api/v1/messages";
const WEBHOOK: &str = "/api/v1/webhook";

/// A message that is on the queue, as the Webhooks channel says it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "message_id": samples::MESSAGE, "status": "queued", "status_url": status_url(samples::MESSAGE),
}))]
struct AcceptedWebhook {
    /// Names the message.
    #[schema(value_type = String, format = "uuid")]
    message_id: MessageId,
    /// Always `queued`.
    status: &'static str,
    /// Where the message can be read.
    status_url: String,
}

/// Submit a message without waiting.
///
/// The answer comes once the message is stored on the queue; its end can be read at `status_url`, followed at
/// `stream_url`, and told to `callback_url`.
#[utoipa::path(
    post,
    path = "/api/v1/messages",
    operation_id = "submit_message",
    tag = "messages",
    request_body = MessageBody,
    responses((
        status = 202,
        description = "The message is accepted.",
        body = Accepted,
        headers(
            ("X-Message-Id" = String, description = "Names the message, as the body does."),
            ("Location" = String, description = "Where the message can be read."),
            ("Idempotent-Replayed" = String, description = "`true`: the answer to an earlier equal request."),
        ),
    )),
)]
async fn submit_message(
    admitted: Admitted<Rest>,
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Arc<RequestContext>>,
    work: Work<MessageRequest>,
) -> Result<Response, ApiError> {
    let agent = work.body.employee_id;
    let submitted = submit(&desk, &admitted.caller, Channel::Api, MESSAGES, work, &context).await?;
    let id = submitted.id;
    Ok(submitted.answered(Accepted::new(id, agent, MessageStatus::Queued)))
}

/// Submit a message through the Webhooks channel.
///
/// Fire and forget: the answer comes once the message is stored on the queue, and its end is told to `callback_url`.
#[utoipa::path(
    post,
    path = "/api/v1/webhook",
    operation_id = "submit_webhook",
    tag = "webhooks",
    request_body = MessageBody,
    responses((
        status = 202,
        description = "The message is accepted.",
        body = AcceptedWebhook,
        headers(
            ("X-Message-Id" = String, description = "Names the message, as the body does."),
            ("Location" = String, description = "Where the message can be read."),
            ("Idempotent-Replayed" = String, description = "`true`: the answer to an earlier equal request."),
        ),
    )),
)]
async fn submit_webhook(
    admitted: Admitted<Webhooks>,
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Arc<RequestContext>>,
    work: Work<MessageRequest>,
) -> Result<Response, ApiError> {
    let submitted = submit(&desk, &admitted.caller, Channel::Webhooks, WEBHOOK, work, &context).await?;
    let (id, status) = (submitted.id, MessageStatus::Queued.name());
    Ok(submitted.answered(AcceptedWebhook { message_id: id, status, status_url: status_url(id) }))
}

/// A message that is on the queue, or was.
struct Submitted {
    id: MessageId,
    is_replay: bool,
}

impl Submitted {
    /// The same answer each time: what has become of the message by now is told where it is read.
    fn answered(self, body: impl Serialize) -> Response {
        respond::replay(self.is_replay, Ok(accepted(self.id, body)))
    }
}

async fn submit(
    desk: &Desk,
    caller: &Caller,
    channel: Channel,
    route: &str,
    work: Work<MessageRequest>,
    context: &RequestContext,
) -> Result<Submitted, ApiError> {
    let (_, mut prompt) = work.body.prompt(desk, caller, channel, context).await?;
    let ticket = desk.ticket(route, work.key.as_ref(), &mut prompt, Manner::default()).await?;
    desk.submit(prompt, &ticket).await?;
    Ok(Submitted { id: ticket.id(), is_replay: !ticket.needs_job() })
}

/// The routes of submission.
pub fn routes() -> OpenApiRouter<AppState> {
    let steps = |gate| [Step::Gate(gate), Step::Body, Step::Agent, Step::Repeat, Step::Queue];
    OpenApiRouter::new()
        .routes(passing(&steps(Rest::NEEDS), routes!(submit_message)))
        .routes(passing(&steps(Webhooks::NEEDS), routes!(submit_webhook)))
}
