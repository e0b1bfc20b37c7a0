//! `/api/agents`: the account's agents, and a chat with one of them, whole or as it is made.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use common::domain::{agent::Agent, channel::Channel, ids::AgentId, job::Turn, message::Usage};
use futures_util::stream;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    conversation::{SaidBefore, turns},
    message_request::cancels_on_disconnect,
};
use crate::{
    archive::Archive,
    auth::gate::{Admitted, Door, Rest, Verified},
    context::RequestContext,
    desk::Desk,
    dispatcher::{answer::Answer, answer_stream::AnswerStream, prompt::Patience},
    error::ApiError,
    extract::FromFields,
    fields::{FieldFault, Fields},
    hang_up::HangUp,
    idempotency::ticket::Manner,
    openapi::{answers::passing, samples, shapes, step::Step},
    respond::{self, Json},
    state::AppState,
    work::Work,
};

const CHAT: &str = "/api/agents/chat";
/// The status when the agent failed.
const AGENT_FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
/// Tells nginx not to gather what is meant to be seen at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[derive(Serialize, ToSchema)]
struct AgentList {
    /// All of them.
    agents: Vec<ListedAgent>,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "id": samples::AGENT, "name": "Assistant", "description": "Echoes", "model": "demo" }))]
struct ListedAgent {
    /// Names it in requests.
    #[schema(value_type = String, format = "uuid")]
    id: AgentId,
    /// Names it to people.
    name: String,
    /// What it is for.
    description: String,
    /// The model that it runs on.
    model: String,
}

impl From<Agent> for ListedAgent {
    fn from(agent: Agent) -> Self {
        let spec = agent.spec;
        Self { id: agent.id, name: spec.name, description: spec.description, model: spec.model }
    }
}

/// The agents of the key's account.
#[utoipa::path(
    get,
    path = "/api/agents",
    operation_id = "list_agents",
    tag = "agents",
    responses((status = 200, description = "The agents.", body = AgentList)),
)]
async fn list(admitted: Admitted<Verified>, State(desk): State<Arc<Desk>>) -> Result<Json<AgentList>, ApiError> {
    let agents = desk.directory.all(&admitted.caller).await?;
    Ok(Json(AgentList { agents: agents.into_iter().map(ListedAgent::from).collect() }))
}

/// The body of a chat as it is sent.
#[derive(ToSchema)]
#[schema(
    as = AgentChatRequest,
    rename_all = "camelCase",
    example = json!({ "agentId": samples::AGENT, "message": "Hello!" }),
)]
#[expect(dead_code, reason = "the body is read field by field; this is its shape for the document")]
struct ChatBody {
    /// The agent that is asked.
    #[schema(pattern = r"^[^\u0000]*$")]
    agent_id: String,
    /// What is said to it. May be left out when `messages` or `history` ends with a message of the role `user`.
    #[schema(pattern = r"^[^\u0000]*\S[^\u0000]*$")]
    message: Option<String>,
    /// What was said before, or the whole conversation. Excludes `history`.
    messages: Option<Vec<SaidBefore>>,
    /// The same as `messages` under its other name.
    history: Option<Vec<SaidBefore>>,
    /// Whether the answer is sent as plain text while it is made.
    stream: Option<bool>,
    /// Marks a new conversation for analytics.
    new_chat: Option<bool>,
    /// What becomes of the message when its caller hangs up before the end: `continue` (the default) or `cancel`.
    #[schema(rename = "on_disconnect", schema_with = shapes::on_disconnect)]
    on_disconnect: Option<String>,
}

struct ChatRequest {
    agent_id: String,
    turns: Vec<Turn>,
    manner: Manner,
    new_chat: bool,
}

impl FromFields for ChatRequest {
    fn from_fields(mut fields: Fields) -> Result<Self, FieldFault> {
        Ok(Self {
            agent_id: fields.text("agentId")?,
            turns: turns(&mut fields)?,
            manner: Manner {
                stream: fields.flag("stream")?,
                cancel_on_disconnect: cancels_on_disconnect(&mut fields)?,
            },
            new_chat: fields.flag("newChat")?,
        })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(
    as = AgentChatResponse,
    example = json!({
        "content": "Hello!", "model": "demo", "usage": { "inputTokens": 1, "outputTokens": 1, "totalTokens": 2 },
    }),
)]
struct ChatResponse {
    /// The answer.
    content: String,
    /// The model that gave it.
    model: String,
    /// The tokens that it took.
    usage: ReportedUsage,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentChatUsage)]
struct ReportedUsage {
    /// Tokens of the prompt.
    input_tokens: u32,
    /// Tokens of the answer.
    output_tokens: u32,
    /// Both together.
    total_tokens: u64,
}

