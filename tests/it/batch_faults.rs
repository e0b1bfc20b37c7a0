//! Batches through crashes, stops and cancels: each line runs once or not at all, and nobody is left in the dark.

use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    batch::{BATCHES, LINES, accepted, body, counts, ended, id_of, line, read, results, results_by_id, submission},
    caller::Caller,
    database::Database,
    model::ModelServer,
    patience::until,
    raw::{self, Connection},
    stack::{Stack, metric},
};
use tokio::task::JoinHandle;

const MANY: usize = 3_000;

fn keyed(stack: &Stack, index: usize, body: String) -> reqwest::RequestBuilder {
    submission(stack, index, body).header("idempotency-key", "nightly")
}

/// Begins to submit through the gateway `index`; nothing but a broken connection may come of it.
fn begin(request: reqwest::RequestBuilder) -> JoinHandle<Option<Answer>> {
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    tokio::spawn(async move { Some(Answer::of(request.send().await.ok()?).await) })
}

/// Waits until the gateway `index` has put some lines on the queue; how many.
async fn some_are_taken(stack: &Stack, index: usize) -> f64 {
    until("some lines are on the queue", async || {
        let url = &stack.gateways[index].metrics_url;
        let taken = metric(stack.client(), url, "frontdesk_jobs_accepted_total").await;
        (taken > 0.0).then_some(taken)
    })
    .await
}

/// The only batch of the account.
async fn the_batch(stack: &Stack, index: usize) -> Value {
    let list = Answer::to(stack.request_at(index, Method::GET, BATCHES, &stack.key)).await.ok();
    let batches = list["batches"].as_array().expect("a list");
    assert_eq!(batches.len(), 1, "{list}");
    batches[0].clone()
}

/// Each of [`MANY`] lines has one result, and the model was asked for each once.
async fn each_ran_once(stack: &Stack, model: &ModelServer, id: &str) {
    let batch = ended(stack, id).await;
    assert_eq!((&batch["status"], counts(&batch)), (&json!("completed"), [MANY as u64, MANY as u64, 0, 0]));
    let by_id = results_by_id(stack, id).await;
    assert_eq!(by_id.len(), MANY);
    for n in 1..=MANY {
        assert_eq!(by_id[&format!("line-{n}")]["content"], json!(format!("prompt {n}")));
    }
    let calls = model.calls();
    let asked: BTreeSet<_> = calls.iter().map(|call| call.prompt().to_owned()).collect();
    assert_eq!((calls.len(), asked.len()), (MANY, MANY), "a prompt was given to the model twice");
}

#[rstest]
#[tokio::test]
async fn a_gateway_that_dies_halfway_is_no_loss_when_the_same_is_sent_to_another(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = Stack::with_model(database, &model).gateways(2).start().await;
    let sent = body(&stack.agent, MANY);
    let first = begin(keyed(&stack, 0, sent.clone()));
    some_are_taken(&stack, 0).await;
    // The queue is frozen, so that the gateway surely dies before the end.
    stack.nats.process().signal("STOP");
    stack.gateways[0].process.kill();
    stack.nats.process().signal("CONT");
    assert!(first.await.expect("the task").is_none(), "nothing was answered");
    let left = the_batch(&stack, 1).await;
    assert_eq!((&left["status"], counts(&left)[0]), (&json!("enqueuing"), MANY as u64));
    stack.gateways.remove(0);

    let other = Answer::to(keyed(&stack, 0, body(&stack.agent, MANY - 1))).await;
    other.fault(422, "idempotency_key_reused");
    let second = Answer::to(keyed(&stack, 0, sent.clone())).await;
    assert_eq!((second.status, second.header("idempotent-replayed")), (202, None), "{second}");
    assert_eq!(id_of(&second), left["batch_id"].as_str().expect("an id"));
    each_ran_once(&stack, &model, &id_of(&second)).await;

    let third = Answer::to(keyed(&stack, 0, sent)).await;
    assert_eq!((third.status, third.header("idempotent-replayed")), (202, Some("true")), "{third}");
    assert_eq!(third.json(), read(&stack, &id_of(&second)).await);
}

