//! Batches: how fast the lines of one come onto the queue, and off it again, beside the same without the product.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::{
    self,
    message::PublishMessage,
    stream::{Config, RetentionPolicy, StorageType},
};
use bytes::Bytes;
use common::{
    domain::{
        batch::BatchLine,
        ids::{AgentId, BatchId, MessageId},
        job::{Job, Lane},
    },
    lifecycle::Lifecycle,
    queue::{
        config::QueueRole, connection::Connection as Queue, consumer::Puller, place::Place, publisher::Publisher,
        streams, wakes::Wakes,
    },
};
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    bare::connect,
    http::Connection,
    nats::Nats,
    payload::{self, Asker},
    request,
    sample::Sample,
    sites::Site,
};

/// How many lines a batch has.
pub const LINES: u32 = 50_000;
/// As many jobs at a time as a worker of the product runs as shipped.
const SLOTS: usize = 64;
/// Publishes under way at a time: more of them are no faster.
const UNDER_WAY: usize = 512;
/// Whatever takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(180);
const STREAM: &str = "PIPELINED";
const PAUSE: Duration = Duration::from_millis(20);

/// Bare publishes of as many envelopes, each acknowledged, many under way on one connection.
///
/// # Errors
/// When the server refuses the stream or a publish.
pub async fn pipelined(nats: &Nats) -> Result<Sample> {
    let payload = Bytes::from(serde_json::to_vec(&line(&Asker::new(), BatchId::new(), 1))?);
    let jetstream = jetstream::new(connect(nats.config(QueueRole::Admin)).await?);
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["pipelined.*".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        ..Config::default()
    };
    jetstream.get_or_create_stream(config).await?;
    let (under_way, began) = (Arc::new(Semaphore::new(UNDER_WAY)), Instant::now());
    let mut acknowledged = JoinSet::new();
    for _ in 0..LINES {
        let place = under_way.clone().acquire_owned().await?;
        let id = MessageId::new().0.simple().to_string();
        let message = PublishMessage::build().message_id(&id).payload(payload.clone());
        let sent = jetstream.send_publish(format!("pipelined.{id}"), message).await?;
        acknowledged.spawn(async move {
            let acknowledged = sent.await;
            drop(place);
            acknowledged
        });
        while let Some(acknowledged) = acknowledged.try_join_next() {
            acknowledged??;
        }
    }
    while let Some(acknowledged) = acknowledged.join_next().await {
        acknowledged??;
    }
    let sample = taken(began);
    jetstream.delete_stream(STREAM).await?;
    Ok(sample)
}

/// Pulls as many envelopes with the product's loop, and acknowledges them; nothing else.
///
/// # Errors
/// When the queue cannot be used.
pub async fn bare_drain(nats: &Nats) -> Result<Sample> {
    let queue = open(nats, QueueRole::Gateway).await?;
    fill(&queue).await?;
    let queue = open(nats, QueueRole::Worker).await?;
    let ack_wait = streams::wait_until_fit(&queue, 0).await;
    let (lifecycle, began) = (Lifecycle::new(), Instant::now());
    let wakes = Wakes::start(queue.clone(), &lifecycle);
    let mut puller = Puller::new(queue.clone(), SLOTS, ack_wait, wakes);
    for _ in 0..LINES {
        let delivery = timeout(LIMIT, puller.next()).await.context("jobs are missing")?;
        lifecycle.spawn(async move { delivery.ack().await });
    }
    let sample = taken(began);
    lifecycle.stop();
    lifecycle.wait(LIMIT, LIMIT).await;
    queue.close(LIMIT).await;
    Ok(sample)
}

async fn fill(queue: &Queue) -> Result<()> {
    let publisher = Publisher::new(queue.clone(), Wakes::start(queue.clone(), &Lifecycle::new()), LIMIT);
    let (asker, batch) = (Asker::new(), BatchId::new());
    let mut published = JoinSet::new();
    for number in 1..=LINES {
        let (publisher, job) = (publisher.clone(), line(&asker, batch, number));
        published.spawn(async move { publisher.publish(job, Place::Slot(0), None).await });
        while published.len() >= UNDER_WAY {
            published.join_next().await.context("no publish is under way")???;
        }
    }
    while let Some(published) = published.join_next().await {
        published??;
    }
    Ok(())
}

/// Sends a batch of as many lines, whose jobs no worker runs; gives its id too.
///
/// # Errors
/// When it is not accepted.
pub async fn enqueue(site: &Site) -> Result<(Sample, String)> {
    let request = request::batch(site.address, &site.key, &body(&site.agent, LINES));
    let (before, began) = (site.gateway.resident()?, Instant::now());
    let mut connection = Connection::open(site.address).await?;
    let answer = timeout(LIMIT, connection.ask(&request)).await.context("no answer")??;
    ensure!(answer.status == 202, "{}: {}", answer.status, String::from_utf8_lossy(connection.body()));
    let grown = site.gateway.resident()?.saturating_sub(before);
    let batch: Value = serde_json::from_slice(connection.body())?;
    let id = batch["batch_id"].as_str().context("no batch_id")?.to_owned();
    Ok((Sample { grown: Some(grown as f64 / 1024.0), ..taken(began) }, id))
}

/// Has one worker run the lines of the batch `id` until the last one has ended.
///
/// # Errors
/// When they do not all come to a good end.
pub async fn drain(site: &mut Site, id: &str) -> Result<Sample> {
    let began = Instant::now();
    site.start_worker()?;
    let path = format!("/api/v1/batches/{id}");
    let counts = ended(site.address, &site.key, &path).await?;
    let sample = taken(began);
    ensure!(counts["completed"] == LINES, "not all lines were answered: {counts}");
    Ok(sample)
}

/// The counts of the batch at `path` once it has ended.
async fn ended(address: SocketAddr, key: &str, path: &str) -> Result<Value> {
    let (request, until) = (request::get_with_key(address, path, key), Instant::now() + LIMIT);
    let mut connection = Connection::open(address).await?;
    while Instant::now() < until {
        let answer = connection.ask(&request).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(connection.body()));
        let batch: Value = serde_json::from_slice(connection.body())?;
        if batch["status"] == "completed" {
            return Ok(batch["request_counts"].clone());
        }
        sleep(PAUSE).await;
    }
    bail!("the batch did not end within {LIMIT:?}")
}

/// A body of `lines` short questions to `agent`.
pub fn body(agent: &str, lines: u32) -> String {
    let prompt = payload::PROMPT;
    let line = |n| format!("{{\"custom_id\":\"line-{n}\",\"employee_id\":\"{agent}\",\"prompt\":\"{n} {prompt}\"}}\n");
    (1..=lines).map(line).collect()
}

/// A line as the gateway puts it on the queue.
fn line(asker: &Asker, batch: BatchId, number: u32) -> Job {
    let line = BatchLine { batch, line: number, custom_id: format!("line-{number}") };
    let job = asker.job(AgentId::new(), format!("{number} {}", payload::PROMPT));
    Job { id: line.message(), lane: Lane::Batch, reply_to: None, wait_until: None, batch: Some(line), ..job }
}

async fn open(nats: &Nats, role: QueueRole) -> Result<Queue> {
    let queue = Queue::open(&nats.config(role)).await?;
    ensure!(queue.wait_until_up(LIMIT).await, "no connection to nats-server");
    Ok(queue)
}

/// All lines in the time since `began`.
fn taken(began: Instant) -> Sample {
    Sample { rate: f64::from(LINES) / began.elapsed().as_secs_f64(), ..Sample::default() }
}
