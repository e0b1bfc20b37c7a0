//! Under which id a request is handled: a new one, or that of the first request with the same key.

use common::{
    domain::{
        event::Callback,
        fingerprint::Fingerprint,
        ids::{AccountId, AgentId, BatchId, MessageId},
        job::Turn,
        time::Millis,
    },
    queue::{connection::Connection, jobs},
    sabotage::{self, Bug, Point},
    store::{connection::Store, error::StoreError, idempotency::Claimed},
};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;

use super::key::IdempotencyKey;
use crate::{
    dispatcher::{answer::Answer, prompt::Prompt},
    error::ApiError,
};

/// Under which id a request is handled, and what is known of that id.
#[derive(Debug)]
pub enum Ticket {
    /// Nobody else has it.
    New(MessageId),
    /// An earlier equal request took it, and there is no job of it: its gateway may have died before. To put an equal
    /// job on the queue under this id does no harm.
    Lost {
        /// The message.
        id: MessageId,
        /// When it was asked for first.
        created_at: Millis,
    },
    /// An earlier equal request made it, and it has not ended.
    Running {
        /// The message.
        id: MessageId,
        /// When it was asked for first.
        created_at: Millis,
    },
    /// An earlier equal request made it, and this is how it ended.
    Ended(Box<Answer>),
    /// An earlier equal request made it; it has ended, and its texts were purged.
    Purged(MessageId),
}

impl Ticket {
    /// The ticket of a request that has no key: each is a new one.
    pub fn unkeyed() -> Self {
        Self::New(MessageId::new())
    }

    /// The message.
    pub fn id(&self) -> MessageId {
        match self {
            Self::New(id) | Self::Lost { id, .. } | Self::Running { id, .. } | Self::Purged(id) => *id,
            Self::Ended(answer) => answer.id,
        }
    }

    /// Whether its job has to be put on the queue.
    pub fn needs_job(&self) -> bool {
        matches!(self, Self::New(_) | Self::Lost { .. })
    }

    /// Whether the message has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Purged(_))
    }
}

/// What two requests with one key have to have in common.
#[derive(Serialize)]
struct Asked<'a> {
    agent: AgentId,
    turns: &'a [Turn],
    new_chat: bool,
    callback: Option<&'a Callback>,
    metadata: Option<&'a Map<String, Value>>,
    manner: Manner,
}

/// How a request wants its answer, beside what it asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Manner {
    /// As it is made.
    pub stream: bool,
    /// Not any more once its caller is gone.
    pub cancel_on_disconnect: bool,
}

/// Knows requests that were sent before.
#[derive(Clone)]
pub struct Idempotency {
    store: Store,
    connection: Connection,
}

impl Idempotency {
    /// Remembers requests in `store`, and looks for their jobs on `connection`.
    pub fn new(store: Store, connection: Connection) -> Self {
        Self { store, connection }
    }

    /// The ticket of a request to `route` with `key`. Costs one durable write; a key that is known some reads more.
    ///
    /// # Errors
    /// 422 when the key came with another request before.
    pub async fn ticket(
        &self,
        route: &str,
        key: &IdempotencyKey,
        prompt: &Prompt,
        manner: Manner,
    ) -> Result<Ticket, ApiError> {
        self.claim(prompt.account, key, fingerprint(route, prompt, manner)?).await
    }

    /// The ticket of a request to `route` with `key` that runs the account's message `original` again. What that one
    /// asked for does not count: it may have been purged since the key was used first.
    ///
    /// # Errors
    /// 422 when the key came with another request before.
    pub async fn retry_ticket(
        &self,
        route: &str,
        key: &IdempotencyKey,
        account: AccountId,
        original: MessageId,
    ) -> Result<Ticket, ApiError> {
        self.claim(account, key, hashed(route, &original)?).await
    }

    /// The batch of a request to `route` with `key` for what was `asked`: `id`, unless an earlier equal request was given
    /// another one. A batch stands in a message's place; its route keeps the two apart.
    ///
    /// # Errors
    /// 422 when the key came with another request before.
    pub async fn batch_id(
        &self,
        route: &str,
        key: &IdempotencyKey,
        account: AccountId,
        asked: &impl Serialize,
        id: BatchId,
    ) -> Result<BatchId, ApiError> {
        let earlier = self.claim_id(account, key, hashed(route, asked)?, MessageId(id.0)).await?;
        Ok(earlier.map_or(id, |(earlier, _)| BatchId(earlier.0)))
    }

    async fn claim(
        &self,
        account: AccountId,
        key: &IdempotencyKey,
        fingerprint: Fingerprint,
    ) -> Result<Ticket, ApiError> {
        let id = MessageId::new();
        match self.claim_id(account, key, fingerprint, id).await? {
            None => Ok(Ticket::New(id)),
            Some((id, claimed_at)) => self.known(account, id, claimed_at).await,
        }
    }

