//! `/api/v1/messages`: what became of messages, whatever their channel: read, list, stop, blank.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Path, State},
    response::{IntoResponse, Response},
};
use common::{
    domain::{channel::Channel, ids::MessageId, message::MessageStatus, object::MessageObject},
    store::listing::ListFilter,
};
use http::{StatusCode, request::Parts};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    archive::{Archive, PageCursor},
    auth::gate::{Admitted, Door, Reading},
    error::ApiError,
    fault::X_MESSAGE_ID,
    openapi::{answers::passing, step::Step},
    query::Parameters,
    respond::Json,
    state::AppState,
};

/// How many messages a page has when nothing is said.
const PAGE: usize = 20;
/// How many it has at most.
const PAGE_LIMIT: usize = 100;
/// The longest long-poll, in seconds.
const WAIT_LIMIT_S: u64 = 300;

/// The message in the path. What cannot be one is as unknown as one that is not there.
#[derive(Debug)]
pub struct MessagePath(pub MessageId);

impl<S: Send + Sync> FromRequestParts<S> for MessagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|Path(id)| id.parse().ok());
        id.map(Self).ok_or(ApiError::MessageNotFound)
    }
}

/// Read a message.
///
/// With `wait`, the answer comes once the message has ended, or as it stands after so many seconds.
#[utoipa::path(
    get,
    path = "/api/v1/messages/{message_id}",
    operation_id = "read_message",
    tag = "messages",
    params(
        ("message_id" = String, Path, format = "uuid", description = "The message."),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 300, description = "For how many seconds to wait for its end."),
    ),
    responses((status = 200, description = "The message.", body = MessageObject)),
)]
async fn read(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<Archive>>,
    MessagePath(id): MessagePath,
    mut query: Parameters,
) -> Result<Response, ApiError> {
    let wait = Duration::from_secs(query.within("wait", 0, 0..=WAIT_LIMIT_S)?);
    archive.wait(&admitted.caller, id, wait).await.map(answered)
}

#[derive(Serialize, ToSchema)]
struct MessageList {
    /// Newest first.
    messages: Vec<MessageObject>,
    /// For the next page; `null` on the last one.
    next_cursor: Option<String>,
}

/// List messages, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/messages",
    operation_id = "list_messages",
    tag = "messages",
    params(
        ("status" = inline(Option<MessageStatus>), Query, description = "Those that stand there."),
        ("employee_id" = Option<String>, Query, format = "uuid", description = "Those to this employee."),
        ("batch_id" = Option<String>, Query, format = "uuid", description = "Those of this batch."),
        ("channel" = inline(Option<Channel>), Query, description = "Those that came in this way."),
        ("created_after" = Option<String>, Query, format = "date-time", description = "Those accepted after this moment."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, description = "How many at most; 20 if absent. A page of long answers has fewer."),
    ),
    responses((status = 200, description = "A page of messages.", body = MessageList)),
)]
async fn list(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<Archive>>,
    mut query: Parameters,
) -> Result<Json<MessageList>, ApiError> {
    let limit = query.within("limit", PAGE, 1..=PAGE_LIMIT)?;
    let page = archive.list(&admitted.caller, filter(&mut query)?, limit).await?;
    Ok(Json(MessageList { messages: page.messages, next_cursor: page.next.map(|next| next.to_string()) }))
}

fn filter(query: &mut Parameters) -> Result<ListFilter, ApiError> {
    let statuses = "queued, in_progress, completed, failed, cancelled or expired";
    let cursor: Option<PageCursor> = query.parsed("cursor", "the `next_cursor` of a page")?;
    Ok(ListFilter {
        status: query.parsed("status", statuses)?,
        agents: query.parsed("employee_id", "a UUID")?.map(|agent| vec![agent]),
        batch: query.parsed("batch_id", "a UUID")?,
        channel: query.parsed("channel", "api, webhooks, mcp, a2a or email")?,
        created_after: query.parsed("created_after", "a point in time such as 2026-11-21T09:30:00Z")?,
        before: cursor.map(|PageCursor(id)| MessageId(id)),
    })
}

/// Cancel a message.
///
/// Queued or running: when the answer comes, it is cancelled. What it used until then is charged.
#[utoipa::path(
    post,
    path = "/api/v1/messages/{message_id}/cancel",
    operation_id = "cancel_message",
    tag = "messages",
    params(("message_id" = String, Path, format = "uuid", description = "The message.")),
    responses((status = 200, description = "The message, cancelled.", body = MessageObject)),
)]
async fn cancel(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<Archive>>,
    MessagePath(id): MessagePath,
) -> Result<Response, ApiError> {
    archive.cancel(&admitted.caller, id).await.map(answered)
}

/// Purge a message.
///
/// Its prompt and its answer are gone for good; its status and its usage stay.
#[utoipa::path(
    delete,
    path = "/api/v1/messages/{message_id}",
    operation_id = "purge_message",
    tag = "messages",
    params(("message_id" = String, Path, format = "uuid", description = "The message.")),
    responses((status = 204, description = "Its texts are gone.")),
)]
async fn purge(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<Archive>>,
    MessagePath(id): MessagePath,
) -> Result<StatusCode, ApiError> {
    archive.purge(&admitted.caller, id).await.map(|()| StatusCode::NO_CONTENT)
}

fn answered(message: MessageObject) -> Response {
    ([(X_MESSAGE_ID, message.message_id.to_string())], Json(message)).into_response()
}

/// The routes of messages that are there.
pub fn routes() -> OpenApiRouter<AppState> {
    const GATE: Step = Step::Gate(Reading::NEEDS);
    OpenApiRouter::new()
        .routes(passing(&[GATE, Step::Query], routes!(list)))
        .routes(passing(&[GATE, Step::Query, Step::Message], routes!(read)))
        .routes(passing(&[GATE, Step::Message, Step::Ended], routes!(purge)))
        .routes(passing(&[GATE, Step::Message, Step::Unended], routes!(cancel)))
}
