//! What the commands print.

use common::domain::{batch::BatchStatus, ids::BatchId};
use indicatif::HumanCount;
use serde::Serialize;

use super::{session::Finished, wire::Batch};
use crate::admin::output::View;

/// A batch, as the server has it.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct BatchView(pub Batch);

impl View for BatchView {
    const COLUMNS: &'static [&'static str] =
        &["batch", "status", "prompts", "answered", "failed", "cancelled", "created"];

    fn cells(&self) -> Vec<String> {
        let counts = self.0.request_counts;
        vec![
            self.0.batch_id.to_string(),
            self.0.status.to_string(),
            counts.total.to_string(),
            counts.completed.to_string(),
            counts.failed.to_string(),
            counts.cancelled.to_string(),
            self.0.created_at.clone(),
        ]
    }
}

/// How a run ended.
#[derive(Debug, Serialize)]
pub struct SummaryView {
    batch_id: BatchId,
    status: BatchStatus,
    /// How many prompts there are.
    total: u64,
    /// Whose results were written, by how they ended.
    completed: u64,
    failed: u64,
    expired: u64,
    cancelled: u64,
    /// Whose results are not, or not any more, at the server.
    missing: u64,
    /// Where the answers are.
    results: String,
    /// Where the others are; absent when all were answered.
    failures: Option<String>,
}

impl From<&Finished> for SummaryView {
    fn from(finished: &Finished) -> Self {
        let Finished { batch, tally, results, failures, .. } = finished;
        Self {
            batch_id: batch.batch_id,
            status: batch.status,
            total: batch.request_counts.total,
            completed: tally.completed,
            failed: tally.failed,
            expired: tally.expired,
            cancelled: tally.cancelled,
            missing: batch.request_counts.total.saturating_sub(tally.all()),
            results: results.display().to_string(),
            failures: failures.as_ref().map(|path| path.display().to_string()),
        }
    }
}

impl SummaryView {
    /// Whether every prompt was answered, and the answer is on disk.
    pub fn is_complete(&self) -> bool {
        self.completed >= self.total
    }

    /// What to do about the prompts that were not answered.
    pub fn way_on(&self) -> String {
        let (left, total) = (HumanCount(self.total.saturating_sub(self.completed)), HumanCount(self.total));
        let id = self.batch_id;
        let place = self.failures.as_ref().map(|path| format!(", see {path}")).unwrap_or_default();
        format!("{left} of {total} prompts were not answered{place}; `gateway batch retry-failed {id}` runs them again")
    }
}

impl View for SummaryView {
    const COLUMNS: &'static [&'static str] =
        &["batch", "status", "prompts", "answered", "failed", "expired", "cancelled", "missing", "results", "failures"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.batch_id.to_string(),
            self.status.to_string(),
            self.total.to_string(),
            self.completed.to_string(),
            self.failed.to_string(),
            self.expired.to_string(),
            self.cancelled.to_string(),
            self.missing.to_string(),
            self.results.clone(),
            self.failures.clone().unwrap_or_default(),
        ]
    }
}
