//! Submission without waiting: `POST /api/v1/messages`, `POST /api/v1/webhook`, and `Prefer` on a chat.

use std::{collections::BTreeSet, time::Duration};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::{Caller, chat_body},
    database::{Database, query},
    model::{Behaviour, Gate, ModelServer},
    patience::{nonce, until},
    stack::Stack,
};

const CHAT: &str = "/api/v1/chat";
const MESSAGES: &str = "/api/v1/messages";
const WEBHOOK: &str = "/api/v1/webhook";

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// The message that a 202 is about.
#[track_caller]
fn accepted(answer: &Answer, status: &str) -> String {
    let body = answer.json();
    assert_eq!((answer.status, &body["status"]), (202, &json!(status)), "{answer}");
    let id = body["message_id"].as_str().expect("an id").to_owned();
    let url = format!("/api/v1/messages/{id}");
    assert_eq!((body["status_url"].as_str(), answer.header("location")), (Some(url.as_str()), Some(url.as_str())));
    assert_eq!(answer.header("x-message-id"), Some(id.as_str()));
    id
}

/// The end of a message.
async fn ended(caller: &Caller, id: &str) -> Value {
    until("the message has ended", async || {
        let message = caller.get(&format!("{MESSAGES}/{id}?wait=60")).await.ok();
        (!["queued", "in_progress"].contains(&message["status"].as_str().expect("a status"))).then_some(message)
    })
    .await
}

#[rstest]
#[tokio::test]
async fn a30_a_message_is_taken_without_waiting(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::echo().held_after(0, &gate));
    let stack = Stack::with_model(database, &model).gateways(2).start().await;
    let (caller, prompt) = (Caller::of(&stack), nonce());
    let metadata = json!({ "order": 7, "nested": { "list": [null, "é"] } });
    let body = json!({ "employee_id": stack.agent, "prompt": prompt, "metadata": metadata });
    let answer = caller.post(MESSAGES, body.to_string()).await;
    let id = accepted(&answer, "queued");
    assert_eq!(answer.members(), set(["message_id", "employee_id", "status", "status_url", "stream_url"]));
    assert_eq!(answer.json()["stream_url"], format!("{MESSAGES}/{id}/stream"));
    assert_eq!(answer.json()["employee_id"], stack.agent);
    // At once, and through the other gateway.
    let elsewhere = caller.at(&stack.gateways[1]);
    let message = elsewhere.get(&format!("{MESSAGES}/{id}")).await.ok();
    assert!(["queued", "in_progress"].contains(&message["status"].as_str().expect("a status")), "{message}");
    assert_eq!((&message["metadata"], &message["content"]), (&metadata, &json!(null)));
    gate.open();
    let message = ended(&elsewhere, &id).await;
    assert_eq!((&message["status"], &message["content"]), (&json!("completed"), &json!(prompt)));
    assert_eq!((&message["metadata"], &message["channel"]), (&metadata, &json!("api")));
}

#[rstest]
#[tokio::test]
async fn a30_the_webhooks_channel_has_a_switch_of_its_own(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    let prompt = nonce();
    let body = chat_body(&stack.agent, &prompt).to_string();
    caller.post(WEBHOOK, body.as_str()).await.fault(403, "channel_disabled");
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    stack.admin(&["channel", "off", &stack.account, "api"]);
    let answer = until("the channel is on", async || {
        let answer = caller.post(WEBHOOK, body.as_str()).await;
        (answer.status != 403).then_some(answer)
    })
    .await;
    let id = accepted(&answer, "queued");
    assert_eq!(answer.members(), set(["message_id", "status", "status_url"]));
    until("the API channel is off", async || {
        let answer = caller.post(MESSAGES, body.as_str()).await;
        (answer.status == 403).then(|| answer.fault(403, "channel_disabled"))
    })
    .await;
    let message = ended(&caller, &id).await;
    assert_eq!((&message["channel"], &message["content"]), (&json!("webhooks"), &json!(prompt)));
}

/// A message that no worker has begun has a row all the same, soon.
#[rstest]
#[tokio::test]
async fn a_submitted_message_gets_a_row_before_it_is_begun(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).start().await;
    let caller = Caller::of(&stack);
    for _ in 0..3 {
        accepted(&caller.post(MESSAGES, chat_body(&stack.agent, &nonce()).to_string()).await, "queued");
    }
    let statement = "SELECT count(*) FROM messages WHERE status = 'queued' AND lane = 'background'";
    until("the rows are there", async || {
        (query(&stack.database_url, statement).expect("a count") == "3").then_some(())
    })
    .await;
}

