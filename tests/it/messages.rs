//! Messages after they were submitted: read at once, waited for, listed, through any gateway.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::Stack,
};
use tokio::time::timeout;

/// Submits `prompt` through the first gateway, and gives the message's id.
pub async fn submit(stack: &Stack, prompt: &str) -> String {
    let body = json!({ "employee_id": stack.agent, "prompt": prompt });
    let accepted = Answer::of(stack.post("/api/v1/messages", &body).await).await;
    assert_eq!(accepted.status, 202, "{accepted}");
    accepted.json()["message_id"].as_str().expect("an id").to_owned()
}

/// `GET` through the gateway `index`.
pub async fn get(stack: &Stack, index: usize, path: &str) -> Answer {
    Answer::to(stack.request_at(index, Method::GET, path, &stack.key)).await
}

#[rstest]
#[tokio::test]
async fn what_was_accepted_is_found_at_once_through_any_gateway(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).gateways(2).workers(0).start().await;
    let prompt = nonce();
    let id = submit(&stack, &prompt).await;
    let path = format!("/api/v1/messages/{id}");
    for index in [1, 0] {
        let queued = get(&stack, index, &path).await.ok();
        assert_eq!((&queued["message_id"], &queued["status"]), (&json!(id), &json!("queued")));
        assert_eq!((&queued["employee_id"], &queued["channel"]), (&json!(stack.agent), &json!("api")));
        assert_eq!((&queued["content"], &queued["completed_at"]), (&Value::Null, &Value::Null));
    }
    let queued = get(&stack, 1, &path).await;
    stack.add_worker().await;
    let ended = get(&stack, 1, &format!("{path}?wait=60")).await;
    assert_eq!(ended.members(), queued.members(), "an object has all of its members from the start");
    let ended = ended.ok();
    assert_eq!((&ended["status"], &ended["content"]), (&json!("completed"), &json!(prompt)));
    assert_eq!((&ended["responded_by"], &ended["attempts"]), (&json!(stack.agent), &json!(1)));
    assert!(ended["usage"]["total_tokens"].as_u64() > Some(0), "{ended}");
    assert_eq!(get(&stack, 0, &path).await.ok(), ended, "the same through the other one");
}

#[rstest]
#[tokio::test]
async fn the_answer_to_a_call_can_be_read_again(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let prompt = nonce();
    let called = Answer::of(stack.chat(&prompt).await).await;
    let location = called.header("location").expect("where it can be read").to_owned();
    let read = get(&stack, 0, &location).await.ok();
    assert_eq!((&read["content"], &read["message_id"]), (&json!(prompt), &called.json()["message_id"]));
}

#[rstest]
#[tokio::test]
async fn a_long_poll_ends_with_its_time_or_with_the_message(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).gateways(2).workers(0).start().await;
    let id = submit(&stack, &nonce()).await;
    let begun = Instant::now();
    let still = get(&stack, 1, &format!("/api/v1/messages/{id}?wait=1")).await.ok();
    assert_eq!(still["status"], "queued");
    assert!(begun.elapsed() >= Duration::from_secs(1), "it did not wait");
    let path = format!("/api/v1/messages/{id}?wait=300");
    let callers = [0, 1].map(|index| Caller::of(&stack).at(&stack.gateways[index]));
    let mut polls = pin!(join_all((0..10).map(|index| callers[index % 2].get(&path))));
    assert!(timeout(Duration::from_millis(500), &mut polls).await.is_err(), "they wait");
    let (polls, ()) = tokio::join!(polls, stack.add_worker());
    for poll in polls {
        assert_eq!(poll.ok()["status"], "completed");
    }
}

#[rstest]
#[tokio::test]
async fn what_is_asked_for_wrongly_is_said_by_name(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_READ_LIMIT", 10_000).start().await;
    let id = submit(&stack, &nonce()).await;
    let garbled = "0".repeat(40);
    for (path, name) in [
        (format!("/{id}?wait=301"), "wait"),
        (format!("/{id}?wait=-1"), "wait"),
        (format!("/{id}?wait=soon"), "wait"),
        (format!("/{id}?wait=1&wait=1"), "wait"),
        ("?limit=0".to_owned(), "limit"),
        ("?limit=101".to_owned(), "limit"),
        ("?status=done".to_owned(), "status"),
        ("?employee_id=me".to_owned(), "employee_id"),
        ("?batch_id=x".to_owned(), "batch_id"),
        ("?channel=fax".to_owned(), "channel"),
        ("?created_after=yesterday".to_owned(), "created_after"),
        (format!("?cursor={id}"), "cursor"),
        (format!("?cursor={garbled}"), "cursor"),
        ("?cursor=%00".to_owned(), "cursor"),
    ] {
        let refused = get(&stack, 0, &format!("/api/v1/messages{path}")).await.fault(400, "invalid_request");
        assert!(
            refused["error"].as_str().is_some_and(|error| error.contains(&format!("`{name}`"))),
            "{path}: {refused}"
        );
    }
}

