//! What every way in does with a prompt: finds the agent, prices the call, knows it again, has it dispatched, judges
//! its end.

use std::sync::Arc;

use common::{
    domain::{
        agent::Agent,
        channel::Channel,
        event::Callback,
        ids::{AccountId, AgentId, MessageId},
        job::Turn,
        message::MessageStatus,
    },
    outbound::guard::Guard,
};
use http::StatusCode;
use tokio::time::Instant;

use crate::{
    auth::caller::Caller,
    context::RequestContext,
    directory::Directory,
    dispatcher::{
        Dispatcher,
        answer::{Answer, DispatchError},
        answer_stream::AnswerStream,
        prompt::{Patience, Prompt},
    },
    error::ApiError,
    idempotency::{
        key::IdempotencyKey,
        ticket::{Idempotency, Manner, Ticket},
    },
    prices::Prices,
};

/// Takes prompts from the channels.
pub struct Desk {
    /// Whom callers may name.
    pub directory: Directory,
    /// What that costs.
    pub prices: Prices,
    /// Which requests were sent before.
    pub idempotency: Idempotency,
    /// Where callbacks may lead.
    pub guard: Guard,
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
        let asked_at = Instant::now();
        let agent = self.directory.usable(caller, id).await?;
        let prompt = Prompt {
            asked_at,
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
            callback: None,
            metadata: None,
            retry_of: None,
            is_keyed: false,
        };
        Ok((agent, prompt))
    }

    /// Looks whether `callback` leads where we go.
    ///
    /// # Errors
    /// 400 when it does not.
    pub async fn check(&self, callback: &Callback) -> Result<(), ApiError> {
        let checked = self.guard.check(&callback.url).await;
        checked.map_err(|refusal| ApiError::BadRequest(format!("`callback_url` {refusal}")))
    }

    /// Under which id `prompt` is handled: without a key under a new one, which costs nothing. The prompt knows then
    /// whether it has one.
    ///
    /// # Errors
    /// See [`Idempotency::ticket`].
    pub async fn ticket(
        &self,
        route: &str,
        key: Option<&IdempotencyKey>,
        prompt: &mut Prompt,
        manner: Manner,
    ) -> Result<Ticket, ApiError> {
        prompt.is_keyed = key.is_some();
        match key {
            None => Ok(Ticket::unkeyed()),
            Some(key) => Box::pin(self.idempotency.ticket(route, key, prompt, manner)).await,
        }
    }

    /// Like [`Desk::ticket`] for a request to run the account's message `original` again, which asks for nothing else.
    ///
    /// # Errors
    /// As there.
    pub async fn retry_ticket(
        &self,
        route: &str,
        key: Option<&IdempotencyKey>,
        account: AccountId,
        original: MessageId,
    ) -> Result<Ticket, ApiError> {
        match key {
            None => Ok(Ticket::unkeyed()),
            Some(key) => Box::pin(self.idempotency.retry_ticket(route, key, account, original)).await,
        }
    }

    /// The whole answer to `prompt`. Calls `joins` when it turns out that another request's job is waited for.
    ///
    /// # Errors
    /// When there is none; a failed agent gets the status `agent_failed`, in which the routes differ.
    pub async fn call(
        &self,
        prompt: Prompt,
        ticket: Ticket,
        patience: Patience,
        agent_failed: StatusCode,
        joins: impl FnOnce() + Send,
    ) -> Result<Answer, ApiError> {
        let (account, asked_at) = (prompt.account, prompt.asked_at);
        let dispatched = match ticket {
            Ticket::New(id) => self.dispatcher.call(prompt, id, patience, joins).await,
            Ticket::Lost { id, created_at } => {
                self.dispatcher.call_again(prompt, id, created_at, patience, joins).await
            }
            Ticket::Running { id, created_at } => {
                self.dispatcher.join(account, asked_at, id, created_at, patience).await
            }
            Ticket::Ended(answer) => Ok(*answer),
            Ticket::Purged(id) => return Err(ApiError::Purged(id)),
        };
        let answer = dispatched.map_err(|error| self.refusal(error, agent_failed))?;
        match answer.outcome.status {
            MessageStatus::Completed => Ok(answer),
            _ => Err(ApiError::ended(answer, agent_failed)),
        }
    }

    /// The answer to `prompt` as it is made, once there is something of it.
    ///
    /// # Errors
    /// As for [`Desk::call`], for whatever is known before the first piece.
    pub async fn stream(
        &self,
        prompt: Prompt,
        ticket: Ticket,
        agent_failed: StatusCode,
        joins: impl FnOnce() + Send,
    ) -> Result<AnswerStream, ApiError> {
        let (account, asked_at) = (prompt.account, prompt.asked_at);
        let dispatched = match ticket {
            Ticket::New(id) => self.dispatcher.stream(prompt, id, joins).await,
            Ticket::Lost { id, created_at } => self.dispatcher.stream_again(prompt, id, created_at, joins).await,
            Ticket::Running { id, created_at } => self.dispatcher.follow(account, asked_at, id, created_at).await,
            Ticket::Ended(answer) => AnswerStream::of(*answer),
            Ticket::Purged(id) => return Err(ApiError::Purged(id)),
        };
        dispatched.map_err(|error| self.refusal(error, agent_failed))
    }

    /// Has `prompt` done without waiting: returns once its job is on the queue.
    ///
    /// # Errors
    /// When it is not known to be there.
    pub async fn submit(&self, prompt: Prompt, ticket: &Ticket) -> Result<(), ApiError> {
        if !ticket.needs_job() {
            return Ok(());
        }
        let submitted = match ticket {
            Ticket::Lost { id, .. } => self.dispatcher.submit(prompt, *id).await.map_err(DispatchError::of_repeat),
            _ => self.dispatcher.submit(prompt, ticket.id()).await,
        };
        // Nothing is answered yet, so that no agent can have failed.
        submitted.map_err(|error| self.refusal(error, StatusCode::INTERNAL_SERVER_ERROR))
    }

    fn refusal(&self, error: DispatchError, agent_failed: StatusCode) -> ApiError {
        match error {
            DispatchError::InsufficientCredits => ApiError::InsufficientCredits(None),
            DispatchError::Draining => ApiError::Draining,
            DispatchError::AccountQueueFull(limit) => ApiError::AccountQueueFull(limit),
            DispatchError::QueueFull => ApiError::QueueFull,
            DispatchError::TooLarge => ApiError::BodyTooLarge(self.body_limit),
            DispatchError::Unreachable { id, accepted } => ApiError::Unreachable { id, accepted },
            DispatchError::Timeout { id } => ApiError::Timeout(id),
            DispatchError::Ended(answer) => ApiError::ended(*answer, agent_failed),
        }
    }
}
