//! How callers find employees, and which ones they may ask.

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::Stack,
};

#[rstest]
#[tokio::test]
async fn a35_an_employees_id_can_be_found(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    stack.another_account("second");
    let caller = Caller::of(&stack);
    let answer = caller.get("/api/agents").await;
    let expected = json!({ "id": stack.agent, "name": "Assistant", "description": "", "model": "demo" });
    assert_eq!(answer.ok(), json!({ "agents": [expected] }));

    let listed = stack.admin(&["agent", "list", &stack.account]);
    assert_eq!(listed.as_array().expect("a list").len(), 1);
    assert_eq!(listed[0]["id"], stack.agent);
    assert_eq!(stack.admin(&["agent", "show", &stack.agent])["name"], "Assistant");

    let (id, prompt) = (listed[0]["id"].as_str().expect("an id"), nonce());
    assert_eq!(caller.chat(id, &prompt).await.ok()["content"], prompt);
}

#[rstest]
#[tokio::test]
async fn an_agent_of_another_account_is_as_unknown_as_none(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let (_, others_agent, others_key) = stack.another_account("second");
    let caller = Caller::of(&stack);
    let key = stack.admin(&["key", "list", &stack.account])[0]["id"].clone();
    let unknown = "0190b5a0-0000-7000-8000-000000000000";
    let bodies = [unknown, &others_agent, key.as_str().expect("an id")].map(async |id| {
        let mut fault = caller.chat(id, &nonce()).await.fault(404, "agent_not_found");
        fault["request_id"].take();
        fault
    });
    let bodies: Vec<Value> = futures_util::future::join_all(bodies).await;
    assert!(bodies.iter().all(|body| *body == bodies[0]), "an existence leaks: {bodies:?}");
    let prompt = nonce();
    assert_eq!(caller.with_key(&others_key).chat(&others_agent, &prompt).await.ok()["content"], prompt);
}

/// The cache would believe the agent for an hour: only the operator's change itself can be what is seen.
#[rstest]
#[tokio::test]
async fn a_changed_agent_is_changed_at_once_and_a_removed_one_is_gone(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let settings = Stack::on(database).set("FRONTDESK_CACHE_TTL", "1h");
    let stack = settings.set("FRONTDESK_KEY_LIMIT", 100_000).start().await;
    let caller = Caller::of(&stack);
    caller.chat(&stack.agent, &nonce()).await.ok();

    let changed =
        json!({ "name": "Assistant", "model": "demo", "provider": "demo", "instructions": "four words of it" });
    assert_eq!(stack.make_agent(&stack.account, &changed), stack.agent, "matched by its name");
    until("the instructions are followed", async || {
        let answer = caller.agent_chat(&stack.agent, &nonce()).await.ok();
        (answer["usage"]["inputTokens"] == 6).then_some(())
    })
    .await;

    assert_eq!(stack.admin(&["agent", "remove", &stack.agent])["removed"], true);
    until("the agent is gone", async || {
        let answer = caller.chat(&stack.agent, &nonce()).await;
        (answer.status != 200).then(|| answer.fault(404, "agent_not_found"))
    })
    .await;
    assert_eq!(caller.get("/api/agents").await.ok(), json!({ "agents": [] }));
}
