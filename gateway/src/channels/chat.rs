//! `/api/v1`: a prompt in, the employee's answer out.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse as _, Response},
};
use common::domain::{
    channel::Channel,
    ids::{AgentId, MessageId},
    message::MessageStatus,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    accepted::{Accepted, accepted, applying},
    message_request::{MessageRequest, cancels_on_disconnect},
};
use crate::{
    archive::Archive,
    auth::gate::{Admitted, AnyKey, Door, Rest},
    context::RequestContext,
    desk::Desk,
    dispatcher::{
        answer::Answer,
        prompt::{Patience, Prompt},
    },
    error::ApiError,
    extract::FromFields,
    fields::{FieldFault, Fields},
    hang_up::HangUp,
    idempotency::ticket::{Manner, Ticket},
    openapi::{answers::passing, samples, shapes, step::Step},
    prefer::Prefer,
    respond::{self, Json},
    state::AppState,
    work::Work,
};

const CHAT: &str = "/api/v1/chat";
/// The status when the agent failed.
const AGENT_FAILED: StatusCode = StatusCode::BAD_GATEWAY;

/// The body of a chat as it is sent.
#[derive(ToSchema)]
#[schema(as = ChatRequest, example = json!({ "employee_id": samples::AGENT, "prompt": "Hello!" }))]
#[expect(dead_code, reason = "the body is read field by field; this is its shape for the document")]
struct ChatBody {
    /// The employee who is asked.
    #[schema(value_type = String, format = "uuid")]
    employee_id: AgentId,
    /// What is said to it; not blank, and without U+0000.
    #[schema(pattern = r"^[^\u0000]*\S[^\u0000]*$")]
    prompt: String,
    /// What becomes of the message when its caller hangs up before the answer: `continue` (the default) or `cancel`.
    #[schema(schema_with = shapes::on_disconnect)]
    on_disconnect: Option<String>,
    /// Where the end of the message is told, as a webhook.
    #[schema(format = "uri", max_length = 2048)]
    callback_url: Option<String>,
    /// Which ends are told there; absent: all.
    #[schema(schema_with = shapes::message_events)]
    callback_events: Option<Vec<String>>,
    /// Whatever the caller wants to find again with the message, up to 16,384 bytes of JSON.
    metadata: Option<Map<String, Value>>,
}

struct ChatRequest {
    message: MessageRequest,
    manner: Manner,
}

impl FromFields for ChatRequest {
    fn from_fields(mut fields: Fields) -> Result<Self, FieldFault> {
        let message = MessageRequest::read(&mut fields)?;
        let cancel_on_disconnect = cancels_on_disconnect(&mut fields)?;
        Ok(Self { message, manner: Manner { stream: false, cancel_on_disconnect } })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "message_id": samples::MESSAGE, "employee_id": samples::AGENT, "content": "Hello!" }))]
struct ChatResponse {
    /// Names this exchange.
    #[schema(value_type = String, format = "uuid")]
    message_id: MessageId,
    /// The employee that responded.
    #[schema(value_type = String, format = "uuid")]
    employee_id: AgentId,
    /// The answer.
    content: String,
}

