//! What whoever scales workers is told: on the operator's port of a gateway, and by NATS itself.

use common::{
    domain::{
        backlog::Backlog,
        job::{Job, Lane},
        time::Millis,
    },
    queue::{backlog::BacklogGauge, config::QueueRole},
};
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::{Caller, chat_body},
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    patience::until,
    queue::{Queue, job, publish, puller},
    stack::Stack,
};

/// What `/scale` of the first gateway says.
async fn scale(stack: &Stack) -> Answer {
    Answer::to(stack.client().get(format!("{}/scale", stack.gateways[0].metrics_url))).await
}

/// What it says once there are so many (pending, running).
async fn until_counted(stack: &Stack, pending: u64, running: u64) -> Value {
    let expected = json!([pending, running]);
    until("the jobs are counted", async || {
        let counts = scale(stack).await.ok();
        (json!([counts["pending"], counts["running"]]) == expected).then_some(counts)
    })
    .await
}

async fn submit(caller: &Caller, stack: &Stack) {
    let body = chat_body(&stack.agent, "hello").to_string();
    assert_eq!(caller.post("/api/v1/messages", body).await.status, 202);
}

#[rstest]
#[tokio::test]
async fn a_gateway_tells_what_waits_what_runs_and_for_how_long(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["at last"]).held_after(0, &gate));
    let settings = Stack::with_model(database, &model).set("FRONTDESK_CONCURRENCY", 3);
    let mut stack = settings.workers(0).start().await;
    let caller = Caller::of(&stack);
    assert_eq!(until_counted(&stack, 0, 0).await["drain_s"], 0.0);

    for _ in 0..6 {
        submit(&caller, &stack).await;
    }
    let waiting = stack.begin_chat(0, "hello");
    let counts = until_counted(&stack, 7, 0).await;
    assert_eq!(counts["lanes"]["background"]["pending"], 6);
    assert_eq!(counts["lanes"]["interactive"]["pending"], 1);
    assert_eq!((&counts["unfinished"], &counts["drain_s"]), (&json!(7), &Value::Null), "nobody works on it");
    until("the oldest one gets older", async || {
        let age = scale(&stack).await.ok()["lanes"]["background"]["oldest_age_s"].as_f64()?;
        (age > 2.0).then_some(())
    })
    .await;
    assert_eq!(counts["lanes"]["batch"], json!({ "pending": 0, "running": 0, "oldest_age_s": 0.0 }));

    stack.add_worker().await;
    model.called(3).await;
    let metrics = stack.worker_metrics_url(0);
    assert_eq!(tests::stack::metric(stack.client(), &metrics, "frontdesk_jobs_running").await, 3.0);
    assert_eq!(tests::stack::metric(stack.client(), &metrics, "frontdesk_job_slots").await, 3.0);
    assert_eq!(Answer::to(stack.client().get(format!("{metrics}/scale"))).await.status, 404);
    gate.open();
    assert_eq!(waiting.await.expect("a task").expect("an answer").0, 200);
    assert_eq!(until_counted(&stack, 0, 0).await["drain_s"], 0.0);
}

#[rstest]
#[tokio::test]
async fn a_backlog_that_moves_says_how_long_it_will_take(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    for _ in 0..5 {
        model.script(Behaviour::answer(["soon"]));
    }
    model.always(Behaviour::answer(["at last"]).held_after(0, &gate));
    let stack = Stack::with_model(database, &model).set("FRONTDESK_CONCURRENCY", 3).start().await;
    let caller = Caller::of(&stack);
    until_counted(&stack, 0, 0).await;
    for _ in 0..15 {
        submit(&caller, &stack).await;
    }
    model.called(8).await;
    let drain = until("there is an estimate", async || {
        let counts = scale(&stack).await.ok();
        counts["drain_s"].as_f64().filter(|_| counts["unfinished"] == 10)
    })
    .await;
    assert!(drain > 0.0, "{drain}");
    let page = Answer::to(stack.client().get(format!("{}/metrics", stack.gateways[0].metrics_url))).await;
    for name in ["queue_pending{lane=\"background\"}", "queue_running{lane=\"background\"}", "queue_drain_seconds"] {
        assert!(page.text().contains(&format!("\nfrontdesk_{name} ")), "{name}\n{page}");
    }
    gate.open();
    until_counted(&stack, 0, 0).await;
}

#[rstest]
#[tokio::test]
async fn without_nats_nothing_is_told_rather_than_something_old(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).workers(0).start().await;
    submit(&Caller::of(&stack), &stack).await;
    until_counted(&stack, 1, 0).await;
    stack.nats.process().kill();
    until("the port says that it cannot tell", async || {
        let answer = scale(&stack).await;
        (answer.status == 503 && answer.json()["error"].is_string()).then_some(())
    })
    .await;
    let page = Answer::to(stack.client().get(format!("{}/metrics", stack.gateways[0].metrics_url))).await;
    assert!(page.status == 200 && !page.text().contains("frontdesk_queue_"), "{page}");
    stack.nats.restart().await.expect("nats comes back");
    until_counted_again(&stack).await;
}