#[rstest]
#[tokio::test]
async fn a_batch_whose_lines_are_fewer_by_now_does_not_go_on_without_them(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).gateways(2).workers(0).start().await;
    let other = stack.make_agent(&stack.account, &json!({ "name": "Other", "model": "demo", "provider": "demo" }));
    let sent = body(&stack.agent, MANY) + &line("last", &other, "hello");
    let skipping = |stack: &Stack, index: usize| {
        let request = stack.request_at(index, Method::POST, &format!("{BATCHES}?on_invalid=skip"), &stack.key);
        request.header("content-type", LINES).header("idempotency-key", "nightly").body(sent.clone())
    };
    let first = begin(skipping(&stack, 0));
    some_are_taken(&stack, 0).await;
    stack.nats.process().signal("STOP");
    stack.gateways[0].process.kill();
    stack.nats.process().signal("CONT");
    assert!(first.await.expect("the task").is_none(), "nothing was answered");
    let id = the_batch(&stack, 1).await["batch_id"].clone();
    stack.gateways.remove(0);
    stack.admin(&["agent", "remove", &other]);
    let refused = Answer::to(skipping(&stack, 0)).await;
    assert_eq!(refused.fault(409, "batch_changed")["batch_id"], id);
    let id = id.as_str().expect("an id");
    assert_eq!(read(&stack, id).await["status"], "enqueuing");
    let cancelled = Caller::of(&stack).post(&format!("{BATCHES}/{id}/cancel"), "").await.ok();
    assert_eq!(cancelled["request_counts"]["cancelled"], MANY as u64 + 1);
}

#[rstest]
#[tokio::test]
async fn a_caller_who_hangs_up_finds_the_batch_complete(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(2).start().await;
    let sent = body(&stack.agent, MANY);
    let key = format!("Authorization: Bearer {}", stack.key);
    let lines = [
        &key,
        "Idempotency-Key: nightly",
        &format!("Content-Type: {LINES}"),
        &format!("Content-Length: {}", sent.len()),
    ];
    let mut connection = Connection::to(&stack.url("")).await;
    connection.send(raw::head(&format!("POST {BATCHES}"), &lines) + &sent).await;
    some_are_taken(&stack, 0).await;
    drop(connection);
    // Whoever sends the same meanwhile waits for the same batch, at any gateway.
    let again = [begin(keyed(&stack, 0, sent.clone())), begin(keyed(&stack, 1, sent.clone()))];
    for again in again {
        let answer = again.await.expect("the task").expect("an answer");
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (202, Some("true")), "{answer}");
        assert_eq!(answer.json()["batch_id"], the_batch(&stack, 0).await["batch_id"]);
    }
    let id = id_of(&Answer::to(keyed(&stack, 1, sent)).await);
    assert_eq!(counts(&ended(&stack, &id).await), [MANY as u64, MANY as u64, 0, 0]);
    assert_eq!(results_by_id(&stack, &id).await.len(), MANY);
}

#[rstest]
#[tokio::test]
async fn a_gateway_that_is_told_to_stop_first_puts_all_lines_on_the_queue(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).gateways(2).start().await;
    let first = begin(submission(&stack, 0, body(&stack.agent, MANY)));
    some_are_taken(&stack, 0).await;
    stack.gateways[0].process.signal("TERM");
    let answer = first.await.expect("the task").expect("an answer");
    assert_eq!(answer.status, 202, "{answer}");
    stack.gateways[0].process.ended(Duration::from_secs(60)).await.expect("it stops");
    stack.gateways.remove(0);
    assert_eq!(counts(&ended(&stack, &id_of(&answer)).await), [MANY as u64, MANY as u64, 0, 0]);
}

#[rstest]
#[tokio::test]
async fn a_queue_that_is_away_for_a_while_is_waited_for(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::start(database).await;
    let first = begin(submission(&stack, 0, body(&stack.agent, MANY)));
    some_are_taken(&stack, 0).await;
    stack.nats.process().kill();
    stack.until_status("/readyz", 503, Duration::from_secs(60)).await.expect("not ready");
    stack.nats.restart().await.expect("NATS comes back");
    let answer = first.await.expect("the task").expect("an answer");
    assert_eq!(answer.status, 202, "{answer}");
    let id = id_of(&answer);
    assert_eq!(counts(&ended(&stack, &id).await), [MANY as u64, MANY as u64, 0, 0]);
    assert_eq!(results_by_id(&stack, &id).await.len(), MANY);
}

#[rstest]
#[tokio::test]
async fn a_queue_that_stays_full_is_told_and_the_same_body_goes_on_later(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).workers(0).set("FRONTDESK_JOBS_MAX_MESSAGES", 100).start().await;
    let sent = body(&stack.agent, 250);
    let refused = Answer::to(keyed(&stack, 0, sent.clone())).await;
    let fault = refused.fault(503, "queue_full");
    let id = fault["batch_id"].as_str().expect("a batch").to_owned();
    assert_eq!((&fault["accepted"], refused.header("retry-after")), (&Value::Null, Some("5")));
    assert_eq!(read(&stack, &id).await["status"], "enqueuing");
    stack.add_worker().await;
    let answer = Answer::to(keyed(&stack, 0, sent)).await;
    assert_eq!((answer.status, id_of(&answer)), (202, id.clone()), "{answer}");
    assert_eq!(counts(&ended(&stack, &id).await), [250, 250, 0, 0]);
    assert_eq!(results_by_id(&stack, &id).await.len(), 250);
}

