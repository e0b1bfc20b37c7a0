//! Processes die and connections break: the contract's codes come in time, and nothing that was accepted is lost.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    caller::Caller,
    database::{Database, psql},
    model::{Behaviour, ModelServer},
    stack::Stack,
};

/// Whether `body` is the answer to the prompt that held `nonce`, and to no other.
fn is_answer_to(nonce: &str, body: &Value) -> bool {
    body["content"] == nonce
}

#[rstest]
#[tokio::test]
async fn a_gateway_killed_in_mid_wait_loses_no_job(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    model.always(Behaviour::answer(["kept"]).paced(Duration::from_millis(500)));
    let mut stack = Stack::with_model(database, &model).gateways(2).start().await;
    let waiting: Vec<_> = (0..10).map(|_| stack.begin_chat(1, "keep this")).collect();
    model.called(10).await;
    stack.gateways[1].process.kill();
    for one in waiting {
        assert!(one.await.expect("a task").is_none(), "a killed gateway cannot answer");
    }
    stack.until_billed(10, Duration::from_secs(30)).await.expect("every job ends");
    stack.restart_gateway(1).await;
    let (status, body) = stack.begin_chat(1, "and again").await.expect("a task").expect("an answer");
    assert_eq!((status, &body["content"]), (200, &json!("kept")));
}

#[rstest]
#[tokio::test]
async fn nats_killed_in_mid_publish_loses_nothing_that_was_accepted(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database)
        .set("FRONTDESK_KEY_LIMIT", 100_000)
        .set("FRONTDESK_ACK_WAIT", "2s")
        .set("FRONTDESK_DEADLINE", "20s")
        .start()
        .await;
    let mut calls = Vec::new();
    for round in 0..4 {
        for call in 0..50 {
            let nonce = format!("nonce-{round}-{call}");
            calls.push((nonce.clone(), stack.begin_chat(0, &nonce)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        stack.nats.restart().await.expect("nats comes back");
    }
    let (mut answered, mut in_doubt) = (0, 0);
    for (nonce, call) in calls {
        let (status, body) = call.await.expect("a task").expect("an answer");
        match status {
            200 => {
                assert!(is_answer_to(&nonce, &body), "{nonce} got {body}");
                answered += 1;
            }
            502 if body["accepted"] == json!(false) => {}
            502 | 504 => in_doubt += 1,
            503 => {}
            other => panic!("{other}: {body}"),
        }
    }
    assert!(answered > 0, "some calls survive");
    stack.until_status("/readyz", 200, Duration::from_secs(20)).await.expect("it recovers without a restart");
    let (status, body) = stack.begin_chat(0, "after").await.expect("a task").expect("an answer");
    assert!(status == 200 && is_answer_to("after", &body), "{status} {body}");
    let billed = stack.billed();
    assert!((answered + 1..=answered + 1 + in_doubt).contains(&billed), "{answered} + {in_doubt} doubtful: {billed}");
}

#[rstest]
#[tokio::test]
async fn a17_a_queue_that_is_gone_is_502_and_certainly_not_accepted(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).set("FRONTDESK_PUBLISH_BUDGET", "500ms").start().await;
    stack.nats.process().kill();
    let reasons = stack.until_status("/readyz", 503, Duration::from_secs(20)).await.expect("not ready");
    assert!(reasons.to_string().contains("queue"), "{reasons}");
    let (status, body) = stack.begin_chat(0, "lost").await.expect("a task").expect("an answer");
    assert_eq!((status, &body["accepted"]), (502, &json!(false)), "{body}");
    stack.nats.restart().await.expect("nats comes back");
    stack.until_status("/readyz", 200, Duration::from_secs(20)).await.expect("it recovers without a restart");
    let (status, _) = stack.begin_chat(0, "found").await.expect("a task").expect("an answer");
    assert_eq!((status, stack.billed()), (200, 1));
}

#[rstest]
#[tokio::test]
async fn a17_a_queue_that_is_silent_is_502_and_in_doubt(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).set("FRONTDESK_PUBLISH_BUDGET", "500ms").start().await;
    stack.nats.process().signal("STOP");
    let (status, body) = stack.begin_chat(0, "in doubt").await.expect("a task").expect("an answer");
    stack.nats.process().signal("CONT");
    assert_eq!((status, &body["accepted"]), (502, &Value::Null), "{body}");
    assert!(body.as_object().is_some_and(|body| body.contains_key("accepted")), "{body}");
    assert!(body["message_id"].is_string(), "{body}");
}

