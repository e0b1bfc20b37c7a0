//! The bare job path without HTTP: publish with its acknowledgement, pull, core reply, ack; nothing of the product.
//!
//! Both ends run in this process, each on a connection of its own. The jobs come through the client's own `messages()`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self,
        consumer::{AckPolicy, PullConsumer, pull},
        message::PublishMessage,
        stream::{Config, RetentionPolicy, StorageType},
    },
};
use bytes::Bytes;
use common::{
    domain::{
        ids::{AgentId, MessageId},
        reply::Attempt,
    },
    queue::config::{QueueConfig, QueueRole},
};
use futures_util::StreamExt as _;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    load::Lengths,
    nats::Nats,
    payload::{self, Asker},
    sample::Sample,
    window::{Tally, Window},
};

const STREAM: &str = "BARE";
/// How long one call may take.
pub const CALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

type Waiting = HashMap<String, oneshot::Sender<()>>;

struct Front {
    jetstream: jetstream::Context,
    waiting: Mutex<Waiting>,
    job: Bytes,
}

/// Has `callers` send jobs down the path for the given time.
///
/// # Errors
/// When the server refuses the stream.
pub async fn run(nats: &Nats, callers: u32, lengths: Lengths) -> Result<Sample> {
    let asker = Asker::new();
    let job = asker.job(AgentId::new(), payload::PROMPT.to_owned());
    let end = serde_json::to_vec(&payload::end(&job, Attempt::default()))?;
    let mut ends = JoinSet::new();
    let client = connect(nats.config(QueueRole::Admin)).await?;
    let jetstream = jetstream::new(client.clone());
    let consumer = consumer(&jetstream).await?;
    let front = Arc::new(Front { jetstream, waiting: Mutex::default(), job: serde_json::to_vec(&job)?.into() });
    ends.spawn(wake(client.subscribe("ended.*").await?, front.clone()));
    ends.spawn(work(connect(nats.config(QueueRole::Admin)).await?, consumer, end.into()));

    let window = Window::after(lengths.warm_up, lengths.measure);
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(one(front.clone(), window));
    }
    let all = async {
        let mut sum = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            sum.extend(tally?);
        }
        Ok(sum)
    };
    window.watch([None, None, Some(&nats.process)], all).await
}

async fn one(front: Arc<Front>, window: Window) -> Tally {
    let mut tally = Tally::default();
    while window.is_open() {
        let asked = Instant::now();
        let answer = timeout(CALL_LIMIT, front.ask()).await;
        tally.count(window, asked, answer.unwrap_or_else(|_| bail!("no reply within {CALL_LIMIT:?}")));
    }
    tally
}

impl Front {
    async fn ask(&self) -> Result<()> {
        let id = MessageId::new().0.simple().to_string();
        let (tx, rx) = oneshot::channel();
        self.waiting().insert(id.clone(), tx);
        let message = PublishMessage::build().message_id(&id).payload(self.job.clone());
        self.jetstream.send_publish(format!("bare.{id}"), message).await?.await?;
        Ok(rx.await?)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wake(mut replies: async_nats::Subscriber, front: Arc<Front>) -> Result<()> {
    while let Some(reply) = replies.next().await {
        let id = reply.subject.rsplit('.').next().unwrap_or_default();
        let waiter = front.waiting().remove(id);
        let _ = waiter.map(|waiter| waiter.send(()));
    }
    Ok(())
}

/// The other end; it gets the consumer's stream through its own connection.
async fn work(client: Client, consumer: String, end: Bytes) -> Result<()> {
    let jetstream = jetstream::new(client.clone());
    let consumer: PullConsumer = jetstream.get_consumer_from_stream(&consumer, STREAM).await?;
    let mut jobs = consumer.messages().await?;
    while let Some(job) = jobs.next().await {
        let job = job?;
        client.publish(job.subject.replacen("bare", "ended", 1), end.clone()).await?;
        job.ack().await.ok().context("could not acknowledge")?;
    }
    Ok(())
}

/// A connection with nothing of the product; the admin's may do everything.
///
/// # Errors
/// When the server is not there.
pub async fn connect(config: QueueConfig) -> Result<Client> {
    let (user, password) = config.credentials.unwrap_or_default();
    Ok(ConnectOptions::with_user_and_password(user, password).connect(config.url).await?)
}

/// Makes the stream and its consumer, and returns the consumer's name.
async fn consumer(jetstream: &jetstream::Context) -> Result<String> {
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["bare.*".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        ..Config::default()
    };
    let stream = jetstream.get_or_create_stream(config).await?;
    let name = "workers".to_owned();
    let config =
        pull::Config { durable_name: Some(name.clone()), ack_policy: AckPolicy::Explicit, ..pull::Config::default() };
    stream.get_or_create_consumer(&name, config).await?;
    Ok(name)
}
