//! Lines of batches on the queue: run and counted, dropped or stopped with their batch, and looked at before they run.

use std::{collections::BTreeSet, time::Duration};

use common::{
    domain::{
        batch::{Batch, BatchLine, BatchStatus},
        ids::{AccountId, BatchId, GatewayId, KeyId},
        job::{Job, Lane, Turn},
        message::MessageStatus,
        time::Millis,
    },
    queue::{cancel::CancelSender, config::QueueRole, connection::Connection},
    store::{
        batch_results::BatchResult,
        batches::{NewBatch, Opened},
        connection::{Store, StoreConfig},
    },
};
use rstest::rstest;
use serde_json::json;
use tests::{
    caller::Caller,
    database::Database,
    model::{Behaviour, ModelServer},
    patience::until,
    queue::{self, publish},
    sink::Sink,
    stack::{Builder, Stack, metric},
    webhook,
};

/// What a gateway does with batches, done by hand.
struct Desk {
    stack: Stack,
    store: Store,
    connection: Connection,
    gateway: GatewayId,
    account: AccountId,
}

impl Desk {
    async fn start(builder: Builder) -> Self {
        let stack = builder.start().await;
        let config = StoreConfig { url: stack.database_url.clone(), max_connections: 2 };
        let store = Store::connect(&config).await.expect("the database");
        let connection = queue::connect(&stack.nats, QueueRole::Gateway).await;
        let accounts = store.accounts().await.expect("accounts");
        let account = accounts.iter().find(|account| account.name == stack.account).expect("the first one").id;
        Self { stack, store, connection, gateway: GatewayId::new(), account }
    }

    /// A new batch, which is this gateway's for `lease`.
    async fn open(&self, total: u32, lease: Duration) -> BatchId {
        let new = NewBatch {
            id: BatchId::new(),
            account: self.account,
            key: KeyId::new(),
            total,
            skipped: 0,
            slot: 0,
            keyed: false,
            retry_of: None,
            notifies: true,
            created_at: Millis::now(),
        };
        let opened = self.store.open_batch(&new, self.gateway, Millis::now().plus(lease), u64::MAX).await;
        assert!(matches!(opened.expect("an answer"), Opened::New(_)));
        new.id
    }

    fn line(&self, batch: BatchId, line: u32, prompt: &str) -> Job {
        let place = BatchLine { batch, line, custom_id: format!("line-{line}") };
        Job {
            id: place.message(),
            account: self.account,
            agent: self.stack.agent.parse().expect("an id"),
            turns: vec![Turn::user(prompt)],
            batch: Some(place),
            ..queue::job(Lane::Batch)
        }
    }

    /// Puts lines with `prompt` on the queue.
    async fn enqueue(&self, batch: BatchId, lines: impl IntoIterator<Item = u32>, prompt: &str) {
        for line in lines {
            publish(&self.connection, &self.line(batch, line, prompt)).await;
        }
    }

    /// A batch all of whose lines are on the queue.
    async fn enqueued(&self, total: u32, prompt: &str) -> BatchId {
        let batch = self.open(total, Duration::from_hours(1)).await;
        self.enqueue(batch, 1..=total, prompt).await;
        self.store.batch_enqueued(batch, self.gateway, Millis::now()).await.expect("an answer").expect("the batch");
        batch
    }

    async fn until(&self, batch: BatchId, status: BatchStatus) -> Batch {
        until("the batch comes so far", async || {
            let batch = self.store.batch(batch).await.expect("an answer").expect("the batch");
            (batch.status == status).then_some(batch)
        })
        .await
    }

    async fn until_results(&self, batch: BatchId, count: usize) -> Vec<BatchResult> {
        until("all lines have ended", async || {
            let results = self.store.batch_results(batch, 0, None, 999).await.expect("results");
            (results.len() == count).then_some(results)
        })
        .await
    }

    async fn cancel(&self, batch: BatchId) -> Batch {
        self.store.cancel_batch(batch, Millis::now()).await.expect("an answer").expect("it had not ended")
    }
}