/// The job reaches the stream when the queue goes on, long after its caller was told that nobody knows.
#[rstest]
#[tokio::test]
async fn a_job_that_came_too_late_runs_for_who_comes_again_with_its_key(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = Stack::with_model(database, &model).set("FRONTDESK_PUBLISH_BUDGET", "500ms").start().await;
    let (keyed, unkeyed) = (Caller::of(&stack).with_header("idempotency-key", "late"), Caller::of(&stack));
    stack.nats.process().signal("STOP");
    let asked = (keyed.chat(&stack.agent, "nonce 93"), unkeyed.chat(&stack.agent, "nonce 94"));
    let (keyed_answer, unkeyed_answer) = tokio::join!(asked.0, asked.1);
    assert_eq!((keyed_answer.status, unkeyed_answer.status), (502, 502), "{keyed_answer} {unkeyed_answer}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    stack.nats.process().signal("CONT");
    stack.until_status("/readyz", 200, Duration::from_secs(20)).await.expect("it recovers without a restart");
    let again = keyed.chat(&stack.agent, "nonce 93").await;
    assert_eq!((again.status, &again.json()["content"]), (200, &json!("nonce 93")), "{again}");
    stack.until_billed(2, Duration::from_secs(30)).await.expect("both come to an end");
    let prompts: Vec<_> = model.calls().iter().map(|call| call.prompt().to_owned()).collect();
    assert_eq!(prompts, ["nonce 93"], "whoever has no key cannot come for it: it is not run");
}

#[rstest]
#[tokio::test]
async fn a_gateway_that_starts_before_nats_waits_for_it(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::start(database).await;
    stack.nats.process().kill();
    stack.restart_gateway(0).await;
    let reasons = stack.until_status("/readyz", 503, Duration::from_secs(20)).await.expect("not ready");
    assert!(reasons["reasons"].to_string().contains("NATS"), "{reasons}");
    assert_eq!(stack.anonymous(Method::GET, "/livez").send().await.expect("an answer").status(), 200);
    stack.nats.restart().await.expect("nats comes back");
    stack.until_status("/readyz", 200, Duration::from_secs(20)).await.expect("ready");
    let (status, body) = stack.begin_chat(0, "nonce 91").await.expect("a task").expect("an answer");
    assert!(status == 200 && is_answer_to("nonce 91", &body), "{status} {body}");
}

/// A database that refuses connections for a while, as one does that restarts.
#[tokio::test]
async fn an_answer_outlives_a_database_that_is_away() {
    let model = ModelServer::start().await.expect("a model");
    model.always(Behaviour::answer(["nonce ", "92"]).paced(Duration::from_millis(500)));
    let stack = Stack::with_model(Database::Postgres, &model).start().await;
    let waiting = stack.begin_chat(0, "outlive it");
    model.called(1).await;
    let (server, name) = stack.database_url.rsplit_once('/').expect("a database's name");
    let server = format!("{server}/postgres");
    psql(&server, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).expect("closed");
    let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    psql(&server, &cut).expect("cut");
    stack.until_status("/readyz", 503, Duration::from_secs(20)).await.expect("not ready");
    psql(&server, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).expect("open");
    let (status, body) = waiting.await.expect("a task").expect("an answer");
    assert!(status == 200 && is_answer_to("nonce 92", &body), "{status} {body}");
    assert_eq!((model.calls().len(), stack.billed()), (1, 1));
}
