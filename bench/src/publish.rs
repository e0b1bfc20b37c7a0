//! Bare acknowledged publishes: what accepting a job costs on the queue alone, with nothing of the product.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_nats::jetstream::{
    self,
    message::PublishMessage,
    stream::{Config, RetentionPolicy, StorageType},
};
use bytes::Bytes;
use common::{
    domain::ids::{AgentId, MessageId},
    queue::config::QueueRole,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    bare::{CALL_LIMIT, connect},
    load::Lengths,
    nats::Nats,
    payload::{self, Asker},
    sample::Sample,
    window::{Tally, Window},
};

const STREAM: &str = "PUBLISHED";

/// Has `callers` publish jobs for the given time, each as soon as its last one is acknowledged.
///
/// # Errors
/// When the server refuses the stream.
pub async fn run(nats: &Nats, callers: u32, lengths: Lengths) -> Result<Sample> {
    let job = Asker::new().job(AgentId::new(), payload::PROMPT.to_owned());
    let payload = Bytes::from(serde_json::to_vec(&job)?);
    let jetstream = jetstream::new(connect(nats.config(QueueRole::Admin)).await?);
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["published.*".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        ..Config::default()
    };
    jetstream.get_or_create_stream(config).await?;
    let jetstream = Arc::new(jetstream);

    let window = Window::after(lengths.warm_up, lengths.measure);
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(one(jetstream.clone(), payload.clone(), window));
    }
    let all = async {
        let mut sum = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            sum.extend(tally?);
        }
        Ok(sum)
    };
    let sample = window.watch([None, None, Some(&nats.process)], all).await?;
    jetstream.delete_stream(STREAM).await?;
    Ok(sample)
}

async fn one(jetstream: Arc<jetstream::Context>, payload: Bytes, window: Window) -> Tally {
    let mut tally = Tally::default();
    while window.is_open() {
        let asked = Instant::now();
        let published = timeout(CALL_LIMIT, publish(&jetstream, payload.clone())).await;
        let published = published.with_context(|| format!("no acknowledgement within {CALL_LIMIT:?}"));
        tally.count(window, asked, published.flatten());
    }
    tally
}

async fn publish(jetstream: &jetstream::Context, payload: Bytes) -> Result<()> {
    let id = MessageId::new().0.simple().to_string();
    let message = PublishMessage::build().message_id(&id).payload(payload);
    jetstream.send_publish(format!("published.{id}"), message).await?.await?;
    Ok(())
}
