//! The answer to who does not wait: the message is taken, and this is where it can be found.

use axum::response::{IntoResponse as _, Response};
use common::domain::{
    ids::{AgentId, MessageId},
    message::MessageStatus,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::status_url,
    openapi::samples,
    prefer::{PREFERENCE_APPLIED, Prefer},
    respond::{self, Json},
};

/// A message that is on the queue.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "message_id": samples::MESSAGE, "employee_id": samples::AGENT, "status": "queued",
    "status_url": status_url(samples::MESSAGE), "stream_url": format!("{}/stream", status_url(samples::MESSAGE)),
}))]
pub struct Accepted {
    /// Names the message.
    #[schema(value_type = String, format = "uuid")]
    message_id: MessageId,
    /// The employee who is asked.
    #[schema(value_type = String, format = "uuid")]
    employee_id: AgentId,
    /// `queued`; `in_progress` when its caller has waited for a while.
    status: &'static str,
    /// Where the message can be read.
    status_url: String,
    /// Where its answer can be followed as it is made.
    stream_url: String,
}

impl Accepted {
    /// The message `id` to `agent`, which stands at `status`.
    pub fn new(id: MessageId, agent: AgentId, status: MessageStatus) -> Self {
        let status_url = status_url(id);
        let stream_url = format!("{status_url}/stream");
        Self { message_id: id, employee_id: agent, status: status.name(), status_url, stream_url }
    }
}

/// 202 with `body` about the message `id`.
pub fn accepted(id: MessageId, body: impl Serialize) -> Response {
    (StatusCode::ACCEPTED, respond::headers_of(id), Json(body)).into_response()
}

/// `response`, saying which of its caller's preferences it follows.
pub fn applying(prefer: Prefer, mut response: Response) -> Response {
    if let Some(applied) = prefer.applied() {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}
