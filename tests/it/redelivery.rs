//! Jobs that are handed out again: run once more when nobody ended them, never when somebody did.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::{
    database::Database,
    model::{Behaviour, ModelServer},
    stack::{Builder, Stack},
};

/// A stack whose agent talks to `model`, and whose queue hands a silent job out again after a second.
fn with_model(database: Database, model: &ModelServer) -> Builder {
    Stack::with_model(database, model).set("FRONTDESK_ACK_WAIT", "1s")
}

#[rstest]
#[tokio::test]
async fn a_worker_killed_in_mid_job_costs_time_and_nothing_else(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::hang_after_head());
    let mut stack = with_model(database, &model).start().await;
    let waiting = stack.begin_chat(0, "nonce 71");
    model.called(1).await;
    stack.kill_workers();
    stack.add_worker().await;
    let (status, body) = waiting.await.expect("a task").expect("an answer");
    assert_eq!((status, &body["content"]), (200, &json!("nonce 71")));
    assert_eq!((model.calls().len(), stack.billed()), (2, 1));
}

#[rstest]
#[tokio::test]
async fn a_job_longer_than_ack_wait_runs_once(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(["nonce ", "72"]).paced(Duration::from_millis(1500)));
    let stack = with_model(database, &model).workers(2).start().await;
    let body = stack.chat("say it slowly").await.text().await.expect("a body");
    assert!(body.contains("nonce 72"), "{body}");
    assert_eq!((model.calls().len(), stack.billed()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn a_worker_that_wakes_up_late_changes_nothing(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(["the sleeper's answer"]).paced(Duration::from_millis(300)));
    model.script(Behaviour::answer(["the heir's answer"]));
    let mut stack = with_model(database, &model).start().await;
    let waiting = stack.begin_chat(0, "who answers?");
    model.called(1).await;
    stack.workers[0].signal("STOP");
    stack.add_worker().await;
    let (status, body) = waiting.await.expect("a task").expect("an answer");
    assert_eq!((status, &body["content"]), (200, &json!("the heir's answer")));
    stack.workers[0].signal("CONT");
    stack.workers[0]
        .printed("that it came second", |log| log.contains("another run of the job had ended first").then_some(()))
        .await
        .expect("the sleeper finds the stored end");
    assert_eq!(stack.billed(), 1);
}

#[rstest]
#[tokio::test]
async fn a_poisoned_job_is_given_up_and_blocks_nobody(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    for _ in 0..5 {
        model.script(Behaviour::hang_after_head());
    }
    let mut stack = with_model(database, &model).start().await;
    let poisoned = stack.begin_chat(0, "poison");
    for start in 1..=5 {
        model.called(start).await;
        stack.kill_workers();
        stack.add_worker().await;
    }
    let (status, body) = poisoned.await.expect("a task").expect("an answer");
    assert_eq!((status, &body["code"]), (502, &json!("agent_failed")));
    assert_eq!(model.calls().len(), 5, "a job is begun five times");
    let dead = stack.admin(&["dead", "list"]);
    assert_eq!(dead.as_array().map(Vec::len), Some(1), "{dead}");
    assert_eq!(dead[0]["message_id"], body["message_id"]);
    let path = format!("/api/v1/messages/{}", body["message_id"].as_str().expect("an id"));
    let purged = stack.request(Method::DELETE, &path).send().await.expect("an answer");
    assert_eq!((purged.status().as_u16(), stack.admin(&["dead", "list"])), (204, json!([])), "its letter is gone, too");
    let (status, body) = stack.begin_chat(0, "nonce 73").await.expect("a task").expect("an answer");
    assert_eq!((status, &body["content"]), (200, &json!("nonce 73")));
}

#[rstest]
#[tokio::test]
async fn a_job_that_nobody_began_in_time_expires_unrun(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = with_model(database, &model)
        .workers(0)
        .set("FRONTDESK_DEADLINE", "1s")
        .set("FRONTDESK_START_BY_GRACE", "0s")
        .start()
        .await;
    let (status, body) = stack.begin_chat(0, "too late").await.expect("a task").expect("an answer");
    assert_eq!((status, &body["code"]), (504, &json!("timeout")));
    stack.add_worker().await;
    stack.until_billed(1, Duration::from_secs(20)).await.expect("it ends");
    assert!(model.calls().is_empty(), "an overdue job is not run");
    let usage = stack.admin(&["usage", "first"]);
    assert_eq!((&usage[0]["input_tokens"], &usage[0]["micro_credits"]), (&json!(0), &json!(0)));
}
