//! Jobs and their ends, as workers have them.

use std::sync::Arc;

use common::{
    domain::{
        batch::BatchLine,
        ids::{AccountId, AgentId, BatchId, KeyId, MessageId},
        job::{JOB_VERSION, Job, Lane, Price, Turn},
        reply::Outcome,
        time::Millis,
    },
    store::messages::Finish,
};
use serde_json::json;

/// A job of `account` that costs nothing.
pub fn job(account: AccountId) -> Arc<Job> {
    let now = Millis::now();
    // Read as from the queue, so that fields which jobs gain later take their defaults.
    let envelope = json!({
        "v": JOB_VERSION, "id": MessageId::new(), "account": account, "key": KeyId::new(), "agent": AgentId::new(),
        "agent_version": 1, "channel": "api", "lane": "interactive", "turns": [Turn::user("good morning")],
        "created_at": now, "publish_by": now, "start_by": now,
    });
    Arc::new(serde_json::from_value(envelope).expect("a job"))
}

/// A line of a batch, which costs `price` a token.
pub fn line(account: AccountId, batch: BatchId, line: u32, price: i64) -> Arc<Job> {
    let place = BatchLine { batch, line, custom_id: format!("line-{line}") };
    let price = Price { input: price * 1_000, output: price * 1_000 };
    Arc::new(Job { id: place.message(), lane: Lane::Batch, batch: Some(place), price, ..Job::clone(&job(account)) })
}

/// `job` has ended so.
pub fn finish(job: &Arc<Job>, outcome: Outcome) -> Finish {
    Finish { job: job.clone(), outcome }
}