#[rstest]
#[tokio::test]
async fn a_list_has_every_message_once_newest_first(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(2).set("FRONTDESK_READ_LIMIT", 10_000).start().await;
    let (_, other_agent, other_key) = stack.another_account("second");
    let body = json!({ "employee_id": other_agent, "prompt": "not in the list" }).to_string();
    assert_eq!(Caller::of(&stack).with_key(&other_key).post("/api/v1/messages", body).await.status, 202);
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(submit(&stack, &nonce()).await);
    }
    ids.reverse();
    let listed = until("all are listed as completed", async || {
        let page = get(&stack, 1, "/api/v1/messages?status=completed").await.ok();
        (page["messages"].as_array().map(Vec::len) == Some(7)).then_some(page)
    });
    assert_eq!(listed.await["next_cursor"], Value::Null);

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for index in 0.. {
        let page = get(&stack, index % 2, &format!("/api/v1/messages?limit=3{cursor}")).await.ok();
        let messages = page["messages"].as_array().expect("a list");
        seen.extend(messages.iter().map(|message| message["message_id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ids);

    let count = async |query: &str| {
        let page = get(&stack, 0, &format!("/api/v1/messages?{query}")).await.ok();
        page["messages"].as_array().map(Vec::len)
    };
    assert_eq!(count("status=failed").await, Some(0));
    assert_eq!(count(&format!("employee_id={}", stack.agent)).await, Some(7));
    assert_eq!(count(&format!("employee_id={other_agent}")).await, Some(0));
    assert_eq!(count("channel=api").await, Some(7));
    assert_eq!(count("channel=webhooks").await, Some(0));
    assert_eq!(count(&format!("batch_id={}", ids[0])).await, Some(0));
    assert_eq!(count("created_after=2020-01-01T00:00:00Z").await, Some(7));
    assert_eq!(count("created_after=2100-01-01T00:00:00%2B01:00").await, Some(0));
}

#[rstest]
#[tokio::test]
async fn a_key_for_some_agents_sees_only_their_messages(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let second = stack.make_agent("first", &json!({ "name": "Second", "model": "demo", "provider": "demo" }));
    let limited = Caller::of(&stack).with_key(&stack.make_key("first", "limited", &[&second]));
    let id = submit(&stack, &nonce()).await;
    let path = format!("/api/v1/messages/{id}");
    assert_eq!(get(&stack, 0, &format!("{path}?wait=60")).await.ok()["status"], "completed");
    limited.get(&path).await.fault(404, "message_not_found");
    limited.get(&format!("{path}/stream")).await.fault(404, "message_not_found");
    for query in ["", &format!("?employee_id={}", stack.agent)] {
        assert_eq!(limited.get(&format!("/api/v1/messages{query}")).await.ok()["messages"], json!([]));
    }
}

#[rstest]
#[tokio::test]
async fn a_poller_does_not_starve_its_own_submits(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_READ_LIMIT", 3).set("FRONTDESK_KEY_LIMIT", 2).start().await;
    let id = submit(&stack, &nonce()).await;
    let path = format!("/api/v1/messages/{id}");
    for left in [2, 1, 0] {
        let read = get(&stack, 0, &path).await;
        assert_eq!((read.status, read.header("ratelimit-policy")), (200, Some("\"read\";q=3;w=60")));
        assert!(read.header("ratelimit").is_some_and(|header| header.starts_with(&format!("\"read\";r={left};"))));
    }
    get(&stack, 0, &path).await.fault(429, "rate_limited");
    submit(&stack, "the second request of its own bucket").await;
    let body = json!({ "employee_id": stack.agent, "prompt": "the third" });
    Answer::of(stack.post("/api/v1/messages", &body).await).await.fault(429, "rate_limited");
}
