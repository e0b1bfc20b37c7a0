//! A job: one message on the queue, with all that a worker needs to run it and to store its end.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    account::MicroCredits,
    batch::BatchLine,
    channel::Channel,
    event::{Callback, EventKind},
    ids::{AccountId, AgentId, GatewayId, KeyId, MessageId},
    message::{MessageStatus, Usage},
    time::Millis,
};

/// Which queue a job stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Somebody waits.
    Interactive,
    /// Webhooks and submissions without waiting.
    Background,
    /// Lines of batches.
    Batch,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Background, Self::Batch];

    /// The name in subjects, consumers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Background => "background",
            Self::Batch => "batch",
        }
    }

    /// Its place in [`Lane::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who said something in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// The caller.
    User,
    /// The agent.
    Assistant,
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// By whom.
    pub role: Role,
    /// What.
    pub content: String,
}

impl Turn {
    /// Something that the caller said.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }
}

/// What 1,000 tokens cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Per 1,000 input tokens.
    pub input: MicroCredits,
    /// Per 1,000 output tokens.
    pub output: MicroCredits,
}

impl Price {
    /// Whether nothing is charged.
    pub fn is_free(self) -> bool {
        self == Self::default()
    }

    /// The charge for `usage`, rounded up to a whole micro-credit.
    pub fn charge(self, usage: Usage) -> MicroCredits {
        let thousandths = i128::from(usage.input_tokens) * i128::from(self.input)
            + i128::from(usage.output_tokens) * i128::from(self.output);
        i64::try_from((thousandths + 999) / 1000).unwrap_or(i64::MAX)
    }
}

/// The version of [`Job`] that this code writes, and the newest that it reads.
pub const JOB_VERSION: u16 = 1;

/// The envelope on the queue. New fields get a default, so that an old job meets a new worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// [`JOB_VERSION`] of the gateway that wrote it.
    pub v: u16,
    /// The message's id; also the JetStream message id that makes a repeated publish harmless.
    pub id: MessageId,
    /// Who pays.
    pub account: AccountId,
    /// With which key it came in.
    pub key: KeyId,
    /// Who is to answer.
    pub agent: AgentId,
    /// The agent's version at the time of acceptance.
    pub agent_version: i32,
    /// The way in.
    pub channel: Channel,
    /// The queue it stands in.
    pub lane: Lane,
    /// The conversation so far; the last turn is the caller's.
    pub turns: Vec<Turn>,
    /// Whether the caller marked the beginning of a new conversation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_chat: bool,
    /// When the gateway accepted it.
    pub created_at: Millis,
    /// A job that JetStream stored after this moment was already answered as refused: it is not run.
    pub publish_by: Millis,
    /// A job that no worker began by this moment is not run.
    pub start_by: Millis,
    /// Until when its caller waits, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<Millis>,
    /// The gateway whose caller waits, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<GatewayId>,
    /// Whether that caller wants the text as it is made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// What its tokens cost, fixed at acceptance.
    #[serde(default)]
    pub price: Price,
    /// The account's balance as the door saw it; only looked at when the price is not zero.
    #[serde(default)]
    pub balance: MicroCredits,
    /// Where its end is to be told, beside the account's endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
    /// Whether the account had endpoints when the job was accepted: its end then looks for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notifies: bool,
    /// What the caller wants to find again with the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// The message that this one runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<MessageId>,
    /// Its place in a batch, if it came in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchLine>,
    /// Whether an equal job may have been on the queue before, and have ended: a worker looks before it runs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Job {
    /// Whether coming to `status` may make a webhook leave: somebody has to look for deliveries then.
    pub fn tells(&self, status: MessageStatus) -> bool {
        let Some(event) = EventKind::of(status) else { return false };
        self.notifies || self.callback.as_ref().is_some_and(|callback| callback.wants(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_rounded_up_and_never_overflows() {
        let price = Price { input: 1, output: 2_000 };
        let usage = |input_tokens, output_tokens| Usage { input_tokens, output_tokens, estimated: false };
        assert_eq!(price.charge(usage(0, 0)), 0);
        assert_eq!(price.charge(usage(1, 0)), 1);
        assert_eq!(price.charge(usage(0, 500)), 1_000);
        let dear = Price { input: i64::MAX, output: i64::MAX };
        assert_eq!(dear.charge(usage(u32::MAX, u32::MAX)), i64::MAX);
    }
}
