//! Rows of `messages`, read back.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter as _, QuerySelect as _, Select,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    entity::message::{Column, Entity},
    error::StoreError,
    sql,
};
use crate::domain::{
    channel::Channel,
    event::Callback,
    failure::Failure,
    ids::{AccountId, AgentId, KeyId, MessageId},
    message::{MessageStatus, Usage},
    object::MessageObject,
    reply::Outcome,
    time::{Millis, Moment},
};

/// A message as it is stored, without its prompt.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Its identifier.
    pub id: MessageId,
    /// Whose it is.
    pub account: AccountId,
    /// With which key it came in.
    pub key: KeyId,
    /// Who was to answer.
    pub agent: AgentId,
    /// In which version.
    pub agent_version: i32,
    /// The way in.
    pub channel: Channel,
    /// Where it stands.
    pub status: MessageStatus,
    /// The conversation that it belongs to.
    pub conversation: Option<Uuid>,
    /// The batch that it belongs to.
    pub batch: Option<Uuid>,
    /// What the caller gave along.
    pub metadata: Option<Map<String, Value>>,
    /// Where its end is told.
    pub callback: Option<Callback>,
    /// The message that it runs again.
    pub retry_of: Option<MessageId>,
    /// Whether its caller marked the beginning of a conversation.
    pub new_chat: bool,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was accepted.
    pub created_at: Millis,
    /// When it was begun last.
    pub started_at: Option<Millis>,
    /// When it expires if nobody has begun it.
    pub expires_at: Option<Millis>,
    /// When its texts were purged.
    pub purged_at: Option<Millis>,
    /// How it ended, when it has.
    pub outcome: Option<Outcome>,
}

impl StoredMessage {
    /// The message as its caller sees it.
    pub fn object(self) -> MessageObject {
        let object = MessageObject {
            message_id: self.id,
            employee_id: self.agent,
            responded_by: None,
            conversation_id: self.conversation,
            batch_id: self.batch,
            retry_of: self.retry_of,
            channel: self.channel,
            status: self.status,
            content: None,
            model: None,
            usage: Usage::default().into(),
            credits_charged: 0,
            attempts: self.attempts,
            error: None,
            metadata: self.metadata,
            created_at: Moment(self.created_at),
            started_at: self.started_at.map(Moment),
            completed_at: None,
            expires_at: self.expires_at.map(Moment),
            purged_at: self.purged_at.map(Moment),
        };
        match self.outcome {
            Some(outcome) => object.ended(outcome),
            None => object,
        }
    }
}

/// What an [`Outcome`] is made of, with the message's id.
#[derive(FromQueryResult)]
struct EndRow {
    id: Uuid,
    status: String,
    content: Option<String>,
    model: Option<String>,
    input_tokens: i64,
    output_tokens: i64,
    usage_estimated: bool,
    credits_charged: i64,
    attempts: i64,
    error_code: Option<String>,
    error_message: Option<String>,
    error_retryable: Option<bool>,
    started_at: Option<i64>,
    completed_at: Option<i64>,
}

const END: [Column; 14] = [
    Column::Id,
    Column::Status,
    Column::Content,
    Column::Model,
    Column::InputTokens,
    Column::OutputTokens,
    Column::UsageEstimated,
    Column::CreditsCharged,
    Column::Attempts,
    Column::ErrorCode,
    Column::ErrorMessage,
    Column::ErrorRetryable,
    Column::StartedAt,
    Column::CompletedAt,
];

impl EndRow {
    fn status(&self) -> Result<MessageStatus, StoreError> {
        parsed("status", &self.status)
    }

    /// How it ended, when it has.
    fn outcome(self) -> Result<Option<Outcome>, StoreError> {
        let status = self.status()?;
        if !status.is_terminal() {
            return Ok(None);
        }
        let completed_at = self.completed_at.ok_or_else(|| StoreError::unreadable("completed_at", "it is absent"))?;
        let failure = match self.error_code {
            Some(code) => Some(Failure {
                code: parsed("error_code", &code)?,
                message: self.error_message.unwrap_or_default(),
                retryable: self.error_retryable.unwrap_or_default(),
            }),
            None => None,
        };
        Ok(Some(Outcome {
            status,
            content: self.content,
            model: self.model,
            usage: Usage {
                input_tokens: count("input_tokens", self.input_tokens)?,
                output_tokens: count("output_tokens", self.output_tokens)?,
                estimated: self.usage_estimated,
            },
            credits_charged: self.credits_charged,
            failure,
            attempts: count("attempts", self.attempts)?,
            started_at: self.started_at.map(Millis),
            completed_at: Millis(completed_at),
        }))
    }
}

