//! The body of a call.

use common::domain::job::Role;
use serde::Serialize;

use crate::providers::provider::{ErrorKind, ModelRequest, ModelTurn, ProviderError};

/// What is asked. Always a stream with usage, so that limits and cancellation act within one piece of the answer.
#[derive(Serialize)]
pub(super) struct ChatBody<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> ChatBody<'a> {
    /// The body for `request`; `completion_tokens`: under which name the most tokens go.
    pub(super) fn new(request: &ModelRequest<'a>, completion_tokens: bool) -> Self {
        let (max_completion_tokens, max_tokens) =
            if completion_tokens { (request.max_output_tokens, None) } else { (None, request.max_output_tokens) };
        Self {
            model: request.model,
            messages: request.turns.iter().map(message).collect(),
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            temperature: request.temperature,
            max_tokens,
            max_completion_tokens,
        }
    }

    /// Its JSON.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, ProviderError> {
        serde_json::to_vec(self).map_err(|error| ProviderError::new(ErrorKind::BadRequest).because(error))
    }
}

fn message<'a>(turn: &ModelTurn<'a>) -> Message<'a> {
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    Message { role, content: turn.content }
}
