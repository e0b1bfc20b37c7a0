//! `gateway batch` against the whole product, with everybody killed on the way.

use std::{collections::BTreeSet, time::Duration};

use common::domain::ids::AgentId;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    client::Client,
    database::Database,
    patience::until,
    stack::{Ran, Stack},
};

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

#[rstest]
#[tokio::test]
async fn what_the_gateway_refuses_is_told(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).workers(0).start().await;
    let client = Client::of(&stack.url(""), &stack.key);
    let line = |id: &str, agent: &str| json!({ "custom_id": id, "employee_id": agent, "prompt": "Hello" }).to_string();
    let stranger = AgentId::new().to_string();
    let lines = [&line("a", &stack.agent), "nonsense", "", &line("a", &stack.agent), &line("b", &stranger)];
    client.write("prompts.jsonl", lines.join("\r\n"));
    let ran = client.run(SUBMIT).await;
    assert_told(&ran, &["prompts.jsonl has faults", "\n  line 2: ", "\n  line 4: ", "\n  line 5: "]);
    client.write("prompts.csv", format!("prompt\nfine\n,\n{}\n", "x".repeat(70_000)));
    let submit_table = ["submit", "prompts.csv", "-o", "results.jsonl", "--agent", &stack.agent];
    assert_told(&client.run(&submit_table).await, &["prompts.csv has faults", "\n  row 4: "]);

    // A refusal comes through although most of the body has not been read.
    stack.admin(&["channel", "off", &stack.account, "api"]);
    let padding = "x".repeat(60_000);
    let large = |number: usize| format!("{}\n", json!({ "custom_id": number, "prompt": padding }));
    client.write("prompts.jsonl", (0..500).map(large).collect::<String>());
    let ran = client.run(&[SUBMIT, &["--patience", "20s"]].concat()).await;
    assert_told(&ran, &["403 channel_disabled"]);
    assert_eq!(client.files(), ["prompts.csv", "prompts.jsonl"]);
    assert_eq!(client.run(&["list", "--json"]).await.stdout.trim(), "[]");
}

#[rstest]
#[tokio::test]
async fn a_batch_that_is_cancelled_ends_the_run(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_CONCURRENCY", 4).start().await;
    let client = Client::of(&stack.url(""), &stack.key);
    let line = |number: usize| {
        let prompt = if number == 1 { "quick" } else { "slow\n/sleep 60s" };
        format!("{}\n", json!({ "custom_id": number.to_string(), "employee_id": stack.agent, "prompt": prompt }))
    };
    client.write("prompts.jsonl", (1..=COUNT).map(line).collect::<String>());
    let mut command = client.start(SUBMIT);
    client.until_lines("results.jsonl", 1).await;
    let state: Value = serde_json::from_str(&client.read(STATE)).expect("JSON");
    let id = state["batch"]["id"].as_str().expect("an id");
    assert_eq!(client.run(&["cancel", id]).await.code, 0);
    assert_eq!(command.ended(PATIENCE).await.expect("an end"), 5, "{}", command.output());
    assert_eq!(client.custom_ids("results.jsonl"), ["1"]);
    let cancelled = client.lines("results.failures.jsonl");
    assert!(cancelled.iter().all(|result| result["status"] == "cancelled"), "{cancelled:?}");
    assert_eq!(client.custom_ids("results.failures.jsonl").iter().collect::<BTreeSet<_>>().len(), COUNT - 1);
}

#[track_caller]
fn assert_told(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 4, "{ran:?}");
    words.iter().for_each(|words| assert!(ran.stderr.contains(words), "{words:?} is not in {ran:?}"));
}
