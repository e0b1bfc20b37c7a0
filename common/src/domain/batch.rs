//! Batches: many prompts that came in one request, each a line of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ids::{AccountId, BatchId, KeyId, MessageId},
    time::Millis,
};

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// Its lines are being put on the queue; the first ones may run already.
    Enqueuing,
    /// All of its lines are on the queue or have ended.
    InProgress,
    /// Every line has ended.
    Completed,
    /// Stopped while its lines were being put on the queue: no more of them are.
    Cancelling,
    /// Stopped; lines that had not ended then are cancelled.
    Cancelled,
}

/// A status that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("unknown batch status `{0}`")]
pub struct UnknownBatchStatus(String);

impl BatchStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Enqueuing, Self::InProgress, Self::Completed, Self::Cancelling, Self::Cancelled];

    /// Whether its counts can change no more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    /// Whether lines of it that have not begun are not to be run.
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Cancelling | Self::Cancelled)
    }

    /// The name that rows, bodies and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enqueuing => "enqueuing",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for BatchStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BatchStatus {
    type Err = UnknownBatchStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.name() == text).ok_or_else(|| UnknownBatchStatus(text.to_owned()))
    }
}

/// How many lines a batch has, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// All.
    pub total: u32,
    /// Those that were answered.
    pub completed: u32,
    /// Those that ended without an answer: failed or expired.
    pub failed: u32,
    /// Those that were stopped, one by one or with the batch.
    pub cancelled: u32,
}

impl BatchCounts {
    /// How many have not ended.
    pub fn unfinished(self) -> u32 {
        self.total.saturating_sub(self.completed + self.failed + self.cancelled)
    }
}

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its identifier.
    pub id: BatchId,
    /// Whose it is.
    pub account: AccountId,
    /// With which key it came in.
    pub key: KeyId,
    /// Where it stands.
    pub status: BatchStatus,
    /// How its lines ended so far.
    pub counts: BatchCounts,
    /// How many lines of the body made no sense and were left out on demand.
    pub skipped: u32,
    /// The batch whose lines without an answer it runs again.
    pub retry_of: Option<BatchId>,
    /// When it was accepted.
    pub created_at: Millis,
    /// When its last line was on the queue.
    pub enqueued_at: Option<Millis>,
    /// When it ended.
    pub completed_at: Option<Millis>,
}

/// The place of a job in its batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLine {
    /// The batch.
    pub batch: BatchId,
    /// Which line of the body it was, from 1.
    pub line: u32,
    /// How its caller names it.
    pub custom_id: String,
}

impl BatchLine {
    /// The message of this line: always the same one, so that a body that is sent again repeats nothing. Of the form
    /// of a UUIDv7 (RFC 9562, 5.7) with the batch's own time; later lines sort after earlier ones.
    pub fn message(&self) -> MessageId {
        let hash = Sha256::new().chain_update(self.batch.0.as_bytes()).chain_update(self.line.to_be_bytes()).finalize();
        let [h1, h2, h3, h4, h5, h6, ..] = <[u8; 32]>::from(hash);
        let random = u64::from_be_bytes([0, 0, h1, h2, h3, h4, h5, h6]);
        let line = u64::from(self.line);
        // 12 bits of the line behind the version, 20 behind the variant, 42 of the hash.
        let time = (self.batch.0.as_u128() >> 80) as u64;
        let high = time << 16 | 0x7 << 12 | line >> 20;
        let low = 0b10 << 62 | (line & 0xf_ffff) << 42 | random & ((1 << 42) - 1);
        MessageId(Uuid::from_u64_pair(high, low))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id_of(batch: BatchId, line: u32) -> MessageId {
        BatchLine { batch, line, custom_id: String::new() }.message()
    }

    #[test]
    fn the_messages_of_a_batch_are_its_own_and_in_the_order_of_its_lines() {
        let (one, other) = (BatchId::new(), BatchId::new());
        let lines = [1, 2, 49_999, 50_000, (1 << 20) + 1, u32::MAX];
        let ids: Vec<_> = lines.into_iter().map(|line| id_of(one, line)).collect();
        assert!(ids.is_sorted());
        let all: BTreeSet<_> = ids.iter().copied().chain(lines.into_iter().map(|line| id_of(other, line))).collect();
        assert_eq!(all.len(), 2 * lines.len());
        assert_eq!(ids[0], id_of(one, 1));
        for id in ids {
            assert_eq!((id.0.get_version_num(), id.0.get_variant()), (7, uuid::Variant::RFC4122));
            assert_eq!(id.0.get_timestamp(), one.0.get_timestamp());
        }
    }

    #[test]
    fn a_status_survives_its_name() {
        for status in BatchStatus::ALL {
            assert_eq!(status.name().parse::<BatchStatus>().expect("own name"), status);
            assert_eq!(serde_json::to_value(status).expect("json"), status.name());
        }
        assert!("paused".parse::<BatchStatus>().is_err());
    }

    #[test]
    fn what_has_not_ended_is_left() {
        let counts = BatchCounts { total: 10, completed: 3, failed: 2, cancelled: 1 };
        assert_eq!(counts.unfinished(), 4);
    }
}