/// What a [`StoredMessage`] is made of.
#[derive(FromQueryResult)]
pub(super) struct Row {
    #[sea_orm(nested)]
    end: EndRow,
    account_id: Uuid,
    key_id: Uuid,
    agent_id: Uuid,
    agent_version: i32,
    channel: String,
    conversation_id: Option<Uuid>,
    batch_id: Option<Uuid>,
    metadata: Option<String>,
    callback: Option<String>,
    retry_of: Option<Uuid>,
    new_chat: bool,
    created_at: i64,
    expires_at: Option<i64>,
    purged_at: Option<i64>,
}

const REST: [Column; 14] = [
    Column::AccountId,
    Column::KeyId,
    Column::AgentId,
    Column::AgentVersion,
    Column::Channel,
    Column::ConversationId,
    Column::BatchId,
    Column::Metadata,
    Column::Callback,
    Column::RetryOf,
    Column::NewChat,
    Column::CreatedAt,
    Column::ExpiresAt,
    Column::PurgedAt,
];

impl Row {
    pub(super) fn message(self) -> Result<StoredMessage, StoreError> {
        Ok(StoredMessage {
            id: MessageId(self.end.id),
            account: AccountId(self.account_id),
            key: KeyId(self.key_id),
            agent: AgentId(self.agent_id),
            agent_version: self.agent_version,
            channel: parsed("channel", &self.channel)?,
            status: self.end.status()?,
            conversation: self.conversation_id,
            batch: self.batch_id,
            metadata: from_json("metadata", self.metadata)?,
            callback: from_json("callback", self.callback)?,
            retry_of: self.retry_of.map(MessageId),
            new_chat: self.new_chat,
            attempts: count("attempts", self.end.attempts)?,
            created_at: Millis(self.created_at),
            started_at: self.end.started_at.map(Millis),
            expires_at: self.expires_at.map(Millis),
            purged_at: self.purged_at.map(Millis),
            outcome: self.end.outcome()?,
        })
    }
}

/// A stored number that is never negative.
pub(super) fn count(what: &'static str, number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|error| StoreError::unreadable(what, error))
}

/// A stored name.
pub(super) fn parsed<T: std::str::FromStr<Err: ToString>>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error: T::Err| StoreError::unreadable(what, error))
}

/// Stored JSON, if there is any.
pub(super) fn from_json<T: DeserializeOwned>(
    what: &'static str,
    text: Option<String>,
) -> Result<Option<T>, StoreError> {
    let value = text.map(|text| serde_json::from_str(&text)).transpose();
    value.map_err(|error| StoreError::unreadable(what, error))
}

/// Selects what [`Row::message`] needs.
pub(super) fn select() -> Select<Entity> {
    select_from(Entity::find().select_only())
}

/// The same, from messages that something else is joined with.
pub(super) fn select_from<E: EntityTrait>(select: Select<E>) -> Select<E> {
    select.columns(END).columns(REST)
}

/// The messages of those of `ids` that have a row, in no order.
pub(super) async fn find<C: ConnectionTrait>(db: &C, ids: &[MessageId]) -> Result<Vec<StoredMessage>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for portion in sql::portions(ids.len()) {
        let select = select().filter(Column::Id.is_in(ids[portion].iter().map(|id| id.0)));
        for row in select.into_model::<Row>().all(db).await? {
            found.push(row.message()?);
        }
    }
    Ok(found)
}

/// The outcomes of those of `ids` that have ended, in no order.
pub(super) async fn outcomes<C: ConnectionTrait>(
    db: &C,
    ids: &[MessageId],
) -> Result<Vec<(MessageId, Outcome)>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for portion in sql::portions(ids.len()) {
        let select = Entity::find().select_only().columns(END);
        let select = select.filter(Column::Id.is_in(ids[portion].iter().map(|id| id.0)));
        for row in select.into_model::<EndRow>().all(db).await? {
            let id = MessageId(row.id);
            found.extend(row.outcome()?.map(|outcome| (id, outcome)));
        }
    }
    Ok(found)
}
