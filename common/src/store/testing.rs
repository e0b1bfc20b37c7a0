//! Databases for the store's tests: a new one of each kind for each test.

use std::{sync::Arc, time::Duration};

use sea_orm::{ConnectionTrait as _, Database};

use super::{
    batches::{NewBatch, Opened},
    claims::{Claim, ClaimLimits, Due},
    connection::{Store, StoreConfig},
    endpoints::EndpointSpec,
    messages::{Finish, StartedJob},
    settlements::{Settlement, Then, Verdict},
};
use crate::{
    domain::{
        account::Account,
        batch::{Batch, BatchLine},
        channel::Channel,
        delivery::{Delivery, Try},
        endpoint::Endpoint,
        event::{Callback, EventKind},
        failure::{Failure, FailureCode},
        ids::{AccountId, AgentId, BatchId, GatewayId, KeyId, MessageId},
        job::{JOB_VERSION, Job, Lane, Price, Turn},
        message::{MessageStatus, Usage},
        reply::Outcome,
        time::Millis,
    },
    env,
};

/// Runs `test` with the settings of an empty SQLite file, and of an empty PostgreSQL database where
/// `FRONTDESK_TEST_POSTGRES` is the URL of a server in which databases may be made.
pub(super) async fn on_each_empty_database(test: impl AsyncFn(StoreConfig)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("data").join("frontdesk.db");
    test(config(format!("sqlite://{}?mode=rwc", file.display()))).await;

    let Some(server) = env::text("FRONTDESK_TEST_POSTGRES") else { return };
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    let name = format!("frontdesk_{}", MessageId::new().0.simple());
    let admin = Database::connect(&server).await.expect("the server of FRONTDESK_TEST_POSTGRES");
    admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a new database");
    test(config(format!("{base}/{name}"))).await;
    admin.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.expect("to drop it");
}

/// Like [`on_each_empty_database`], connected and migrated.
pub(super) async fn on_each_database(test: impl AsyncFn(Store)) {
    on_each_empty_database(async |config| {
        let store = Store::connect(&config).await.expect("to connect");
        store.migrate().await.expect("to migrate");
        test(store.clone()).await;
        store.close().await.expect("to close");
    })
    .await;
}

fn config(url: String) -> StoreConfig {
    StoreConfig { url, max_connections: 8 }
}

/// An account with some name.
pub(super) async fn account(store: &Store) -> Account {
    let name = format!("acme {}", MessageId::new());
    store.create_account(&name, "desk@example.com").await.expect("a new account")
}

/// A job of `account` that costs a micro-credit a token.
pub(super) fn job(account: AccountId) -> Arc<Job> {
    let now = Millis::now();
    Arc::new(Job {
        v: JOB_VERSION,
        id: MessageId::new(),
        account,
        key: KeyId::new(),
        agent: AgentId::new(),
        agent_version: 1,
        channel: Channel::Api,
        lane: Lane::Interactive,
        turns: vec![Turn::user("good morning")],
        new_chat: true,
        created_at: now,
        publish_by: now,
        start_by: now,
        wait_until: None,
        reply_to: None,
        stream: false,
        price: Price { input: 1_000, output: 1_000 },
        balance: 0,
        callback: None,
        notifies: false,
        metadata: None,
        retry_of: None,
        batch: None,
        again: false,
    })
}

/// An end of `job` with `content`, after 3 + 4 tokens.
pub(super) fn completed(job: &Arc<Job>, content: &str) -> Finish {
    let outcome = Outcome {
        status: MessageStatus::Completed,
        content: Some(content.to_owned()),
        model: Some("demo".to_owned()),
        usage: Usage { input_tokens: 3, output_tokens: 4, estimated: true },
        credits_charged: 7,
        failure: None,
        attempts: 1,
        started_at: Some(job.created_at),
        completed_at: Millis::now(),
    };
    Finish { job: job.clone(), outcome }
}

/// An end of `job` without an answer.
pub(super) fn failed(job: &Arc<Job>) -> Finish {
    let failure = Failure { code: FailureCode::Truncated, message: "it broke off".to_owned(), retryable: true };
    let Finish { job, outcome } = completed(job, "");
    let outcome = Outcome { status: MessageStatus::Failed, content: None, failure: Some(failure), ..outcome };
    Finish { job, outcome }
}

