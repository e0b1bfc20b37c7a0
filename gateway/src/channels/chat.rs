//! `/api/v1`: a prompt in, the employee's answer out.

use std::sync::Arc;

use axum::{Extension, extract::State, response::IntoResponse};
use common::domain::{
    channel::Channel,
    ids::{AgentId, MessageId},
    job::Turn,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::gate::{Admitted, AnyKey, Door, Rest},
    context::RequestContext,
    desk::Desk,
    error::ApiError,
    extract::{FromFields, JsonBody},
    fields::{FieldFault, Fields},
    openapi::{answers::passing, samples, step::Step},
    respond::{self, Json},
    state::AppState,
};

/// The status when the agent failed.
const AGENT_FAILED: StatusCode = StatusCode::BAD_GATEWAY;

#[derive(ToSchema)]
#[schema(example = json!({ "employee_id": samples::AGENT, "prompt": "Hello!" }))]
struct ChatRequest {
    /// The employee who is asked.
    #[schema(value_type = String, format = "uuid")]
    employee_id: AgentId,
    /// What is said to it; not blank, and without U+0000.
    #[schema(pattern = r"^[^\u0000]*\S[^\u0000]*$")]
    prompt: String,
}

impl FromFields for ChatRequest {
    fn from_fields(mut fields: Fields) -> Result<Self, FieldFault> {
        Ok(Self { employee_id: fields.id("employee_id")?, prompt: fields.words("prompt")? })
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
/// can be read.
#[utoipa::path(
    post,
    path = "/api/v1/chat",
    operation_id = "chat",
    tag = "chat",
    request_body = ChatRequest,
    responses((
        status = 200,
        description = "The answer.",
        body = ChatResponse,
        headers(
            ("X-Message-Id" = String, description = "Names the message, as the body does."),
            ("Location" = String, description = "Where the message can be read."),
            ("Server-Timing" = String, description = "How many milliseconds it waited and ran."),
        ),
    )),
)]
async fn chat(
    admitted: Admitted<Rest>,
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Arc<RequestContext>>,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let turns = vec![Turn::user(request.prompt)];
    let (agent, prompt) = desk.prompt(&admitted.caller, Channel::Api, request.employee_id, turns, &context).await?;
    let answer = desk.call(prompt, AGENT_FAILED).await?;
    let headers = respond::finished_headers(&answer);
    let content = answer.outcome.content.unwrap_or_default();
    Ok((headers, Json(ChatResponse { message_id: answer.id, employee_id: agent.id, content })))
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
    let chat_steps = [Step::Gate(Rest::NEEDS), Step::Body, Step::Agent, Step::Queue, Step::End(AGENT_FAILED)];
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
