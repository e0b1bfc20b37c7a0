//! Rows of `messages`: from a job and what became of it, and back.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult, QueryFilter as _, QuerySelect as _, Value,
};
use uuid::Uuid;

use super::{entity::message, error::StoreError, sql};
use crate::domain::{
    account::MicroCredits,
    failure::Failure,
    ids::{AccountId, AgentId, KeyId, MessageId},
    job::Job,
    message::{MessageStatus, Usage},
    reply::Outcome,
    time::Millis,
};

/// The table and the columns that [`push`] fills, in its order.
pub(super) const HEAD: &str = "messages (id, account_id, key_id, agent_id, agent_version, channel, lane, status, \
     prompt, attempts, new_chat, created_at, started_at, expires_at, content, model, input_tokens, output_tokens, \
     usage_estimated, credits_charged, error_code, error_message, error_retryable, completed_at)";
/// How many columns [`HEAD`] names.
pub(super) const COLUMNS: usize = 24;

/// What is known about a job, beside itself.
pub(super) enum State<'a> {
    /// A worker runs it.
    Begun {
        /// How often it was begun.
        attempts: u32,
        /// When it was begun last.
        started_at: Millis,
    },
    /// It is over.
    Ended {
        /// How it ended.
        outcome: &'a Outcome,
        /// What it cost.
        credits_charged: MicroCredits,
    },
}

/// Appends one row to `values`.
pub(super) fn push(values: &mut Vec<Value>, job: &Job, state: &State<'_>) -> Result<(), StoreError> {
    let prompt = serde_json::to_string(&job.turns).map_err(|error| StoreError::unreadable("prompt", error))?;
    let (status, attempts, started_at) = match state {
        State::Begun { attempts, started_at } => (MessageStatus::InProgress, *attempts, Some(*started_at)),
        State::Ended { outcome, .. } => (outcome.status, outcome.attempts, outcome.started_at),
    };
    values.extend([
        job.id.0.into(),
        job.account.0.into(),
        job.key.0.into(),
        job.agent.0.into(),
        job.agent_version.into(),
        job.channel.name().into(),
        job.lane.name().into(),
        status.name().into(),
        prompt.into(),
        i64::from(attempts).into(),
        job.new_chat.into(),
        job.created_at.0.into(),
        started_at.map(|at| at.0).into(),
        job.start_by.0.into(),
    ]);
    match state {
        State::Begun { .. } => push_nothing(values),
        State::Ended { outcome, credits_charged } => push_end(values, outcome, *credits_charged),
    }
    Ok(())
}

fn push_end(values: &mut Vec<Value>, outcome: &Outcome, credits_charged: MicroCredits) {
    let failure = outcome.failure.as_ref();
    values.extend([
        sql::text(outcome.content.as_deref()),
        sql::text(outcome.model.as_deref()),
        i64::from(outcome.usage.input_tokens).into(),
        i64::from(outcome.usage.output_tokens).into(),
        outcome.usage.estimated.into(),
        credits_charged.into(),
        sql::text(failure.map(|failure| failure.code.name())),
        sql::text(failure.map(|failure| failure.message.as_str())),
        failure.map(|failure| failure.retryable).into(),
        Some(outcome.completed_at.0).into(),
    ]);
}

/// What [`push_end`] would write if there were an end.
fn push_nothing(values: &mut Vec<Value>) {
    values.extend([
        sql::text(None),
        sql::text(None),
        0_i64.into(),
        0_i64.into(),
        false.into(),
        0_i64.into(),
        sql::text(None),
        sql::text(None),
        Option::<bool>::None.into(),
        Option::<i64>::None.into(),
    ]);
}

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
    /// Where it stands.
    pub status: MessageStatus,
    /// When it was accepted.
    pub created_at: Millis,
    /// How it ended, when it has.
    pub outcome: Option<Outcome>,
}

/// What a [`StoredMessage`] is made of.
#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
    account_id: Uuid,
    key_id: Uuid,
    agent_id: Uuid,
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
    created_at: i64,
    started_at: Option<i64>,
    completed_at: Option<i64>,
}

impl Row {
    fn message(self) -> Result<StoredMessage, StoreError> {
        let status: MessageStatus = self.status.parse().map_err(|error| StoreError::unreadable("status", error))?;
        Ok(StoredMessage {
            id: MessageId(self.id),
            account: AccountId(self.account_id),
            key: KeyId(self.key_id),
            agent: AgentId(self.agent_id),
            status,
            created_at: Millis(self.created_at),
            outcome: if status.is_terminal() { Some(self.outcome(status)?) } else { None },
        })
    }

    fn outcome(self, status: MessageStatus) -> Result<Outcome, StoreError> {
        let completed_at = self.completed_at.ok_or_else(|| StoreError::unreadable("completed_at", "it is absent"))?;
        let failure = match self.error_code {
            Some(code) => Some(Failure {
                code: code.parse().map_err(|error| StoreError::unreadable("error_code", error))?,
                message: self.error_message.unwrap_or_default(),
                retryable: self.error_retryable.unwrap_or_default(),
            }),
            None => None,
        };
        Ok(Outcome {
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
        })
    }
}

/// A stored number that is never negative.
pub(super) fn count(what: &'static str, number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|error| StoreError::unreadable(what, error))
}

/// The messages of those of `ids` that have a row, in no order.
pub(super) async fn find<C: ConnectionTrait>(db: &C, ids: &[MessageId]) -> Result<Vec<StoredMessage>, StoreError> {
    use message::Column;
    let columns = [
        Column::Id,
        Column::AccountId,
        Column::KeyId,
        Column::AgentId,
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
        Column::CreatedAt,
        Column::StartedAt,
        Column::CompletedAt,
    ];
    let mut found = Vec::with_capacity(ids.len());
    for portion in sql::portions(ids.len()) {
        let select = message::Entity::find().select_only().columns(columns);
        let select = select.filter(Column::Id.is_in(ids[portion].iter().map(|id| id.0)));
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
    let found = find(db, ids).await?;
    Ok(found.into_iter().filter_map(|message| Some((message.id, message.outcome?))).collect())
}
