//! The message as callers see it: one shape for reads, lists, streams and webhooks.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    account::MicroCredits,
    channel::Channel,
    failure::Failure,
    ids::{AgentId, MessageId},
    job::Job,
    message::{MessageStatus, Usage},
    reply::Outcome,
    time::{Millis, Moment},
};

/// A message without its prompt. What is not known, or not yet, is `null`; nothing is ever left out.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageObject {
    /// The message.
    #[schema(value_type = String, format = "uuid")]
    pub message_id: MessageId,
    /// The agent that was asked.
    #[schema(value_type = String, format = "uuid")]
    pub employee_id: AgentId,
    /// The agent that answered, once one has.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    pub responded_by: Option<AgentId>,
    /// The conversation that it belongs to.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    pub conversation_id: Option<Uuid>,
    /// The batch that it belongs to.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    pub batch_id: Option<Uuid>,
    /// The message that it runs again.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    pub retry_of: Option<MessageId>,
    /// The way in.
    pub channel: Channel,
    /// Where it stands.
    pub status: MessageStatus,
    /// The whole answer; only of a completed message, and gone with a purge.
    #[schema(required)]
    pub content: Option<String>,
    /// The model that answered, as its provider named it.
    #[schema(required)]
    pub model: Option<String>,
    /// What it used; zeros until the end.
    pub usage: UsageObject,
    /// What was charged for it.
    #[schema(value_type = i64)]
    pub credits_charged: MicroCredits,
    /// How often it was begun.
    pub attempts: u32,
    /// Why there is no answer.
    #[schema(required)]
    pub error: Option<Failure>,
    /// What the caller gave along.
    #[schema(value_type = Option<Object>, required)]
    pub metadata: Option<Map<String, Value>>,
    /// When it was accepted.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Moment,
    /// When the run that ended it, or that runs, began.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    pub started_at: Option<Moment>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    pub completed_at: Option<Moment>,
    /// When it expires if nobody has begun it.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    pub expires_at: Option<Moment>,
    /// When its texts were purged.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    pub purged_at: Option<Moment>,
}

/// Tokens as callers see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageObject {
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Both together.
    pub total_tokens: u64,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        let Usage { input_tokens, output_tokens, .. } = usage;
        Self { input_tokens, output_tokens, total_tokens: usage.total() }
    }
}

impl MessageObject {
    /// The message of `job` as long as nothing more is known of it.
    pub fn queued(job: &Job) -> Self {
        Self {
            message_id: job.id,
            employee_id: job.agent,
            responded_by: None,
            conversation_id: None,
            batch_id: job.batch.as_ref().map(|line| line.batch.0),
            retry_of: job.retry_of,
            channel: job.channel,
            status: MessageStatus::Queued,
            content: None,
            model: None,
            usage: UsageObject::default(),
            credits_charged: 0,
            attempts: 0,
            error: None,
            metadata: job.metadata.clone(),
            created_at: Moment(job.created_at),
            started_at: None,
            completed_at: None,
            expires_at: Some(Moment(job.start_by)),
            purged_at: None,
        }
    }

    /// The same message once a worker runs it, for the `attempts`th time.
    #[must_use]
    pub fn begun(self, attempts: u32, started_at: Option<Millis>) -> Self {
        Self { status: MessageStatus::InProgress, attempts, started_at: started_at.map(Moment), ..self }
    }

    /// The same message once it has ended with `outcome`.
    #[must_use]
    pub fn ended(self, outcome: Outcome) -> Self {
        let is_answered = outcome.status == MessageStatus::Completed;
        Self {
            responded_by: is_answered.then_some(self.employee_id),
            status: outcome.status,
            content: outcome.content,
            model: outcome.model,
            usage: outcome.usage.into(),
            credits_charged: outcome.credits_charged,
            attempts: outcome.attempts,
            error: outcome.failure,
            started_at: outcome.started_at.map(Moment),
            completed_at: Some(Moment(outcome.completed_at)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::failure::FailureCode;

    fn job() -> Job {
        let id = MessageId::new();
        let envelope = json!({
            "v": 1, "id": id, "account": id, "key": id, "agent": id, "agent_version": 1, "channel": "api",
            "lane": "interactive", "turns": [], "created_at": 1, "publish_by": 2, "start_by": 3,
        });
        serde_json::from_value(envelope).expect("a job")
    }

    fn outcome(status: MessageStatus, content: Option<&str>, failure: Option<Failure>) -> Outcome {
        Outcome {
            status,
            content: content.map(str::to_owned),
            model: None,
            usage: Usage { input_tokens: 2, output_tokens: 3, estimated: false },
            credits_charged: 7,
            failure,
            attempts: 1,
            started_at: None,
            completed_at: Millis(9),
        }
    }

    fn shown(object: &MessageObject) -> Value {
        serde_json::to_value(object).expect("an object")
    }

    #[test]
    fn an_object_has_all_of_its_members_from_the_start() {
        let job = job();
        let queued = shown(&MessageObject::queued(&job));
        let members = |object: &Value| object.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let ended = shown(&MessageObject::queued(&job).ended(outcome(MessageStatus::Completed, Some("hello"), None)));
        assert_eq!(members(&queued), members(&ended));
        assert_eq!((&queued["status"], &queued["content"]), (&json!("queued"), &Value::Null));
        assert_eq!(queued["created_at"], json!(job.created_at.to_string()));
        assert_eq!((&ended["status"], &ended["content"]), (&json!("completed"), &json!("hello")));
        assert_eq!(ended["responded_by"], json!(job.agent));
        assert_eq!(ended["usage"], json!({ "input_tokens": 2, "output_tokens": 3, "total_tokens": 5 }));
    }

    #[test]
    fn a_failure_is_told_and_nobody_responded() {
        let failure = Failure { code: FailureCode::RunLimit, message: "too long".to_owned(), retryable: true };
        let outcome = outcome(MessageStatus::Failed, None, Some(failure));
        let ended = shown(&MessageObject::queued(&job()).begun(1, None).ended(outcome));
        assert_eq!(ended["error"], json!({ "code": "run_limit", "message": "too long", "retryable": true }));
        assert_eq!(ended["responded_by"], Value::Null);
    }
}
