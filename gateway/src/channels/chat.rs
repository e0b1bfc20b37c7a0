//! `/api/v1`: a prompt in, the employee's answer out.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use common::domain::{
    channel::Channel,
    ids::{AgentId, MessageId},
    job::Turn,
};
use http::StatusCode;
use serde::Serialize;

use crate::{
    auth::gate::{Admitted, AnyKey, Rest},
    context::RequestContext,
    desk::Desk,
    error::ApiError,
    extract::{FromFields, JsonBody},
    fields::{FieldFault, Fields},
    respond::{self, Json},
    state::AppState,
};

/// The status when the agent failed.
const AGENT_FAILED: StatusCode = StatusCode::BAD_GATEWAY;

struct ChatRequest {
    employee_id: AgentId,
    prompt: String,
}

impl FromFields for ChatRequest {
    fn from_fields(mut fields: Fields) -> Result<Self, FieldFault> {
        Ok(Self { employee_id: fields.id("employee_id")?, prompt: fields.words("prompt")? })
    }
}

#[derive(Serialize)]
struct ChatResponse {
    message_id: MessageId,
    employee_id: AgentId,
    content: String,
}

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

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

async fn health(_: Admitted<AnyKey>) -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The routes of this API.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/chat", post(chat)).route("/api/v1/health", get(health))
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
