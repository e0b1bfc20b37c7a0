//! What a worker says about a job: pieces of text while it runs, and how it ended.

use serde::{Deserialize, Serialize};

use super::{
    account::MicroCredits,
    failure::{Failure, FailureCode},
    ids::MessageId,
    message::{MessageStatus, Usage},
    time::Millis,
};

/// Which run of a job a frame belongs to. A later run compares greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// The job's sequence number in its stream.
    pub seq: u64,
    /// How often the queue has handed it out, from 1.
    pub delivery: u32,
    /// How often the model was asked anew within this delivery after text had left.
    #[serde(default)]
    pub restart: u32,
}

impl Attempt {
    /// Later than every run: the end that a caller gave the message.
    pub const LAST: Self = Self { seq: u64::MAX, delivery: u32::MAX, restart: u32::MAX };
}

/// How a message ended. Stored once; whatever comes later is shown the stored one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// A terminal status.
    pub status: MessageStatus,
    /// The whole answer; absent when there is none, or in a frame when it is larger than a frame may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The model that answered, as its provider named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// What was charged for it.
    #[serde(default)]
    pub credits_charged: MicroCredits,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How often the job was begun.
    #[serde(default)]
    pub attempts: u32,
    /// When the run that ended it began; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Millis>,
    /// When it ended.
    pub completed_at: Millis,
}

impl Outcome {
    /// The end of a message that its caller stopped at `at`, before anything was used.
    pub fn cancelled(at: Millis) -> Self {
        let message = "the message was cancelled".to_owned();
        Self {
            status: MessageStatus::Cancelled,
            content: None,
            model: None,
            usage: Usage::default(),
            credits_charged: 0,
            failure: Some(Failure { code: FailureCode::Cancelled, message, retryable: true }),
            attempts: 0,
            started_at: None,
            completed_at: at,
        }
    }

    /// Whether its content was too large for its frame: the row has it.
    pub fn content_is_elsewhere(&self) -> bool {
        self.status == MessageStatus::Completed && self.content.is_none()
    }
}

/// One message from a worker to whoever follows a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Which job.
    pub id: MessageId,
    /// Which run of it.
    pub attempt: Attempt,
    /// Counts the frames of this run from 0.
    pub n: u32,
    /// What is said.
    pub body: FrameBody,
}

/// What a [`Frame`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FrameBody {
    /// The run has begun, and has said nothing so far.
    Started {},
    /// A piece of the answer.
    Delta {
        /// Its place in the answer of this run, in bytes.
        at: usize,
        /// The piece.
        text: String,
    },
    /// The end.
    Terminal {
        /// How it ended. A completed outcome without content was too large: read the row.
        outcome: Outcome,
    },
}
