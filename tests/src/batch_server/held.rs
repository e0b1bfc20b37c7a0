//! A batch as the scripted server holds it.

use common::domain::ids::{BatchId, MessageId};
use serde_json::{Value, json};

/// A body that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: BatchId,
    pub(super) idempotency_key: String,
    pub(super) body: Vec<u8>,
    pub(super) cancelled: bool,
    /// One for each line that is not blank.
    results: Vec<Value>,
}

impl Held {
    /// The batch of `body`.
    pub(super) fn new(idempotency_key: &str, body: &[u8]) -> Self {
        let lines = body.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
        let results = lines.zip(1..).map(|((line, number), seq)| result(line, number, seq)).collect();
        let idempotency_key = idempotency_key.to_owned();
        Self { id: BatchId::new(), idempotency_key, body: body.to_vec(), cancelled: false, results }
    }

    /// Those of the results that are readable behind `after`, at most `page`.
    pub(super) fn results(&self, after: usize, let_through: usize, page: usize) -> String {
        let readable = self.results.iter().take(let_through).skip(after).take(page);
        readable.map(|result| format!("{result}\n")).collect()
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self, let_through: usize) -> bool {
        self.cancelled || let_through >= self.results.len()
    }

    /// The object that callers see.
    pub(super) fn object(&self, let_through: usize) -> Value {
        let count = |statuses: &[&str]| {
            let through = self.results.iter().take(let_through);
            through.filter(|result| result["status"].as_str().is_some_and(|status| statuses.contains(&status))).count()
        };
        let cancelled = if self.cancelled { self.results.len().saturating_sub(let_through) } else { 0 };
        let status = match (self.cancelled, self.has_ended(let_through)) {
            (true, _) => "cancelled",
            (false, true) => "completed",
            (false, false) => "in_progress",
        };
        json!({
            "batch_id": self.id, "status": status, "skipped": 0, "retry_of": null,
            "request_counts": {
                "total": self.results.len(), "completed": count(&["completed"]),
                "failed": count(&["failed", "expired"]), "cancelled": cancelled,
            },
            "created_at": "2026-11-21T09:30:00.125Z", "enqueued_at": null, "completed_at": null,
            "results_url": format!("/api/v1/batches/{}/results", self.id),
            "stream_url": format!("/api/v1/batches/{}/stream", self.id),
        })
    }
}

fn result(line: &[u8], number: usize, seq: usize) -> Value {
    let line: Value = serde_json::from_slice(line).expect("a line of JSON");
    let prompt = line["prompt"].as_str().expect("a prompt");
    let (status, error) = match prompt {
        _ if prompt.starts_with("fail") => ("failed", json!({ "code": "agent_failed", "message": "as asked" })),
        _ if prompt.starts_with("expire") => ("expired", json!({ "code": "expired", "message": "as asked" })),
        _ => ("completed", Value::Null),
    };
    json!({
        "seq": seq, "line": number, "custom_id": line["custom_id"], "message_id": MessageId::new(), "status": status,
        "content": if error.is_null() { prompt.into() } else { Value::Null }, "error": error,
    })
}
