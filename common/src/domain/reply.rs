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
#[serde(tag = "type", rename_all = "snake_case", try_from = "Read")]
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

/// A [`FrameBody`] as it is read. A tagged enum would be read twice: into a tree of its fields, and from there.
#[derive(Deserialize)]
struct Read {
    #[serde(rename = "type")]
    kind: Kind,
    at: Option<usize>,
    text: Option<String>,
    outcome: Option<Outcome>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Started,
    Delta,
    Terminal,
}

/// A frame without what its kind needs.
#[derive(Debug, thiserror::Error)]
#[error("a frame without its `{0}`")]
struct Missing(&'static str);

impl TryFrom<Read> for FrameBody {
    type Error = Missing;

    fn try_from(Read { kind, at, text, outcome }: Read) -> Result<Self, Missing> {
        Ok(match kind {
            Kind::Started => Self::Started {},
            Kind::Delta => Self::Delta { at: at.ok_or(Missing("at"))?, text: text.ok_or(Missing("text"))? },
            Kind::Terminal => Self::Terminal { outcome: outcome.ok_or(Missing("outcome"))? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        let outcome = Outcome::cancelled(Millis(7));
        let delta = FrameBody::Delta { at: 3, text: "a\"b".to_owned() };
        for body in [FrameBody::Started {}, delta, FrameBody::Terminal { outcome }] {
            let frame = Frame { id: MessageId::new(), attempt: Attempt::default(), n: 2, body };
            let text = serde_json::to_string(&frame).expect("JSON");
            assert_eq!(serde_json::from_str::<Frame>(&text).expect(&text), frame);
        }
    }

    #[test]
    fn a_frame_says_what_it_is_wherever_that_stands_and_is_read_with_what_came_later() {
        let read = |text: &str| serde_json::from_str::<FrameBody>(text);
        let delta = FrameBody::Delta { at: 1, text: "a".to_owned() };
        assert_eq!(read(r#"{"new":[{}],"at":1,"text":"a","type":"delta"}"#).expect("a frame"), delta);
        assert!(read(r#"{"type":"delta","at":1}"#).expect_err("no text").to_string().contains("`text`"));
        assert!(read(r#"{"type":"newer"}"#).is_err() && read("{}").is_err());
    }
}
