//! The queue alone: a NATS server with the shipped users and streams, and connections as the product makes them.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, jetstream::context::Context};
use common::{
    domain::{
        channel::Channel,
        ids::{AccountId, AgentId, KeyId, MessageId},
        job::{JOB_VERSION, Job, Lane, Price, Turn},
        time::Millis,
    },
    lifecycle::Lifecycle,
    queue::{
        config::{QueueConfig, QueueRole, StreamLimits},
        connection::Connection,
        consumer::Puller,
        control::Control,
        place::Place,
        publisher::Publisher,
        wakes::Wakes,
    },
};
use tempfile::TempDir;

use crate::nats::{Nats, PASSWORD};

/// A server with its streams.
pub struct Queue {
    /// The server, to be killed and started again.
    pub nats: Nats,
    _folder: TempDir,
}

impl Queue {
    /// Starts the server and makes the streams.
    pub async fn start() -> Self {
        Self::within(limits()).await
    }

    /// The same with these limits.
    pub async fn within(limits: StreamLimits) -> Self {
        let folder = TempDir::new().expect("a folder");
        let nats = Nats::start(folder.path()).await.expect("a server");
        let queue = Self { nats, _folder: folder };
        queue.migrate(limits).await;
        queue
    }

    /// Makes the streams on `nats`, which stores in `folder`.
    pub async fn on(nats: Nats, folder: TempDir) -> Self {
        let queue = Self { nats, _folder: folder };
        queue.migrate(limits()).await;
        queue
    }

    /// Brings the streams to `limits`, as `gateway migrate` does.
    pub async fn migrate(&self, limits: StreamLimits) {
        let control = Control::connect(&config(&self.nats, QueueRole::Admin)).await.expect("a connection");
        control.migrate(&limits).await.expect("the streams");
        control.close().await;
    }

    /// The server as its admin sees it, with none of ours in between.
    pub async fn admin(&self) -> Context {
        async_nats::jetstream::new(admin(&self.nats).await.expect("a connection"))
    }

    /// A connection in the name of `role`, which is up.
    pub async fn connect(&self, role: QueueRole) -> Connection {
        connect(&self.nats, role).await
    }
}

/// A connection to `nats` in the name of its admin, with none of ours in between.
///
/// # Errors
/// When it does not let us in.
pub async fn admin(nats: &Nats) -> anyhow::Result<Client> {
    let options = ConnectOptions::with_user_and_password("admin".to_owned(), PASSWORD.to_owned());
    Ok(options.connect(nats.url()).await?)
}

/// A connection to `nats` in the name of `role`, which is up.
pub async fn connect(nats: &Nats, role: QueueRole) -> Connection {
    let connection = Connection::open(&config(nats, role)).await.expect("an address");
    assert!(connection.wait_until_up(Duration::from_secs(30)).await, "no connection");
    connection
}

fn config(nats: &Nats, role: QueueRole) -> QueueConfig {
    let user = match role {
        QueueRole::Admin => "admin",
        QueueRole::Gateway => "gateway",
        QueueRole::Worker => "worker",
    };
    let credentials = Some((user.to_owned(), PASSWORD.to_owned()));
    QueueConfig { url: nats.url(), credentials, role, monitor_url: None }
}

/// The limits of a test's streams.
pub fn limits() -> StreamLimits {
    StreamLimits {
        jobs_max_bytes: 1 << 26,
        jobs_max_messages: 100_000,
        events_max_bytes: 1 << 26,
        events_max_age: Duration::from_secs(600),
        ack_wait: Duration::from_secs(30),
        slots: 4,
        account_running: None,
    }
}

/// A job that nobody waits for.
pub fn job(lane: Lane) -> Job {
    let now = Millis::now();
    Job {
        v: JOB_VERSION,
        id: MessageId::new(),
        account: AccountId::new(),
        key: KeyId::new(),
        agent: AgentId::new(),
        agent_version: 1,
        channel: Channel::Api,
        lane,
        turns: vec![Turn::user("hello")],
        new_chat: false,
        created_at: now,
        publish_by: now.plus(Duration::from_secs(60)),
        start_by: now.plus(Duration::from_secs(600)),
        wait_until: None,
        reply_to: None,
        stream: false,
        price: Price::default(),
        balance: 0,
        callback: None,
        notifies: false,
        metadata: None,
        retry_of: None,
        batch: None,
        again: false,
    }
}

/// Somebody who puts jobs on the queue.
pub fn publisher(connection: &Connection, budget: Duration) -> Publisher {
    Publisher::new(connection.clone(), wakes(connection), budget)
}

/// Wake-ups by `connection`.
pub fn wakes(connection: &Connection) -> Wakes {
    Wakes::start(connection.clone(), &Lifecycle::new())
}

/// A worker's pull loop for `slots` jobs at a time.
pub fn puller(connection: &Connection, slots: usize) -> Puller {
    Puller::new(connection.clone(), slots, limits().ack_wait, wakes(connection))
}

/// Puts `job` on the queue: one that somebody waits for in front, others into a slot queue.
pub async fn publish(connection: &Connection, job: &Job) {
    let place = if job.lane == Lane::Interactive { Place::Front } else { Place::Slot(0) };
    publish_at(connection, job, place).await;
}

/// Puts `job` at that place of its lane.
pub async fn publish_at(connection: &Connection, job: &Job, place: Place) {
    publisher(connection, Duration::from_secs(20)).publish(job.clone(), place, None).await.expect("to publish");
}