#[rstest]
#[tokio::test]
async fn what_is_queued_is_cancelled_at_once(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let mut stack = Stack::on(database).workers(0).set("FRONTDESK_READ_LIMIT", 100_000).start().await;
    let id = accepted(&stack, body(&stack.agent, MANY)).await;
    let caller = Caller::of(&stack);
    let cancelled = caller.post(&format!("{BATCHES}/{id}/cancel"), "").await.ok();
    assert_eq!((&cancelled["status"], counts(&cancelled)), (&json!("cancelled"), [MANY as u64, 0, 0, MANY as u64]));
    assert_eq!(read(&stack, &id).await, cancelled);
    let again = caller.post(&format!("{BATCHES}/{id}/cancel"), "").await.fault(409, "already_ended");
    assert_eq!((&again["status"], &again["batch_id"]), (&json!("cancelled"), &json!(id)));
    let early = caller.post(&format!("{BATCHES}/{id}/retry-failed"), "").await.fault(409, "not_ended");
    assert_eq!(early["retryable"], true);

    // Workers take the lines off the queue without running them; the counts stay as they are.
    stack.add_worker().await;
    let noted = until("all lines are noted", async || {
        let noted = results(&stack, &id, "").await;
        (noted.len() == MANY).then_some(noted)
    })
    .await;
    assert!(noted.iter().all(|line| line["status"] == "cancelled" && line["attempts"] == 0), "{:?}", noted[0]);
    assert_eq!(read(&stack, &id).await, cancelled);
    let again = caller.post(&format!("{BATCHES}/{id}/retry-failed"), "").await;
    assert_eq!((again.status, counts(&again.json())[0]), (202, MANY as u64), "{again}");
    assert_eq!(counts(&ended(&stack, &id_of(&again)).await), [MANY as u64, MANY as u64, 0, 0]);
}

#[rstest]
#[tokio::test]
async fn what_runs_is_stopped_and_what_has_ended_stays(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_READ_LIMIT", 100_000).start().await;
    let quick = body(&stack.agent, 20);
    let slow: String = (1..=10).map(|n| line(&format!("slow-{n}"), &stack.agent, "/sleep 300s\nslow") + "\n").collect();
    let id = accepted(&stack, quick + &slow).await;
    until("the quick ones have ended", async || (counts(&read(&stack, &id).await)[1] == 20).then_some(())).await;
    let cancelled = Caller::of(&stack).post(&format!("{BATCHES}/{id}/cancel"), "").await.ok();
    assert_eq!((&cancelled["status"], counts(&cancelled)), (&json!("cancelled"), [30, 20, 0, 10]));
    let noted = until("all lines are noted", async || {
        let noted = results(&stack, &id, "").await;
        (noted.len() == 30).then_some(noted)
    })
    .await;
    let stopped: BTreeSet<_> = noted
        .iter()
        .filter(|line| line["status"] == "cancelled")
        .filter_map(|line| line["custom_id"].as_str())
        .collect();
    assert_eq!(stopped.len(), 10);
    assert!(stopped.iter().all(|id| id.starts_with("slow-")), "{stopped:?}");
    assert_eq!(read(&stack, &id).await, cancelled);
}

#[rstest]
#[tokio::test]
async fn a_batch_that_is_stopped_while_it_is_put_on_the_queue_ends_soon(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).workers(0).gateways(2).start().await;
    let first = begin(submission(&stack, 0, body(&stack.agent, MANY)));
    some_are_taken(&stack, 0).await;
    stack.nats.process().signal("STOP");
    let id = the_batch(&stack, 1).await["batch_id"].as_str().expect("an id").to_owned();
    let request = stack.request_at(1, Method::POST, &format!("{BATCHES}/{id}/cancel"), &stack.key);
    let cancelling = Answer::to(request).await.ok();
    assert_eq!((&cancelling["status"], counts(&cancelling)), (&json!("cancelling"), [MANY as u64, 0, 0, MANY as u64]));
    let answer = first.await.expect("the task").expect("an answer");
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("cancelled")), "{answer}");
    stack.nats.process().signal("CONT");
    assert_eq!(read(&stack, &id).await, answer.json());
}
