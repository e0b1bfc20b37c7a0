//! Rows of `messages`, made from a job and what became of it.

use sea_orm::Value;
use serde::Serialize;

use super::{error::StoreError, sql};
use crate::domain::{account::MicroCredits, job::Job, message::MessageStatus, reply::Outcome, time::Millis};

/// The table and the columns that [`push`] fills, in its order.
pub(super) const HEAD: &str = "messages (id, account_id, key_id, agent_id, agent_version, channel, lane, status, \
     prompt, attempts, new_chat, created_at, started_at, expires_at, metadata, callback, retry_of, \
     batch_id, batch_line, custom_id, content, model, input_tokens, output_tokens, \
     usage_estimated, credits_charged, error_code, error_message, error_retryable, completed_at)";
/// How many columns [`HEAD`] names.
pub(super) const COLUMNS: usize = 30;

/// What is known about a job, beside itself.
pub(super) enum State<'a> {
    /// No worker has begun it.
    Queued,
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
    let prompt = json("prompt", &job.turns)?;
    let metadata = job.metadata.as_ref().map(|metadata| json("metadata", metadata)).transpose()?;
    let callback = job.callback.as_ref().map(|callback| json("callback", callback)).transpose()?;
    let (status, attempts, started_at) = match state {
        State::Queued => (MessageStatus::Queued, 0, None),
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
        metadata.into(),
        callback.into(),
        job.retry_of.map(|id| id.0).into(),
        job.batch.as_ref().map(|line| line.batch.0).into(),
        job.batch.as_ref().map(|line| i64::from(line.line)).into(),
        sql::text(job.batch.as_ref().map(|line| line.custom_id.as_str())),
    ]);
    match state {
        State::Queued | State::Begun { .. } => push_nothing(values),
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

/// `value` as JSON, in which a NUL is an escape that PostgreSQL can store.
fn json(what: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::unreadable(what, error))
}
