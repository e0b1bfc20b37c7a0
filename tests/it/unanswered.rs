//! When the employee does not answer in time, cannot be reached, or fails.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use tests::{
    answer::Answer,
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::Stack,
};
use tokio::time::Instant;

/// How many messages of the first account have come to an end that is billed.
fn ended(stack: &Stack) -> i64 {
    let rows = stack.admin(&["usage", &stack.account]);
    rows.as_array().expect("rows").iter().filter_map(|row| row["messages"].as_i64()).sum()
}

fn assert_timed_out(answer: &Answer) {
    let fault = answer.fault(504, "timeout");
    let id = fault["message_id"].as_str().expect("an id");
    let url = format!("/api/v1/messages/{id}");
    assert_eq!((&fault["accepted"], &fault["status"]), (&json!(true), &json!("in_progress")));
    assert_eq!((fault["status_url"].as_str(), answer.header("location")), (Some(url.as_str()), Some(url.as_str())));
    assert_eq!(answer.header("x-message-id"), Some(id));
}

#[rstest]
#[tokio::test]
async fn a18_at_the_deadline_a_504_says_where_the_result_will_be(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_DEADLINE", "2s").start().await;
    let caller = Caller::of(&stack);
    let prompt = format!("/sleep 4s\n{}", nonce());
    let began = Instant::now();
    let (rest, other) = tokio::join!(caller.chat(&stack.agent, &prompt), caller.agent_chat(&stack.agent, &prompt));
    assert!(began.elapsed() >= Duration::from_secs(2), "given up too soon");
    assert_timed_out(&rest);
    assert_timed_out(&other);
    assert_ne!(rest.json()["message_id"], other.json()["message_id"]);
    until("both have ended all the same", async || (ended(&stack) == 2).then_some(())).await;
}

#[rstest]
#[tokio::test]
async fn a18_without_a_worker_an_accepted_message_is_answered_504_and_kept(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).set("FRONTDESK_DEADLINE", "2s").workers(0).start().await;
    let caller = Caller::of(&stack);
    assert_timed_out(&caller.chat(&stack.agent, &nonce()).await);
    let impatient = caller.with_header("prefer", "wait=1");
    assert_eq!(impatient.chat(&stack.agent, &nonce()).await.status, 202);
    until("both are listed", async || {
        let page = caller.get("/api/v1/messages?status=queued").await.ok();
        (page["messages"].as_array().is_some_and(|messages| messages.len() == 2)).then_some(())
    })
    .await;
    assert_eq!(ended(&stack), 0);
    stack.add_worker().await;
    until("the messages have run", async || (ended(&stack) == 2).then_some(())).await;
}

#[rstest]
#[tokio::test]
async fn a17_without_nats_both_apis_say_that_nothing_was_accepted(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    caller.chat(&stack.agent, &nonce()).await.ok();
    stack.nats.process().kill();
    stack.until_status("/readyz", 503, Duration::from_secs(60)).await.expect("not ready");

    // The deadline is 300 s: it is the publish budget that ends this.
    let prompt = nonce();
    let (rest, other) = tokio::join!(caller.chat(&stack.agent, &prompt), caller.agent_chat(&stack.agent, &prompt));
    for answer in [rest, other] {
        let fault = answer.fault(502, "unreachable");
        assert_eq!((&fault["accepted"], &fault["retryable"]), (&json!(false), &json!(true)));
        assert_eq!(fault["message_id"].as_str(), answer.header("x-message-id"));
    }
    assert_eq!(caller.get("/api/v1/health").await.status, 200, "who is up says so");
    assert_eq!(caller.get("/api/agents").await.ok()["agents"][0]["id"], stack.agent);
}

/// An employee that fails is not an employee that cannot be reached: the message was taken, and sending it again
/// may cost again.
#[rstest]
#[tokio::test]
async fn a17_a_failed_agent_is_502_with_a_code_of_its_own(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_MODEL_TRIES", 1).start().await;
    let caller = Caller::of(&stack);
    for (prompt, retryable) in [
        ("/fail 401", false),
        ("/fail 400", false),
        ("/fail context", false),
        ("/fail quota", false),
        ("/fail 503", true),
    ] {
        let fault = caller.chat(&stack.agent, prompt).await.fault(502, "agent_failed");
        assert_eq!((&fault["accepted"], &fault["retryable"]), (&json!(true), &json!(retryable)), "{prompt}: {fault}");
        assert!(fault["message_id"].is_string());
        caller.agent_chat(&stack.agent, prompt).await.fault(500, "agent_failed");
    }
}