/// Waits until the job of before is told of again, whatever was answered meanwhile.
async fn until_counted_again(stack: &Stack) {
    until("the job is counted again", async || {
        let answer = scale(stack).await;
        (answer.status == 200 && answer.json()["pending"] == 1).then_some(())
    })
    .await;
}

/// Address and place of the number of each trigger in `deploy/keda.yaml`, in its order.
fn triggers() -> Vec<(&'static str, &'static str)> {
    let file = include_str!("../../deploy/keda.yaml");
    let values = |name: &'static str| {
        let lines = file.lines().filter_map(move |line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        lines.map(|value| value.trim().trim_matches(['"', '\'']))
    };
    values("url").zip(values("valueLocation")).collect()
}

#[rstest]
#[tokio::test]
async fn the_shipped_scaler_finds_the_unfinished_jobs_with_us_and_with_nats(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["at last"]).held_after(0, &gate));
    let stack = Stack::with_model(database, &model).set("FRONTDESK_CONCURRENCY", 2).start().await;
    for _ in 0..5 {
        submit(&Caller::of(&stack), &stack).await;
    }
    model.called(2).await;
    let triggers = triggers();
    assert_eq!(triggers.len(), 2);
    for (url, location) in triggers {
        let url = url.replace("http://frontdesk-gateway:9090", &stack.gateways[0].metrics_url);
        let url = url.replace("http://nats:8222", &stack.nats.monitor_url());
        until(&format!("{url} has 5 at {location}"), async || {
            let page = Answer::to(stack.client().get(&url)).await;
            // With the grammar of paths that KEDA reads.
            let number = gjson::get(page.text(), location);
            (number.kind() == gjson::Kind::Number && number.u64() == 5).then_some(())
        })
        .await;
    }
    gate.open();
}

/// What a gauge that was never read says now.
async fn backlog(queue: &Queue) -> Backlog {
    let gateway = queue.connect(QueueRole::Gateway).await;
    BacklogGauge::new(gateway).read().await.expect("an answer")
}

#[tokio::test]
async fn each_lane_has_its_counts_and_its_oldest_job_is_one_that_waits() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    assert_eq!(backlog(&queue).await.lanes, Backlog::default().lanes);
    let mut stored = Vec::new();
    for lane in [Lane::Batch, Lane::Background, Lane::Batch, Lane::Batch] {
        publish(&gateway, &job(lane)).await;
        stored.push(Millis::now());
    }
    let all = backlog(&queue).await;
    assert_eq!(all.lanes.map(|lane| (lane.pending, lane.running)), [(0, 0), (1, 0), (3, 0)]);
    let oldest = |backlog: &Backlog, lane: Lane| backlog.lanes[lane.index()].oldest.expect("one that waits");
    assert!(oldest(&all, Lane::Batch) <= stored[0]);
    assert!(oldest(&all, Lane::Background) >= stored[0] && oldest(&all, Lane::Background) <= stored[1]);
    assert!(all.lanes[Lane::Interactive.index()].oldest.is_none());

    // One slot: the worker has one job, and holds one more of each other lane at most.
    let mut puller = puller(&queue.connect(QueueRole::Worker).await, 1);
    let running = puller.next().await;
    let begun: Job = running.job().expect("a job");
    let left = backlog(&queue).await;
    assert_eq!(left.unfinished(), 4);
    let lane = left.lanes[begun.lane.index()];
    assert!(lane.running >= 1 && lane.oldest.is_none_or(|oldest| oldest >= stored[0]), "{left:?}");
    running.ack().await;
}

#[tokio::test]
async fn a_deep_lane_is_not_searched_and_tells_its_age_all_the_same() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    publish(&gateway, &job(Lane::Background)).await;
    let (since, deep) = (Millis::now(), 5_001);
    for portion in (0..deep).collect::<Vec<_>>().chunks(500) {
        futures_util::future::join_all(portion.iter().map(async |_| publish(&gateway, &job(Lane::Batch)).await)).await;
    }
    let all = backlog(&queue).await;
    assert_eq!(all.lanes.map(|lane| lane.pending), [0, 1, deep]);
    assert!(all.lanes.iter().all(|lane| lane.oldest.is_none_or(|oldest| oldest <= since)), "{all:?}");

    // From its second job on, the lane is where it goes on.
    let mut puller = puller(&queue.connect(QueueRole::Worker).await, 2);
    let running = [puller.next().await, puller.next().await];
    let left = backlog(&queue).await;
    let (batch, oldest) = (Lane::Batch.index(), |backlog: &Backlog| backlog.lanes[Lane::Batch.index()].oldest);
    assert!(left.lanes[batch].pending < deep && oldest(&left) >= oldest(&all), "{left:?}");
    for delivery in running {
        delivery.ack().await;
    }
}
