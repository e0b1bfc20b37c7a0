//! A request that is wrong in several ways gets the first of them, in the contract's order.

use rstest::rstest;
use serde_json::json;
use tests::{
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::Stack,
};

/// Everything is wrong with the first request. From step to step one thing less is, until it is answered.
#[rstest]
#[tokio::test]
async fn checks_are_made_in_the_contracts_order(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let settings = Stack::on(database).set("FRONTDESK_PRICES", "demo=1000:1000").set("FRONTDESK_KEY_LIMIT", 1);
    let mut stack = settings.set("FRONTDESK_AUTH_FAILURE_LIMIT", 1).set("FRONTDESK_CACHE_TTL", "1h").start().await;
    let agent = json!({ "name": "Other", "model": "demo", "provider": "demo" });
    let (mine, other) = (stack.agent.clone(), stack.make_agent(&stack.account, &agent));
    let (account, caller) = (stack.account.clone(), Caller::of(&stack));
    caller.get("/api/v1/health").await.ok();
    stack.admin(&["account", "unverify", &account]);
    stack.admin(&["channel", "off", &account, "api"]);
    until("the gateway knows", async || {
        let answer = caller.chat(&mine, &nonce()).await;
        (answer.json()["code"] == "email_not_verified").then_some(())
    })
    .await;

    // Too large, no JSON, no credits; by a key that is over its limit, of an account without address and channel.
    let large = "x".repeat(70_000);
    let wrong = caller.with_key("sk-wrong");
    wrong.post("/api/v1/chat", large.as_str()).await.fault(401, "unauthorized");
    wrong.post("/api/v1/chat", large.as_str()).await.fault(429, "too_many_failures");
    caller.post("/api/v1/chat", large.as_str()).await.fault(403, "email_not_verified");
    stack.admin(&["account", "verify", &account]);
    until("the channel is asked for", async || {
        let answer = caller.post("/api/v1/chat", large.as_str()).await;
        (answer.json()["code"] != "email_not_verified").then(|| answer.fault(403, "channel_disabled"))
    })
    .await;
    stack.admin(&["channel", "on", &account, "api"]);
    until("the key's limit is asked for", async || {
        let answer = caller.post("/api/v1/chat", large.as_str()).await;
        (answer.json()["code"] != "channel_disabled").then(|| answer.fault(429, "rate_limited"))
    })
    .await;

    // From here on each request needs a key of its own.
    let keys: Vec<String> = (0..6).map(|n| stack.make_key(&account, &format!("key {n}"), &[])).collect();
    let mut fresh = keys.iter().map(|key| caller.with_key(key));
    let mut next = || fresh.next().expect("enough keys");
    let limited = caller.with_key(&stack.make_key(&account, "limited", &[&other]));
    let nothing = "0190b5a0-0000-7000-8000-000000000000";
    next().post("/api/v1/chat", large.as_str()).await.fault(413, "body_too_large");
    let without_prompt = json!({ "employee_id": nothing }).to_string();
    next().post("/api/v1/chat", without_prompt).await.fault(400, "invalid_request");
    next().chat(nothing, &nonce()).await.fault(404, "agent_not_found");
    limited.chat(&mine, &nonce()).await.fault(403, "agent_forbidden");
    stack.nats.process().kill();
    next().chat(&mine, &nonce()).await.fault(402, "insufficient_credits");
    stack.admin(&["credit", "grant", &account, "1"]);
    next().chat(&mine, &nonce()).await.fault(502, "unreachable");
    stack.nats.restart().await.expect("NATS comes back");
    stack.until_status("/readyz", 200, std::time::Duration::from_secs(60)).await.expect("ready");
    let prompt = nonce();
    assert_eq!(next().chat(&mine, &prompt).await.ok()["content"], prompt);
}

/// The door looks at the channel and the key before it reads: a caller without a key cannot make it read a body.
#[rstest]
#[tokio::test]
async fn the_other_api_keeps_the_same_order(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_KEY_LIMIT", 1).workers(0).start().await;
    let caller = Caller::of(&stack);
    let large = "x".repeat(70_000);
    caller.with_key("sk-wrong").post("/api/agents/chat", large.as_str()).await.fault(401, "unauthorized");
    caller.post("/api/agents/chat", large.as_str()).await.fault(413, "body_too_large");
    caller.post("/api/agents/chat", large.as_str()).await.fault(429, "rate_limited");
    stack.admin(&["channel", "off", &stack.account, "api"]);
    until("the channel is asked for", async || {
        let answer = caller.post("/api/agents/chat", large.as_str()).await;
        (answer.json()["code"] != "rate_limited").then(|| answer.fault(403, "channel_disabled"))
    })
    .await;
    let second = caller.with_key(&stack.make_key(&stack.account, "second", &[]));
    second.agent_chat("no uuid", &nonce()).await.fault(403, "channel_disabled");
}
