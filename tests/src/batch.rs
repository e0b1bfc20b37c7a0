//! Batches as their callers see them: bodies of lines, and what becomes of them.

use std::collections::BTreeMap;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{answer::Answer, patience::until, stack::Stack};

/// The media type of bodies and results.
pub const LINES: &str = "application/x-ndjson";
/// Where batches are.
pub const BATCHES: &str = "/api/v1/batches";

/// A line in our own form.
pub fn line(custom_id: &str, agent: &str, prompt: &str) -> String {
    json!({ "custom_id": custom_id, "employee_id": agent, "prompt": prompt }).to_string()
}

/// A body of `count` lines to `agent`: `line-1` asks `prompt 1`, and so on.
pub fn body(agent: &str, count: usize) -> String {
    (1..=count).map(|n| line(&format!("line-{n}"), agent, &format!("prompt {n}")) + "\n").collect()
}

/// A submission through the gateway `index` with the first key, to be completed and sent.
pub fn submission(stack: &Stack, index: usize, body: impl Into<reqwest::Body>) -> RequestBuilder {
    stack.request_at(index, Method::POST, BATCHES, &stack.key).header("content-type", LINES).body(body)
}

/// Submits `body` through the first gateway.
pub async fn submit(stack: &Stack, body: impl Into<reqwest::Body>) -> Answer {
    Answer::to(submission(stack, 0, body)).await
}

/// Submits `body`, which has to be accepted; returns the batch's id.
pub async fn accepted(stack: &Stack, body: impl Into<reqwest::Body>) -> String {
    let answer = submit(stack, body).await;
    assert_eq!(answer.status, 202, "{answer}");
    id_of(&answer)
}

/// The id of the batch in `answer`.
pub fn id_of(answer: &Answer) -> String {
    answer.json()["batch_id"].as_str().unwrap_or_else(|| panic!("no batch: {answer}")).to_owned()
}

/// The batch as it stands.
pub async fn read(stack: &Stack, id: &str) -> Value {
    Answer::of(stack.get(&format!("{BATCHES}/{id}")).await).await.ok()
}

/// The batch once it has ended.
pub async fn ended(stack: &Stack, id: &str) -> Value {
    until("the batch ends", async || {
        let batch = Answer::of(stack.get(&format!("{BATCHES}/{id}?wait=20")).await).await.ok();
        ["completed", "cancelled"].iter().any(|end| batch["status"] == *end).then_some(batch)
    })
    .await
}

/// The results with this query, in their order.
pub async fn results(stack: &Stack, id: &str, query: &str) -> Vec<Value> {
    let answer = Answer::of(stack.get(&format!("{BATCHES}/{id}/results?{query}")).await).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(LINES)), "{answer}");
    answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The results by `custom_id`, each of which has to be there once.
pub async fn results_by_id(stack: &Stack, id: &str) -> BTreeMap<String, Value> {
    let mut by_id = BTreeMap::new();
    for result in results(stack, id, "").await {
        let custom_id = result["custom_id"].as_str().expect("a custom_id").to_owned();
        assert_eq!(by_id.insert(custom_id, result.clone()), None, "twice: {result}");
    }
    by_id
}

/// `total`, `completed`, `failed` and `cancelled` of a batch.
pub fn counts(batch: &Value) -> [u64; 4] {
    let counts = &batch["request_counts"];
    ["total", "completed", "failed", "cancelled"].map(|name| counts[name].as_u64().expect("a count"))
}
