//! What every way in does with a prompt: finds the agent, prices the call, has it dispatched, judges its end.

use std::sync::Arc;

use common::domain::{agent::Agent, channel::Channel, ids::AgentId, job::Turn, message::MessageStatus};
use http::StatusCode;

use crate::{
    auth::caller::Caller,
    context::RequestContext,
    directory::Directory,
    dispatcher::{
        Dispatcher, Prompt,
        answer::{Answer, DispatchError},
        answer_stream::AnswerStream,
    },
    error::ApiError,
    prices::Prices,
};

/// Takes prompts from the channels.
pub struct Desk {
    /// Whom callers may name.
    pub directory: Directory,
    /// What that costs.
    pub prices: Prices,
    /// Who brings prompts to agents.
    pub dispatcher: Dispatcher,
    /// The most bytes of a body, for the sentence about one that was too large for the queue.
    pub body_limit: usize,
}

impl Desk {
    /// The agent `id`, and a prompt for it.
    ///
    /// # Errors
    /// When `caller` may not use it.
    pub async fn prompt(
        &self,
        caller: &Caller,
        channel: Channel,
        id: AgentId,
        turns: Vec<Turn>,
        context: &RequestContext,
    ) -> Result<(Arc<Agent>, Prompt), ApiError> {
        let agent = self.directory.usable(caller, id).await?;
        let prompt = Prompt {
            account: caller.account.id,
            balance: caller.account.balance,
            notifies: caller.account.has_endpoints,
            key: caller.key.id,
            agent: agent.id,
            agent_version: agent.version,
            price: self.prices.of(&agent.spec.model),
            channel,
            turns,
            new_chat: false,
            traceparent: Some(context.traceparent.to_string()),
        };
        Ok((agent, prompt))
    }

    /// The whole answer to `prompt`.
    ///
    /// # Errors
    /// When there is none; a failed agent gets the status `agent_failed`, in which the routes differ.
    pub async fn call(&self, prompt: Prompt, agent_failed: StatusCode) -> Result<Answer, ApiError> {
        let answer = self.dispatcher.call(prompt).await.map_err(|error| self.refusal(error, agent_failed))?;
        match answer.outcome.status {
            MessageStatus::Completed => Ok(answer),
            _ => Err(ApiError::ended(answer, agent_failed)),
        }
    }

    /// The answer to `prompt` as it is made, once there is something of it.
    ///
    /// # Errors
    /// As for [`Desk::call`], for whatever is known before the first piece.
    pub async fn stream(&self, prompt: Prompt, agent_failed: StatusCode) -> Result<AnswerStream, ApiError> {
        self.dispatcher.stream(prompt).await.map_err(|error| self.refusal(error, agent_failed))
    }

    fn refusal(&self, error: DispatchError, agent_failed: StatusCode) -> ApiError {
        match error {
            DispatchError::InsufficientCredits => ApiError::InsufficientCredits(None),
            DispatchError::Draining => ApiError::Draining,
            DispatchError::QueueFull => ApiError::QueueFull,
            DispatchError::TooLarge => ApiError::BodyTooLarge(self.body_limit),
            DispatchError::Unreachable { id, accepted } => ApiError::Unreachable { id, accepted },
            DispatchError::Timeout { id } => ApiError::Timeout(id),
            DispatchError::Ended(answer) => ApiError::ended(*answer, agent_failed),
        }
    }
}