/// `job`, begun for the first time.
pub(super) fn started(job: &Arc<Job>) -> StartedJob {
    StartedJob { job: job.clone(), started_at: Millis::now(), attempts: 1 }
}

/// An end of `job` by its caller, before it used anything.
pub(super) fn cancelled(job: &Arc<Job>) -> Finish {
    let failure =
        Failure { code: FailureCode::Cancelled, message: "its caller stopped it".to_owned(), retryable: true };
    let Finish { job, outcome } = failed(job);
    let outcome = Outcome {
        status: MessageStatus::Cancelled,
        model: None,
        usage: Usage::default(),
        credits_charged: 0,
        failure: Some(failure),
        ..outcome
    };
    Finish { job, outcome }
}

/// An endpoint of `account` that is told of `events`.
pub(super) async fn endpoint(store: &Store, account: AccountId, events: &[EventKind]) -> Endpoint {
    let url = format!("https://{account}.example.com/hook");
    let spec = EndpointSpec { url, events: events.to_vec(), enabled: true };
    store.create_endpoint(account, &spec, 100).await.expect("a new endpoint")
}

/// A job of `account` that was accepted while this had endpoints.
pub(super) fn notifying(account: AccountId) -> Arc<Job> {
    Arc::new(Job { notifies: true, ..Job::clone(&job(account)) })
}

/// A job of `account` that brings a callback to `url`.
pub(super) fn calling_back(account: AccountId, url: &str) -> Arc<Job> {
    let callback = Callback { url: url.to_owned(), events: Vec::new() };
    Arc::new(Job { callback: Some(callback), ..Job::clone(&job(account)) })
}

/// Room for everything that a test makes.
pub(super) const ROOMY: ClaimLimits =
    ClaimLimits { targets: 100, each: 100, lease: Duration::from_secs(30), patience: Duration::from_hours(1) };

/// The next try of `due` at `now`, which came out as `verdict`.
pub(super) fn tried(claim: &Claim, due: &Due, verdict: Verdict, then: Then, now: Millis) -> Settlement {
    let status = if verdict == Verdict::Delivered { 204 } else { 500 };
    let tried = Try { n: due.delivery.tries + 1, at: now, status: Some(status), error: None, duration_ms: 12 };
    let Delivery { id, next_at, .. } = due.delivery;
    Settlement { target: claim.target, token: claim.token, delivery: id, due_at: next_at, tried, verdict, then }
}

/// A batch of `account` with `total` lines, to be made.
pub(super) fn new_batch(account: AccountId, total: u32) -> NewBatch {
    NewBatch {
        id: BatchId::new(),
        account,
        key: KeyId::new(),
        total,
        skipped: 0,
        slot: 7,
        keyed: false,
        retry_of: None,
        notifies: false,
        created_at: Millis::now(),
    }
}

/// Makes a batch that `owner` puts on the queue, as long as it wants.
pub(super) async fn open(store: &Store, new: &NewBatch, owner: GatewayId) -> Batch {
    let until = Millis::now().plus(Duration::from_hours(1));
    match store.open_batch(new, owner, until, u64::MAX).await.expect("an answer") {
        Opened::New(batch) => batch,
        other => panic!("{other:?}"),
    }
}

/// Makes a batch all of whose lines are on the queue.
pub(super) async fn enqueued(store: &Store, new: &NewBatch) -> Batch {
    let owner = GatewayId::new();
    open(store, new, owner).await;
    store.batch_enqueued(new.id, owner, Millis::now()).await.expect("an answer").expect("the batch")
}

/// Lines of `batch`.
pub(super) fn lines(batch: &NewBatch, lines: impl IntoIterator<Item = u32>) -> Vec<Arc<Job>> {
    let line = |line| {
        let place = BatchLine { batch: batch.id, line, custom_id: format!("line-{line}") };
        let id = place.message();
        Arc::new(Job { id, lane: Lane::Batch, batch: Some(place), ..Job::clone(&job(batch.account)) })
    };
    lines.into_iter().map(line).collect()
}

/// The same jobs, for nothing.
pub(super) fn free(jobs: Vec<Arc<Job>>) -> Vec<Arc<Job>> {
    let free = |job: Arc<Job>| Arc::new(Job { price: Price::default(), ..Job::clone(&job) });
    jobs.into_iter().map(free).collect()
}
