//! More workers do more at a time, fewer do not lose anything: counted by the calls that a model has open.

use std::time::Duration;

use rstest::rstest;
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    patience::until,
    stack::{Builder, Stack, metric},
};

/// So few that they are all lanes' together: a lane alone fills a worker.
const SLOTS: usize = 3;

fn two_gateways(database: Database, model: &ModelServer) -> Builder {
    Stack::with_model(database, model)
        .gateways(2)
        .set("FRONTDESK_CONCURRENCY", SLOTS)
        .set("FRONTDESK_MODEL_FIRST_BYTE_TIMEOUT", "10m")
}

/// A model whose answers wait for the gate.
async fn held_model() -> (ModelServer, Gate) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["at last"]).held_after(0, &gate));
    (model, gate)
}

/// Submits so many jobs, half of them through each gateway.
async fn submit(stack: &Stack, jobs: usize) {
    let caller = Caller::of(stack);
    let body = chat_body(&stack.agent, "hello").to_string();
    for number in 0..jobs {
        let gateway = caller.at(&stack.gateways[number % 2]);
        assert_eq!(gateway.post("/api/v1/messages", body.clone()).await.status, 202);
    }
}

/// How many jobs each worker runs.
async fn running(stack: &Stack) -> Vec<f64> {
    let urls = (0..stack.workers.len()).map(|index| stack.worker_metrics_url(index));
    let running = urls.map(async |url| metric(stack.client(), &url, "frontdesk_jobs_running").await);
    futures_util::future::join_all(running).await
}

/// Waits until all jobs have ended, each billed once.
async fn until_ended(stack: &Stack, jobs: usize) {
    let jobs = i64::try_from(jobs).expect("few");
    stack.until_billed(jobs, Duration::from_secs(60)).await.expect("all end");
}

#[rstest]
#[tokio::test]
async fn four_workers_behind_two_gateways_do_four_times_the_work_of_one(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (model, gate) = held_model().await;
    let mut stack = two_gateways(database, &model).start().await;
    let jobs = 8 * SLOTS;
    submit(&stack, jobs).await;
    model.called(SLOTS).await;
    assert_eq!((model.calls().len(), running(&stack).await), (SLOTS, vec![3.0]));

    // Those that come later take their share of what was there before them.
    for workers in 2..=4 {
        stack.add_worker().await;
        model.called(workers * SLOTS).await;
        assert_eq!((model.calls().len(), running(&stack).await), (workers * SLOTS, vec![3.0; workers]));
    }
    gate.open();
    until_ended(&stack, jobs).await;
    assert_eq!(model.calls().len(), jobs, "none ran twice");
}

#[rstest]
#[tokio::test]
async fn a_worker_that_is_taken_away_ends_what_it_runs_and_leaves_the_rest_to_the_others(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (model, gate) = held_model().await;
    let mut stack = two_gateways(database, &model).workers(2).set("FRONTDESK_WORKER_GRACE", "10m").start().await;
    let jobs = 5 * SLOTS;
    submit(&stack, jobs).await;
    model.called(2 * SLOTS).await;
    stack.workers[0].signal("TERM");
    until("it pulls no more", async || stack.workers[0].output().contains("pulling no more jobs").then_some(())).await;
    // Whoever comes in its place begins at once: what was held for its next slot is free.
    stack.add_worker().await;
    model.called(3 * SLOTS).await;
    gate.open();
    until_ended(&stack, jobs).await;
    assert_eq!(stack.workers[0].ended(Duration::from_secs(60)).await.expect("it ends"), 0);
    assert_eq!(model.calls().len(), jobs, "none ran twice");
}
