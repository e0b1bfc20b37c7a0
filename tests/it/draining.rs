//! SIGTERM: what has begun ends, what has not goes elsewhere at once.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use tests::{
    database::Database,
    model::{Behaviour, ModelServer},
    stack::Stack,
};

#[rstest]
#[tokio::test]
async fn a_stopped_worker_finishes_what_it_has(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(["nonce ", "81"]).paced(Duration::from_millis(700)));
    let mut stack = Stack::with_model(database, &model).start().await;
    let waiting = stack.begin_chat(0, "finish this");
    model.called(1).await;
    stack.workers[0].signal("TERM");
    let (status, body) = waiting.await.expect("a task").expect("an answer");
    assert_eq!((status, &body["content"]), (200, &json!("nonce 81")));
    assert_eq!(stack.workers[0].ended(Duration::from_secs(20)).await.expect("it ends"), 0);
    assert_eq!((model.calls().len(), stack.billed()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn what_outlasts_the_grace_time_is_handed_back_at_once(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::hang_after_head());
    // With the shipped ack_wait of 30 s: only a job that was handed back can be answered before that.
    let mut stack = Stack::with_model(database, &model)
        .set("FRONTDESK_WORKER_GRACE", "200ms")
        .set("FRONTDESK_DEADLINE", "25s")
        .start()
        .await;
    let waiting = stack.begin_chat(0, "nonce 82");
    model.called(1).await;
    stack.add_worker().await;
    stack.workers[0].signal("TERM");
    let (status, body) = waiting.await.expect("a task").expect("an answer");
    assert_eq!((status, &body["content"]), (200, &json!("nonce 82")));
    assert_eq!(stack.workers[0].ended(Duration::from_secs(20)).await.expect("it ends"), 0);
    assert_eq!(model.calls().len(), 2);
}

#[rstest]
#[tokio::test]
async fn a_stopped_gateway_answers_whom_it_has_let_in(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.always(Behaviour::answer(["nonce ", "83"]).paced(Duration::from_millis(700)));
    let mut stack = Stack::with_model(database, &model).start().await;
    let waiting: Vec<_> = (0..20).map(|_| stack.begin_chat(0, "wait for it")).collect();
    model.called(20).await;
    stack.gateways[0].process.signal("TERM");
    for one in waiting {
        let (status, body) = one.await.expect("a task").expect("an answer");
        assert_eq!((status, &body["content"]), (200, &json!("nonce 83")));
    }
    assert_eq!(stack.gateways[0].process.ended(Duration::from_secs(20)).await.expect("it ends"), 0);
}

#[rstest]
#[tokio::test]
async fn a_gateway_out_of_grace_says_where_the_answer_will_be(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.always(Behaviour::hang_after_head());
    let stack = Stack::with_model(database, &model).set("FRONTDESK_GRACE", "200ms").start().await;
    let waiting = stack.begin_chat(0, "wait for it");
    model.called(1).await;
    stack.gateways[0].process.signal("TERM");
    let (status, body) = waiting.await.expect("a task").expect("an answer");
    assert_eq!((status, &body["accepted"], &body["status"]), (504, &json!(true), &json!("in_progress")));
    let expected = format!("/api/v1/messages/{}", body["message_id"].as_str().expect("an id"));
    assert_eq!(body["status_url"], expected.as_str());
}
