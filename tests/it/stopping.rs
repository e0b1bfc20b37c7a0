//! What a worker does about messages that their callers have cancelled, and what that costs.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        ids::MessageId,
        job::Job,
        reply::{FrameBody, Outcome},
        time::Millis,
    },
    queue::{attach::Attachment, config::QueueRole, connection::Connection, jobs},
    store::{
        connection::{Store, StoreConfig},
        messages::{Committed, Finish},
    },
};
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    database::Database,
    model::{Behaviour, Ending, Gate, ModelServer},
    patience::until,
    queue,
    stack::Stack,
};

/// A token in costs 2,000 micro-credits and a token out 3,000.
async fn priced(database: Database, model: &ModelServer) -> Stack {
    let stack = Stack::with_model(database, model).set("FRONTDESK_PRICES", "scripted=2000000:3000000").start().await;
    stack.admin(&["credit", "grant", &stack.account, "100", "--note", "for tests"]);
    stack
}

async fn submit(stack: &Stack, prompt: &str) -> MessageId {
    let answer = stack.post("/api/v1/messages", &json!({ "employee_id": stack.agent, "prompt": prompt })).await;
    assert_eq!(answer.status(), 202);
    let body: Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
    body["message_id"].as_str().expect("an id").parse().expect("an id")
}

async fn object(stack: &Stack, id: MessageId) -> Value {
    let answer = stack.get(&format!("/api/v1/messages/{id}")).await;
    assert_eq!(answer.status(), 200);
    serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
}

async fn cancel(stack: &Stack, id: MessageId) -> u16 {
    stack.post(&format!("/api/v1/messages/{id}/cancel"), &json!({})).await.status().as_u16()
}

/// The gateway's own user, and a message's job as it stands on the queue.
async fn job_of(stack: &Stack, id: MessageId) -> (Connection, Arc<Job>) {
    let connection = queue::connect(&stack.nats, QueueRole::Gateway).await;
    let account = stack.admin(&["account", "show", &stack.account])["id"].as_str().expect("an id").parse();
    let found = jobs::find(&connection, account.expect("an id"), id).await.expect("an answer");
    (connection, Arc::new(found.expect("the job").0))
}

/// Waits until the first text of a message has left its worker; before it, the run has said that it began.
async fn until_spoken(connection: &Connection, job: &Job) {
    let mut attached = Attachment::open(connection, job.account, job.id).await.expect("an attachment");
    let first = attached.next().await.expect("a frame").body;
    assert_eq!(first, FrameBody::Started {});
    while !matches!(attached.next().await.expect("a frame").body, FrameBody::Delta { at: 0, .. }) {}
}

/// Stores the end of a message that its caller has cancelled, and tells nobody.
async fn store_cancelled(stack: &Stack, job: &Arc<Job>) {
    let store = Store::connect(&StoreConfig { url: stack.database_url.clone(), max_connections: 1 }).await;
    let store = store.expect("a database");
    let end = Finish { job: job.clone(), outcome: Outcome::cancelled(Millis::now()) };
    let committed = store.finish(&[end]).await.expect("to store the end");
    assert!(matches!(committed[..], [Committed::Won { .. }]), "{committed:?}");
    store.close().await.expect("to close");
}

/// Waits until the charge is there, and returns the object.
async fn until_charged(stack: &Stack, id: MessageId) -> Value {
    let object = until("what was used is charged", async || {
        Some(object(stack, id).await).filter(|object| object["credits_charged"] != 0)
    })
    .await;
    assert_eq!((&object["status"], &object["content"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(stack.billed(), 1);
    let charged = object["credits_charged"].as_i64().expect("a number");
    let (input, output) = (&object["usage"]["input_tokens"], &object["usage"]["output_tokens"]);
    let tokens = |count: &Value| count.as_i64().expect("a number");
    assert_eq!(charged, 2_000 * tokens(input) + 3_000 * tokens(output));
    object
}

#[rstest]
#[tokio::test]
async fn a_cancelled_run_ends_at_once_and_what_it_used_is_charged(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(["so many words"]).ending(Ending::Hang));
    let stack = priced(database, &model).await;
    let id = submit(&stack, "go on for ever").await;
    model.called(1).await;
    let (connection, job) = job_of(&stack, id).await;
    until_spoken(&connection, &job).await;
    assert_eq!(cancel(&stack, id).await, 200);
    model.hung_up(1).await;
    let object = until_charged(&stack, id).await;
    // A token for every four bytes begun.
    assert_eq!((&object["usage"]["input_tokens"], &object["usage"]["output_tokens"]), (&json!(4), &json!(4)));
    assert_eq!(cancel(&stack, id).await, 409);
    assert_eq!(stack.chat("and go on").await.status(), 200, "the slot is free");
}

#[rstest]
#[tokio::test]
async fn a_cancelled_message_is_never_begun_also_when_a_worker_has_it(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.script(Behaviour::answer(["the first"]).held_after(0, &gate));
    let stack = Stack::with_model(database, &model).set("FRONTDESK_CONCURRENCY", "1").start().await;
    let first = stack.begin_chat(0, "first");
    model.called(1).await;
    // The worker has asked for a job of this lane as well, and holds it until its slot is free.
    let second = submit(&stack, "second").await;
    assert_eq!(cancel(&stack, second).await, 200);
    gate.open();
    assert_eq!(first.await.expect("a task").expect("an answer").0, 200);
    let third = submit(&stack, "third").await;
    until("the third is answered", async || {
        Some(()).filter(|()| model.calls().iter().any(|call| call.prompt() == "third"))
    })
    .await;
    let prompts: Vec<_> = model.calls().iter().map(|call| call.prompt().to_owned()).collect();
    assert_eq!(prompts, ["first", "third"]);
    assert_eq!(object(&stack, second).await["status"], "cancelled");
    assert!(stack.get(&format!("/api/v1/messages/{third}?wait=30")).await.status().is_success());
}

#[rstest]
#[tokio::test]
async fn an_answer_that_comes_after_the_cancel_is_charged_and_not_kept(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.script(Behaviour::answer(["too late"]).held_after(0, &gate).usage(Some((11, 5))));
    let stack = priced(database, &model).await;
    let id = submit(&stack, "take your time").await;
    model.called(1).await;
    let (_, job) = job_of(&stack, id).await;
    store_cancelled(&stack, &job).await;
    gate.open();
    let object = until_charged(&stack, id).await;
    assert_eq!(object["credits_charged"], json!(11 * 2_000 + 5 * 3_000));
}

#[rstest]
#[tokio::test]
async fn a_cancel_that_no_worker_could_hear_is_found_after_the_reconnect(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(["so many words"]).ending(Ending::Hang));
    let mut stack = priced(database, &model).await;
    let id = submit(&stack, "go on for ever").await;
    model.called(1).await;
    let (connection, job) = job_of(&stack, id).await;
    until_spoken(&connection, &job).await;
    stack.nats.process().kill();
    store_cancelled(&stack, &job).await;
    stack.nats.restart().await.expect("NATS comes back");
    tokio::time::timeout(Duration::from_secs(60), model.hung_up(1)).await.expect("the run stops");
    until_charged(&stack, id).await;
}