#[rstest]
#[tokio::test]
async fn lines_end_their_batch_and_are_told_of(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let sink = Sink::start().await;
    let desk = Desk::start(Stack::on(database).set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", true)).await;
    desk.stack.admin(&["channel", "on", &desk.stack.account, "webhooks"]);
    let caller = Caller::of(&desk.stack);
    let hook = json!({ "url": sink.url("/hook"), "events": ["batch.completed"] });
    let hook = caller.post("/api/v1/webhook-endpoints", hook.to_string()).await.json();

    let id = desk.open(21, Duration::from_hours(1)).await;
    desk.enqueue(id, 1..=20, "good morning").await;
    desk.enqueue(id, [21], "/fail 400").await;
    desk.store.batch_enqueued(id, desk.gateway, Millis::now()).await.expect("an answer").expect("the batch");
    let batch = desk.until(id, BatchStatus::Completed).await;
    assert_eq!((batch.counts.completed, batch.counts.failed, batch.counts.cancelled), (20, 1, 0));
    let results = desk.until_results(id, 21).await;
    assert_eq!(results.iter().map(|result| result.line).collect::<BTreeSet<_>>(), (1..=21).collect());
    assert!(results.iter().all(|result| result.custom_id == format!("line-{}", result.line)));

    let listed = caller.get(&format!("/api/v1/messages?batch_id={id}&limit=50")).await.ok();
    let messages = listed["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), 21);
    assert!(messages.iter().all(|message| message["batch_id"] == json!(id)), "{listed}");

    let received = sink.until_received("/hook", 1).await.remove(0);
    let event = webhook::event(hook["secret"].as_str().expect("a secret"), &received);
    assert_eq!((&event["type"], &event["data"]["batch_id"]), (&json!("batch.completed"), &json!(id)));
    let counts = json!({ "total": 21, "completed": 20, "failed": 1, "cancelled": 0 });
    assert_eq!((&event["data"]["request_counts"], &event["data"]["status"]), (&counts, &json!("completed")));
    let log =
        caller.get(&format!("/api/v1/webhook-endpoints/{}/deliveries", hook["id"].as_str().expect("an id"))).await;
    let delivery = &log.ok()["deliveries"][0];
    assert_eq!((&delivery["batch_id"], &delivery["message_id"]), (&json!(id), &json!(null)));
}

#[rstest]
#[tokio::test]
async fn what_waits_of_a_stopped_batch_is_never_run(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let mut desk = Desk::start(Stack::with_model(database, &model).workers(0)).await;
    let (stopped, other) = (desk.enqueued(20, "never").await, desk.enqueued(2, "hello").await);
    let batch = desk.cancel(stopped).await;
    assert_eq!((batch.status, batch.counts.cancelled), (BatchStatus::Cancelled, 20));
    // No worker has heard of it.
    desk.stack.add_worker().await;
    let results = desk.until_results(stopped, 20).await;
    let unrun = |result: &BatchResult| {
        let message = &result.message;
        (message.status, message.attempts, message.started_at) == (MessageStatus::Cancelled, 0, None)
    };
    assert!(results.iter().all(unrun), "{results:?}");
    desk.until(other, BatchStatus::Completed).await;
    assert!(model.calls().iter().all(|call| call.prompt() != "never"));
    assert_eq!(desk.store.batch(stopped).await.expect("an answer"), Some(batch));
}

#[rstest]
#[tokio::test]
async fn what_runs_of_a_stopped_batch_stops_also_when_nobody_says_so(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
    #[values(true, false)] is_told: bool,
) {
    let model = ModelServer::start().await.expect("a model");
    model.always(Behaviour::hang_after_head());
    let desk = Desk::start(Stack::with_model(database, &model)).await;
    let id = desk.enqueued(3, "hello").await;
    model.called(3).await;
    desk.cancel(id).await;
    if is_told {
        CancelSender::new(desk.connection.clone()).tell_batch(id).await;
    }
    model.hung_up(3).await;
    for result in desk.until_results(id, 3).await {
        assert_eq!((result.message.status, result.message.attempts), (MessageStatus::Cancelled, 1));
        assert!(result.message.started_at.is_some());
    }
}

#[rstest]
#[tokio::test]
async fn a_line_that_may_have_ended_is_looked_at_before_it_runs(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let desk = Desk::start(Stack::with_model(database, &model)).await;
    let id = desk.open(2, Duration::from_hours(1)).await;
    desk.enqueue(id, [1], "first").await;
    let first = desk.until_results(id, 1).await;
    for (line, prompt) in [(1, "first"), (2, "second")] {
        publish(&desk.connection, &Job { again: true, ..desk.line(id, line, prompt) }).await;
    }
    desk.store.batch_enqueued(id, desk.gateway, Millis::now()).await.expect("an answer").expect("the batch");
    let batch = desk.until(id, BatchStatus::Completed).await;
    assert_eq!(batch.counts.completed, 2);
    let results = desk.until_results(id, 2).await;
    assert_eq!(results[0].message.outcome, first[0].message.outcome);
    assert!(results.iter().all(|result| result.message.attempts == 1), "{results:?}");
    let prompts: Vec<_> = model.calls().iter().map(|call| call.prompt().to_owned()).collect();
    assert_eq!(prompts, ["first", "second"]);
    let metrics = desk.stack.worker_metrics_url(0);
    assert_eq!(metric(desk.stack.client(), &metrics, "frontdesk_job_redeliveries_total").await, 0.0);
}

#[rstest]
#[tokio::test]
async fn a_batch_that_is_left_half_on_the_queue_is_given_up(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.always(Behaviour::hang_after_head());
    let desk = Desk::start(Stack::with_model(database, &model)).await;
    let id = desk.open(5, Duration::from_secs(1)).await;
    desk.enqueue(id, 1..=2, "hello").await;
    model.called(2).await;
    let batch = desk.until(id, BatchStatus::Cancelled).await;
    assert_eq!((batch.counts.cancelled, batch.enqueued_at), (5, None));
    model.hung_up(2).await;
    desk.until_results(id, 2).await;
}