impl From<Usage> for ReportedUsage {
    fn from(usage: Usage) -> Self {
        let Usage { input_tokens, output_tokens, .. } = usage;
        Self { input_tokens, output_tokens, total_tokens: usage.total() }
    }
}

/// Chat with an agent, whole or as the answer is made.
///
/// With `stream: true` the answer comes as plain text in chunks while it is made. One that cannot be finished aborts the
/// connection: a clean end is always the whole answer.
#[utoipa::path(
    post,
    path = "/api/agents/chat",
    operation_id = "chat_with_agent",
    tag = "agents",
    request_body = ChatBody,
    responses((
        status = 200,
        description = "The answer: JSON, or with `stream: true` plain text.",
        content((ChatResponse = "application/json"), (String = "text/plain; charset=utf-8", example = "Hello!")),
        headers(
            ("X-Message-Id" = String, description = "Names the message."),
            ("Location" = String, description = "Where the message can be read."),
            ("Server-Timing" = String, description = "How many milliseconds it waited and ran; not of a stream."),
            ("Idempotent-Replayed" = String, description = "`true`: the answer to an earlier equal request."),
        ),
    )),
)]
async fn chat(
    admitted: Admitted<Rest>,
    State(desk): State<Arc<Desk>>,
    State(archive): State<Arc<Archive>>,
    Extension(context): Extension<Arc<RequestContext>>,
    work: Work<ChatRequest>,
) -> Result<Response, ApiError> {
    let Work { body: request, key, .. } = work;
    let id = request.agent_id.parse().map_err(|_| ApiError::AgentNotFound)?;
    let (agent, mut prompt) = desk.prompt(&admitted.caller, Channel::Api, id, request.turns, &context).await?;
    prompt.new_chat = request.new_chat;
    let ticket = desk.ticket(CHAT, key.as_ref(), &mut prompt, request.manner).await?;
    let is_replay = ticket.has_ended();
    let mut hang_up = HangUp::of(request.manner, &ticket, &archive, &admitted.caller);
    let answered = if request.manner.stream {
        match desk.stream(prompt, ticket, AGENT_FAILED, || hang_up.disarm()).await {
            Ok(answer) => return Ok(respond::replay(is_replay, Ok(streamed(answer, hang_up)))),
            Err(error) => Err(error),
        }
    } else {
        let joins = || hang_up.disarm();
        let answered = desk.call(prompt, ticket, Patience::Deadline, AGENT_FAILED, joins).await;
        answered.map(|answer| whole(&agent, answer))
    };
    hang_up.disarm();
    Ok(respond::replay(is_replay, answered))
}

fn whole(agent: &Agent, answer: Answer) -> Response {
    let headers = respond::finished_headers(&answer);
    let outcome = answer.outcome;
    let body = ChatResponse {
        content: outcome.content.unwrap_or_default(),
        model: outcome.model.unwrap_or_else(|| agent.spec.model.clone()),
        usage: outcome.usage.into(),
    };
    (headers, Json(body)).into_response()
}

/// The pieces as they come. An error among them makes hyper abort the connection, so that nobody takes a part for
/// the whole.
fn streamed(answer: AnswerStream, hang_up: HangUp) -> Response {
    let mut headers = respond::headers_of(answer.id);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    let pieces = stream::unfold((answer, hang_up), |(mut answer, mut hang_up)| async move {
        let piece = answer.next().await;
        if !matches!(piece, Some(Ok(_))) {
            hang_up.disarm();
        }
        Some((piece?, (answer, hang_up)))
    });
    (headers, Body::from_stream(pieces)).into_response()
}

/// The routes of this API.
pub fn routes() -> OpenApiRouter<AppState> {
    let gate = Step::Gate(Rest::NEEDS);
    let chat_steps = [gate, Step::Body, Step::Agent, Step::Repeat, Step::Queue, Step::End(AGENT_FAILED)];
    OpenApiRouter::new()
        .routes(passing(&[Step::Gate(Verified::NEEDS)], routes!(list)))
        .routes(passing(&chat_steps, routes!(chat)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_field() {
        let fault = |more: &str| {
            let body = format!(r#"{{"agentId":"a","message":"x",{more}}}"#);
            Fields::parse(body.as_bytes()).and_then(ChatRequest::from_fields).err().expect("a fault").to_string()
        };
        assert_eq!(fault(r#""stream":"yes""#), "`stream` has to be a boolean, not a string");
        assert_eq!(fault(r#""on_disconnect":"stop""#), "`on_disconnect` has to be continue or cancel");
    }

    #[test]
    fn the_total_is_the_sum() {
        let usage = ReportedUsage::from(Usage { input_tokens: u32::MAX, output_tokens: 1, estimated: false });
        assert_eq!(usage.total_tokens, u64::from(u32::MAX) + 1);
    }
}
