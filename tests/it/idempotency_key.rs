//! What an `Idempotency-Key` is, what it stands for, and when it is looked at.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::{Caller, chat_body},
    database::Database,
    patience::{nonce, until},
    raw,
    stack::Stack,
};

const CHAT: &str = "/api/v1/chat";
const MESSAGES: &str = "/api/v1/messages";
const WEBHOOK: &str = "/api/v1/webhook";

fn replayed(answer: &Answer) -> Option<&str> {
    answer.header("idempotent-replayed")
}

#[rstest]
#[tokio::test]
async fn a_key_stands_for_one_request_of_one_account(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    let other = stack.make_agent(&stack.account, &json!({ "name": "Other", "model": "demo", "provider": "demo" }));
    let caller = Caller::of(&stack).with_header("idempotency-key", "mine");
    let (agent, metadata) = (&stack.agent, json!({ "b": { "d": 1, "c": [1, 2] }, "a": null }));
    let mut body = json!({ "employee_id": agent, "prompt": "hello", "metadata": metadata });
    let first = caller.post(MESSAGES, body.to_string()).await;
    assert_eq!((first.status, replayed(&first)), (202, None), "{first}");

    let same = format!(
        r#" {{ "metadata": {{"a":null, "b":{{"c":[1,2],"d":1}}}}, "unknown": 7, "prompt": "\u0068ello",
            "employee_id": "{}" }} "#,
        agent.to_uppercase()
    );
    let again = caller.post(MESSAGES, same).await;
    assert_eq!((again.json(), replayed(&again)), (first.json(), Some("true")));

    let changes: [(&str, Value); 5] = [
        ("prompt", json!("hello ")),
        ("employee_id", json!(other)),
        ("metadata", json!({ "b": { "d": 1, "c": [2, 1] }, "a": null })),
        ("metadata", json!(null)),
        ("callback_url", json!("https://93.184.216.34/hook")),
    ];
    for (field, value) in changes {
        let before = body[field].clone();
        body[field] = value;
        caller.post(MESSAGES, body.to_string()).await.fault(422, "idempotency_key_reused");
        body[field] = before;
    }
    caller.post(WEBHOOK, body.to_string()).await.fault(422, "idempotency_key_reused");
    caller.post(CHAT, body.to_string()).await.fault(422, "idempotency_key_reused");

    let (_, agent, key) = stack.another_account("second");
    body["employee_id"] = json!(agent);
    let theirs = caller.with_key(&key).post(MESSAGES, body.to_string()).await;
    assert_eq!((theirs.status, replayed(&theirs)), (202, None), "{theirs}");
    assert_ne!(theirs.json()["message_id"], first.json()["message_id"]);
}

#[rstest]
#[tokio::test]
async fn a_key_has_up_to_255_printable_characters(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let body = chat_body(&stack.agent, "hello").to_string();
    let caller = Caller::of(&stack);
    let longest = "k".repeat(255);
    for key in ["k", "\"quoted\"", "with spaces, and ~", &longest] {
        assert_eq!(caller.with_header("idempotency-key", key).post(CHAT, body.as_str()).await.status, 200, "{key}");
    }
    let too_long = "k".repeat(256);
    for key in ["", "tab\there", "ümlaut", &too_long] {
        let fault = caller.with_header("idempotency-key", key).post(CHAT, body.as_str()).await;
        let fault = fault.fault(400, "invalid_request");
        assert!(fault["error"].as_str().is_some_and(|sentence| sentence.contains("Idempotency-Key")), "{fault}");
    }
    let twice = caller.with_header("idempotency-key", "a").with_header("idempotency-key", "b");
    twice.post(CHAT, body.as_str()).await.fault(400, "invalid_request");

    // A line end never gets into a key: it ends the header, or the request.
    for line_end in ["\r", "\n", "\r\n ", "\0"] {
        let lines = [
            &format!("Authorization: Bearer {}", stack.key),
            "Content-Type: application/json",
            &format!("Idempotency-Key: a{line_end}b"),
            &format!("Content-Length: {}", body.len()),
        ];
        let answer = raw::exchange(&stack.url(""), raw::head(&format!("POST {CHAT}"), &lines) + &body).await;
        assert_eq!(answer.status, 400, "{line_end:?}: {answer}");
    }
}

/// The key is looked at after the agent and before the credits, and a request that came to nothing keeps it.
#[rstest]
#[tokio::test]
async fn a_key_is_looked_at_before_the_credits(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let settings = Stack::on(database).set("FRONTDESK_PRICES", "demo=1000:1000").set("FRONTDESK_CACHE_TTL", "1h");
    let mut stack = settings.start().await;
    let (account, agent) = (stack.account.clone(), stack.agent.clone());
    let body = |prompt: &str| chat_body(&agent, prompt).to_string();
    let caller = Caller::of(&stack).with_header("idempotency-key", "later");
    caller.post(CHAT, body("hello")).await.fault(402, "insufficient_credits");
    caller.chat("0190b5a0-0000-7000-8000-000000000000", "hello").await.fault(404, "agent_not_found");
    caller.post(CHAT, body("something else")).await.fault(422, "idempotency_key_reused");
    stack.admin(&["credit", "grant", &account, "1"]);
    let answer = caller.post(CHAT, body("hello")).await;
    assert_eq!((&answer.ok()["content"], replayed(&answer)), (&json!("hello"), None));

    // The queue takes nothing: the key is kept for when it does.
    let caller = Caller::of(&stack).with_header("idempotency-key", "out of reach");
    stack.nats.process().kill();
    stack.until_status("/readyz", 503, Duration::from_secs(60)).await.expect("not ready");
    let refused = caller.post(CHAT, body("hello")).await.fault(502, "unreachable");
    assert_eq!(refused["accepted"], false);
    stack.nats.restart().await.expect("NATS comes back");
    stack.until_status("/readyz", 200, Duration::from_secs(60)).await.expect("ready");
    let answer = caller.post(CHAT, body("hello")).await.ok();
    assert_eq!(answer["message_id"], refused["message_id"]);

    // What has been answered is answered again, whatever is left.
    stack.admin(&["credit", "grant", &account, "-1"]);
    until("the credits are gone", async || {
        let answer = Caller::of(&stack).post(CHAT, body(&nonce())).await;
        (answer.status == 402).then_some(())
    })
    .await;
    assert_eq!(caller.post(CHAT, body("hello")).await.ok(), answer);
    caller.post(CHAT, body("hello there")).await.fault(422, "idempotency_key_reused");
}
