//! `gateway batch` against the whole product, with everybody killed on the way.

use std::{collections::BTreeSet, time::Duration};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{client::Client, database::Database, patience::until, stack::Stack};

const SUBMIT: &[&str] = &["submit", "prompts.jsonl", "-o", "results.jsonl"];
const STATE: &str = "results.jsonl.frontdesk";
const COUNT: usize = 240;
const PATIENCE: Duration = Duration::from_secs(120);

#[rstest]
#[tokio::test]
async fn a_batch_ends_with_each_answer_once_whoever_dies(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(2).set("FRONTDESK_CONCURRENCY", 4).set("FRONTDESK_ACK_WAIT", "2s");
    let mut stack = stack.start().await;
    let client = Client::of(&stack.url(""), &stack.key);
    let line = |number: usize| {
        let prompt = format!("prompt {number}\n/sleep 200ms");
        format!("{}\n", json!({ "custom_id": format!("c-{number}"), "employee_id": stack.agent, "prompt": prompt }))
    };
    client.write("prompts.jsonl", (1..=COUNT).map(line).collect::<String>());

    let mut command = client.start(SUBMIT);
    until("the upload has begun", async || client.path(STATE).exists().then_some(())).await;
    command.kill();
    let mut command = client.start(SUBMIT);
    client.until_lines("results.jsonl", 20).await;
    command.kill();
    let mut command = client.start(SUBMIT);
    client.until_lines("results.jsonl", 40).await;
    stack.restart_gateway(0).await;
    client.until_lines("results.jsonl", 80).await;
    stack.workers.remove(0).kill();
    stack.add_worker().await;
    assert_eq!(command.ended(PATIENCE).await.expect("an end"), 0, "{}", command.output());

    let ids = client.custom_ids("results.jsonl");
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (COUNT, COUNT));
    for result in client.lines("results.jsonl") {
        let number = result["custom_id"].as_str().and_then(|id| id.strip_prefix("c-")).expect("a number");
        assert_eq!(result["content"], format!("prompt {number}"), "{result}");
    }
    stack.until_billed(COUNT as i64, PATIENCE).await.expect("to be billed");
    let listed: Value = serde_json::from_str(&client.run(&["list", "--json"]).await.stdout).expect("JSON");
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["request_counts"]["completed"]), (Some(1), &json!(COUNT)));
}