    /// Makes `key` stand for `id`; or what it stands for already, and since when.
    async fn claim_id(
        &self,
        account: AccountId,
        key: &IdempotencyKey,
        fingerprint: Fingerprint,
        id: MessageId,
    ) -> Result<Option<(MessageId, Millis)>, ApiError> {
        if sabotage::has(Bug::KeyForgotten) {
            return Ok(None);
        }
        sabotage::reach(Point::BeforeKey);
        let claimed = self.store.claim_key(account, key.as_str(), fingerprint.0, id, Millis::now()).await;
        sabotage::reach(Point::AfterKey);
        match claimed.map_err(|error| unknown(&error))? {
            Claimed::New => Ok(None),
            Claimed::Known { same_fingerprint: false, .. } => Err(ApiError::IdempotencyKeyReused),
            Claimed::Known { id, claimed_at, .. } => Ok(Some((id, claimed_at))),
        }
    }

    /// What has become of the message that an earlier request was given.
    async fn known(&self, account: AccountId, id: MessageId, created_at: Millis) -> Result<Ticket, ApiError> {
        if let Some(ticket) = self.stored(id).await? {
            return Ok(ticket);
        }
        let on_queue = jobs::find(&self.connection, account, id).await.map_err(|error| lost_sight(id, &error))?;
        if on_queue.is_some() {
            return Ok(Ticket::Running { id, created_at });
        }
        // A worker may have stored the end, and acknowledged the job, between the two looks.
        Ok(self.stored(id).await?.unwrap_or(Ticket::Lost { id, created_at }))
    }

    /// A message that has a row was on the queue once, whatever its row says.
    async fn stored(&self, id: MessageId) -> Result<Option<Ticket>, ApiError> {
        let found = self.store.message(id).await.map_err(|error| lost_sight(id, &error))?;
        let Some(message) = found else { return Ok(None) };
        let created_at = message.created_at;
        match message.outcome {
            _ if message.purged_at.is_some() => Ok(Some(Ticket::Purged(id))),
            Some(outcome) => Ok(Some(Ticket::Ended(Box::new(Answer { id, created_at, outcome })))),
            None => Ok(Some(Ticket::Running { id, created_at })),
        }
    }
}

fn fingerprint(route: &str, prompt: &Prompt, manner: Manner) -> Result<Fingerprint, ApiError> {
    let asked = Asked {
        agent: prompt.agent,
        turns: &prompt.turns,
        new_chat: prompt.new_chat,
        callback: prompt.callback.as_ref(),
        metadata: prompt.metadata.as_ref(),
        manner,
    };
    hashed(route, &asked)
}

fn hashed(route: &str, asked: &impl Serialize) -> Result<Fingerprint, ApiError> {
    Fingerprint::of(route, asked).map_err(|error| {
        error!(%error, "could not make a fingerprint");
        ApiError::Internal
    })
}

/// This request was not put on the queue; an earlier one with its key may have been.
fn unknown(error: &StoreError) -> ApiError {
    error!(%error, "could not look up an idempotency key");
    ApiError::KeyUnknown
}

/// An earlier request may have been accepted.
fn lost_sight(id: MessageId, error: &dyn std::error::Error) -> ApiError {
    error!(message.id = %id, %error, "could not look for the message of an earlier request");
    ApiError::Unreachable { id, accepted: None }
}

#[cfg(test)]
mod tests {
    use common::domain::{
        channel::Channel,
        ids::KeyId,
        job::{Price, Role},
    };

    use tokio::time::Instant;

    use super::*;

    fn prompt(agent: AgentId) -> Prompt {
        Prompt {
            asked_at: Instant::now(),
            account: AccountId::new(),
            balance: 5,
            notifies: true,
            key: KeyId::new(),
            agent,
            agent_version: 1,
            price: Price::default(),
            channel: Channel::Api,
            turns: vec![Turn::user("hello")],
            new_chat: false,
            traceparent: Some("00-1-2-01".to_owned()),
            callback: None,
            metadata: None,
            retry_of: None,
            is_keyed: true,
        }
    }

    #[test]
    fn who_asks_and_what_it_costs_by_now_does_not_make_another_request() {
        let one = prompt(AgentId::new());
        let other = Prompt { agent_version: 2, balance: 0, price: Price { input: 1, output: 1 }, ..prompt(one.agent) };
        let of = |prompt: &Prompt| fingerprint("/r", prompt, Manner::default()).expect("a fingerprint");
        assert_eq!(of(&one), of(&other));
    }

    #[test]
    fn everything_that_was_asked_for_does() {
        let one = prompt(AgentId::new());
        let of = |route: &str, prompt: &Prompt, manner| fingerprint(route, prompt, manner).expect("a fingerprint");
        let first = of("/r", &one, Manner::default());
        assert_ne!(first, of("/s", &one, Manner::default()));
        assert_ne!(first, of("/r", &one, Manner { stream: true, ..Manner::default() }));
        assert_ne!(first, of("/r", &one, Manner { cancel_on_disconnect: true, ..Manner::default() }));
        let callback = Callback { url: "https://example.com".to_owned(), events: Vec::new() };
        for other in [
            prompt(AgentId::new()),
            Prompt { turns: vec![Turn::user("hello ")], ..one.clone() },
            Prompt { turns: vec![Turn { role: Role::System, content: "hello".to_owned() }], ..one.clone() },
            Prompt { new_chat: true, ..one.clone() },
            Prompt { callback: Some(callback), ..one.clone() },
            Prompt { metadata: Some(Map::new()), ..one.clone() },
        ] {
            assert_ne!(first, of("/r", &other, Manner::default()), "{other:?}");
        }
    }
}
