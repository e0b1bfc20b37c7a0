//! The batch as callers see it: one shape for reads, lists, streams and webhooks.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    batch::{Batch, BatchCounts, BatchStatus},
    ids::BatchId,
    time::{Millis, Moment},
};

/// A batch. What is not known, or not yet, is `null`; nothing is ever left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Batch)]
pub struct BatchObject {
    /// The batch.
    #[schema(value_type = String, format = "uuid")]
    pub batch_id: BatchId,
    /// Where it stands.
    pub status: BatchStatus,
    /// How many requests it has, and how they ended so far.
    pub request_counts: CountsObject,
    /// How many lines of its body made no sense and were left out on demand.
    pub skipped: u32,
    /// The batch whose lines without an answer it runs again.
    #[schema(value_type = Option<String>, format = "uuid", required)]
    pub retry_of: Option<BatchId>,
    /// When it was accepted.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Moment,
    /// When its last request was on the queue.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    pub enqueued_at: Option<Moment>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    pub completed_at: Option<Moment>,
    /// Where its results can be read, also while it runs.
    pub results_url: String,
    /// Where its progress can be followed.
    pub stream_url: String,
}

/// The requests of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = BatchCounts)]
pub struct CountsObject {
    /// All.
    pub total: u32,
    /// Those that were answered.
    pub completed: u32,
    /// Those that failed, or were not begun in time.
    pub failed: u32,
    /// Those that were stopped, one by one or with the batch.
    pub cancelled: u32,
}

/// Where a batch can be read.
pub fn batch_url(id: BatchId) -> String {
    format!("/api/v1/batches/{id}")
}

impl From<&Batch> for BatchObject {
    fn from(batch: &Batch) -> Self {
        let url = batch_url(batch.id);
        let BatchCounts { total, completed, failed, cancelled } = batch.counts;
        let moment = |at: Option<Millis>| at.map(Moment);
        Self {
            batch_id: batch.id,
            status: batch.status,
            request_counts: CountsObject { total, completed, failed, cancelled },
            skipped: batch.skipped,
            retry_of: batch.retry_of,
            created_at: Moment(batch.created_at),
            enqueued_at: moment(batch.enqueued_at),
            completed_at: moment(batch.completed_at),
            results_url: format!("{url}/results"),
            stream_url: format!("{url}/stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ids::{AccountId, KeyId};

    #[test]
    fn a_batch_shows_all_of_its_members() {
        let id = BatchId::new();
        let batch = Batch {
            id,
            account: AccountId::new(),
            key: KeyId::new(),
            status: BatchStatus::InProgress,
            counts: BatchCounts { total: 9, completed: 3, failed: 2, cancelled: 1 },
            skipped: 4,
            retry_of: None,
            created_at: Millis(1_795_253_400_125),
            enqueued_at: Some(Millis(1_795_253_401_000)),
            completed_at: None,
        };
        assert_eq!(
            serde_json::to_value(BatchObject::from(&batch)).expect("JSON"),
            json!({
                "batch_id": id, "status": "in_progress",
                "request_counts": { "total": 9, "completed": 3, "failed": 2, "cancelled": 1 },
                "skipped": 4, "retry_of": null, "created_at": "2026-11-21T09:30:00.125Z",
                "enqueued_at": "2026-11-21T09:30:01Z", "completed_at": null,
                "results_url": format!("/api/v1/batches/{id}/results"),
                "stream_url": format!("/api/v1/batches/{id}/stream"),
            })
        );
    }
}
