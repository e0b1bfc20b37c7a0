//! `POST /api/v1/messages/{id}/retry`: what ended without an answer is asked again, as a new message.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use common::domain::{channel::Channel, message::MessageStatus};
use http::HeaderMap;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    accepted::{Accepted, accepted},
    messages::MessagePath,
};
use crate::{
    archive::{Archive, Asked},
    auth::gate::{Admitted, Door, Rest},
    context::RequestContext,
    desk::Desk,
    dispatcher::prompt::Prompt,
    error::ApiError,
    idempotency::{key::IdempotencyKey, ticket::Ticket},
    openapi::{answers::passing, step::Step},
    respond,
    state::AppState,
};

const RETRY: &str = "/api/v1/messages/{message_id}/retry";

/// Retry a message.
///
/// Runs a failed, cancelled or expired one again, as a new message with `retry_of`: the same prompt to the same employee
/// as it is now, with the same callback and metadata.
#[utoipa::path(
    post,
    path = "/api/v1/messages/{message_id}/retry",
    operation_id = "retry_message",
    tag = "messages",
    params(
        ("message_id" = String, Path, format = "uuid", description = "The message."),
    ),
    responses((
        status = 202,
        description = "The new message is accepted.",
        body = Accepted,
        headers(
            ("X-Message-Id" = String, description = "Names the new message, as the body does."),
            ("Location" = String, description = "Where it can be read."),
            ("Idempotent-Replayed" = String, description = "`true`: the answer to an earlier equal request."),
        ),
    )),
)]
async fn retry(
    admitted: Admitted<Rest>,
    State(desk): State<Arc<Desk>>,
    State(archive): State<Arc<Archive>>,
    Extension(context): Extension<Arc<RequestContext>>,
    MessagePath(id): MessagePath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = IdempotencyKey::of(&headers)?;
    let found = archive.find(&admitted.caller, id).await?;
    let taken = |ticket: &Ticket, agent| {
        let answer = accepted(ticket.id(), Accepted::new(ticket.id(), agent, MessageStatus::Queued));
        respond::replay(!ticket.needs_job(), Ok(answer))
    };
    // Before the message is looked at: what was accepted is accepted, whatever has become of it since.
    let ticket = desk.retry_ticket(RETRY, key.as_ref(), admitted.caller.account.id, id).await?;
    if !ticket.needs_job() {
        return Ok(taken(&ticket, found.agent()));
    }
    let Asked { agent, turns, new_chat, callback, metadata } = archive.asked(found, id).await?;
    if let Some(callback) = &callback {
        desk.check(callback).await?;
    }
    let (_, prompt) = desk.prompt(&admitted.caller, Channel::Api, agent, turns, &context).await?;
    let prompt = Prompt { new_chat, callback, metadata, retry_of: Some(id), is_keyed: key.is_some(), ..prompt };
    desk.submit(prompt, &ticket).await?;
    Ok(taken(&ticket, agent))
}

/// The route of retries.
pub fn routes() -> OpenApiRouter<AppState> {
    let steps = [
        Step::Gate(Rest::NEEDS),
        Step::Query,
        Step::Message,
        Step::Repeat,
        Step::Unanswered,
        Step::Unpurged,
        Step::Agent,
        Step::Queue,
    ];
    OpenApiRouter::new().routes(passing(&steps, routes!(retry)))
}