/// Ask an employee and wait for the answer.
///
/// Waits for up to 5 minutes. The message goes on when the caller hangs up or the time is up: a 504 says where its end
/// can be read. With `Prefer: respond-async` nobody waits; with `Prefer: wait=N` for up to N seconds, then 202.
#[utoipa::path(
    post,
    path = "/api/v1/chat",
    operation_id = "chat",
    tag = "chat",
    params(
        ("Prefer" = Option<String>, Header, description = "`respond-async`, `wait=1` to `wait=300`, or both."),
    ),
    request_body = ChatBody,
    responses(
        (
            status = 200,
            description = "The answer.",
            body = ChatResponse,
            headers(
                ("X-Message-Id" = String, description = "Names the message, as the body does."),
                ("Location" = String, description = "Where the message can be read."),
                ("Server-Timing" = String, description = "How many milliseconds it waited and ran."),
                ("Preference-Applied" = String, description = "Which preferences were followed."),
                ("Idempotent-Replayed" = String, description = "`true`: the answer to an earlier equal request."),
            ),
        ),
        (
            status = 202,
            description = "The message is accepted, and its caller prefers not to wait longer.",
            body = Accepted,
            headers(
                ("X-Message-Id" = String, description = "Names the message, as the body does."),
                ("Location" = String, description = "Where the message can be read."),
                ("Preference-Applied" = String, description = "Which preferences were followed."),
            ),
        ),
    ),
)]
async fn chat(
    admitted: Admitted<Rest>,
    State(desk): State<Arc<Desk>>,
    State(archive): State<Arc<Archive>>,
    Extension(context): Extension<Arc<RequestContext>>,
    work: Work<ChatRequest>,
) -> Result<Response, ApiError> {
    let Work { body: ChatRequest { message, manner }, key, prefer } = work;
    let (agent, mut prompt) = message.prompt(&desk, &admitted.caller, Channel::Api, &context).await?;
    let ticket = desk.ticket(CHAT, key.as_ref(), &mut prompt, manner).await?;
    let is_replay = ticket.has_ended();
    let mut hang_up = HangUp::of(manner, &ticket, &archive, &admitted.caller);
    let answered = answer(&desk, agent.id, prompt, ticket, prefer, || hang_up.disarm()).await;
    hang_up.disarm();
    Ok(respond::replay(is_replay, answered.map(|response| applying(prefer, response))))
}

/// The answer, or 202 once the caller does not want to wait any longer.
async fn answer(
    desk: &Desk,
    agent: AgentId,
    prompt: Prompt,
    ticket: Ticket,
    prefer: Prefer,
    joins: impl FnOnce() + Send,
) -> Result<Response, ApiError> {
    let later = |id, status| accepted(id, Accepted::new(id, agent, status));
    let patience = match prefer.patience() {
        None => Patience::Deadline,
        Some(Duration::ZERO) if !ticket.has_ended() => {
            desk.submit(prompt, &ticket).await?;
            return Ok(later(ticket.id(), MessageStatus::Queued));
        }
        Some(wait) => Patience::AtMost(wait),
    };
    match desk.call(prompt, ticket, patience, AGENT_FAILED, joins).await {
        Ok(answer) => Ok(whole(agent, answer)),
        Err(ApiError::Timeout(id)) if patience != Patience::Deadline => Ok(later(id, MessageStatus::InProgress)),
        Err(error) => Err(error),
    }
}

fn whole(agent: AgentId, answer: Answer) -> Response {
    let headers = respond::finished_headers(&answer);
    let content = answer.outcome.content.unwrap_or_default();
    (headers, Json(ChatResponse { message_id: answer.id, employee_id: agent, content })).into_response()
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "ok" }))]
struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the key works.
#[utoipa::path(
    get,
    path = "/api/v1/health",
    operation_id = "health",
    tag = "probes",
    responses((status = 200, description = "It does.", body = Health)),
)]
async fn health(_: Admitted<AnyKey>) -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The routes of this API.
pub fn routes() -> OpenApiRouter<AppState> {
    let gate = Step::Gate(Rest::NEEDS);
    let chat_steps = [gate, Step::Body, Step::Agent, Step::Repeat, Step::Queue, Step::End(AGENT_FAILED)];
    OpenApiRouter::new()
        .routes(passing(&chat_steps, routes!(chat)))
        .routes(passing(&[Step::Gate(AnyKey::NEEDS)], routes!(health)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> String {
        let parsed = Fields::parse(body.as_bytes()).and_then(ChatRequest::from_fields);
        parsed.err().expect("a fault").to_string()
    }

    #[test]
    fn faults_name_their_field() {
        let id = AgentId::new();
        assert_eq!(fault("{}"), "`employee_id` is missing");
        assert_eq!(fault(r#"{"employee_id":"abc","prompt":"hi"}"#), "`employee_id` is not a UUID");
        assert_eq!(fault(r#"{"employee_id":7,"prompt":"hi"}"#), "`employee_id` has to be a string, not a number");
        assert_eq!(fault(&format!(r#"{{"employee_id":"{id}"}}"#)), "`prompt` is missing");
        assert_eq!(
            fault(&format!(r#"{{"employee_id":"{id}","prompt":["hi"]}}"#)),
            "`prompt` has to be a string, not a list"
        );
        assert_eq!(fault(&format!(r#"{{"employee_id":"{id}","prompt":" \n"}}"#)), "`prompt` must not be empty");
    }
}