/// 202 means that the job is on the queue: what the queue did not take is not answered so.
#[rstest]
#[tokio::test]
async fn what_the_queue_does_not_take_is_not_accepted(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).set("FRONTDESK_JOBS_MAX_MESSAGES", 2).workers(0).start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    let caller = Caller::of(&stack);
    let body = chat_body(&stack.agent, &nonce()).to_string();
    accepted(&caller.post(MESSAGES, body.as_str()).await, "queued");
    accepted(&caller.post(WEBHOOK, body.as_str()).await, "queued");
    for path in [MESSAGES, WEBHOOK] {
        let fault = caller.post(path, body.as_str()).await.fault(503, "queue_full");
        assert_eq!((&fault["accepted"], &fault["retryable"]), (&json!(false), &json!(true)));
    }
    stack.nats.process().kill();
    stack.until_status("/readyz", 503, Duration::from_secs(60)).await.expect("not ready");
    for path in [MESSAGES, WEBHOOK] {
        assert_eq!(caller.post(path, body.as_str()).await.fault(502, "unreachable")["accepted"], false);
    }
    let asynchronous = caller.with_header("prefer", "respond-async").post(CHAT, body.as_str()).await;
    assert_eq!(asynchronous.fault(502, "unreachable")["accepted"], false);
}

#[rstest]
#[tokio::test]
async fn what_makes_no_sense_names_its_field(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).workers(0).set("FRONTDESK_KEY_LIMIT", 10_000).start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    let caller = Caller::of(&stack);
    let too_long = format!("https://example.com/{}", "x".repeat(2_048));
    let url = json!("https://93.184.216.34/hook");
    let mut wrong = vec![
        ("callback_url", json!({ "callback_url": 7 })),
        ("callback_url", json!({ "callback_url": too_long })),
        ("callback_events", json!({ "callback_events": ["message.completed"] })),
        ("callback_events", json!({ "callback_url": url, "callback_events": [] })),
        ("callback_events[0]", json!({ "callback_url": url, "callback_events": ["webhook.test"] })),
        ("metadata", json!({ "metadata": [] })),
        ("metadata", json!({ "metadata": { "k": "x".repeat(16_384) } })),
    ];
    for address in [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://localhost/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "https://user:secret@93.184.216.34/",
        "https://93.184.216.34/\r\nX: y",
    ] {
        wrong.push(("callback_url", json!({ "callback_url": address })));
    }
    for (field, more) in wrong {
        let mut body = chat_body(&stack.agent, "hello");
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        for path in [MESSAGES, WEBHOOK, CHAT] {
            let fault = caller.post(path, body.to_string()).await.fault(400, "invalid_request");
            let sentence = fault["error"].as_str().expect("a sentence");
            assert!(sentence.starts_with(&format!("`{field}`")), "{path} {more}: {sentence}");
        }
    }
    let mut body = chat_body(&stack.agent, "hello");
    body["on_disconnect"] = json!("explode");
    let fault = caller.post(CHAT, body.to_string()).await.fault(400, "invalid_request");
    assert_eq!(fault["error"], "`on_disconnect` has to be continue or cancel");
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0);
}

#[rstest]
#[tokio::test]
async fn a_caller_may_prefer_not_to_wait(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::echo().held_after(0, &gate));
    let stack = Stack::with_model(database, &model).start().await;
    let (caller, prompt) = (Caller::of(&stack), nonce());
    let mut ids = Vec::new();
    for (prefer, applied, status) in [
        ("respond-async", "respond-async", "queued"),
        ("wait=1", "wait=1", "in_progress"),
        ("respond-async, wait=1", "respond-async, wait=1", "in_progress"),
    ] {
        let answer = caller.with_header("prefer", prefer).chat(&stack.agent, &prompt).await;
        assert_eq!(answer.header("preference-applied"), Some(applied), "{answer}");
        ids.push(accepted(&answer, status));
        assert_eq!(answer.members(), set(["message_id", "employee_id", "status", "status_url", "stream_url"]));
    }
    gate.open();
    for id in ids {
        assert_eq!(ended(&caller, &id).await["content"], prompt);
    }
    let answer = caller.with_header("prefer", "wait=60").chat(&stack.agent, &prompt).await;
    assert_eq!((&answer.ok()["content"], answer.header("preference-applied")), (&json!(prompt), Some("wait=60")));
    for ignored in ["wait=0", "wait=301", "wait=soon", "handling=strict"] {
        let answer = caller.with_header("prefer", ignored).chat(&stack.agent, &prompt).await;
        assert_eq!((&answer.ok()["content"], answer.header("preference-applied")), (&json!(prompt), None));
    }
}
