//! The bodies that the server sends, as much of them as is needed here.

use common::domain::{batch::BatchStatus, ids::BatchId, message::MessageStatus};
use serde::{Deserialize, Serialize};

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its identifier.
    pub batch_id: BatchId,
    /// Where it stands.
    pub status: BatchStatus,
    /// How many prompts it has, and how they ended so far.
    pub request_counts: Counts,
    /// The batch whose prompts without an answer it runs again.
    #[serde(default)]
    pub retry_of: Option<BatchId>,
    /// When it was accepted.
    pub created_at: String,
    /// When it ended.
    #[serde(default)]
    pub completed_at: Option<String>,
}

/// The prompts of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// Those that were answered.
    pub completed: u64,
    /// Those that failed, or were not begun in time.
    pub failed: u64,
    /// Those that were stopped.
    pub cancelled: u64,
}

/// The newest batches.
#[derive(Debug, Deserialize)]
pub struct Batches {
    /// The newest first.
    pub batches: Vec<Batch>,
}

/// What every result has, whatever else it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ResultHead {
    /// Its place in the order in which the batch's prompts ended, from 1.
    pub seq: u64,
    /// How it ended.
    pub status: MessageStatus,
}

/// A result as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLine {
    /// What has to be known of it here.
    pub head: ResultHead,
    /// All of it, with the end of its line.
    pub text: Vec<u8>,
}

/// An error.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, for people.
    pub error: String,
    /// The same for programs.
    pub code: String,
    /// How the server's log names the request.
    #[serde(default)]
    pub request_id: Option<String>,
    /// How many lines of the body make no sense.
    #[serde(default)]
    pub invalid_count: u64,
    /// The first of them.
    #[serde(default)]
    pub invalid_lines: Vec<InvalidLine>,
}

/// A line of a body that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InvalidLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: String,
}
