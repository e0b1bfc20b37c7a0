//! Jobs that were given up: kept with the reason, for an operator to look at.

use std::{future::IntoFuture as _, time::Duration};

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID, jetstream::message::PublishMessage};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::QueueError,
    subjects,
};
use crate::domain::{ids::MessageId, time::Millis};

/// A job that was given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Why.
    pub reason: String,
    /// When.
    pub at: Millis,
    /// The payload as it stood on the queue: a job's envelope, or what could not be read as one.
    pub payload: String,
}

/// Keeps `payload` in `DEAD`, and returns once it is stored.
pub async fn bury(connection: &Connection, id: MessageId, reason: &str, payload: &[u8]) -> Result<(), QueueError> {
    let letter = DeadLetter {
        reason: reason.to_owned(),
        at: Millis::now(),
        payload: String::from_utf8_lossy(payload).into_owned(),
    };
    let body = serde_json::to_vec(&letter).map_err(|source| QueueError::Malformed { what: "DEAD", source })?;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id.0.simple().to_string());
    let message = PublishMessage::build().payload(body.into()).headers(headers);
    let doing = "keeping a dead letter";
    let publish = async {
        connection.jetstream.send_publish(subjects::dead(id), message).await?.into_future().await?;
        Ok(())
    };
    timeout(REQUEST_TIMEOUT, publish)
        .await
        .map_err(|_| QueueError::TimedOut { doing, seconds: REQUEST_TIMEOUT.as_secs() })?
        .map_err(QueueError::refused(doing))
}

/// The dead letters, oldest first, at most `limit`.
pub async fn list(connection: &Connection, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
    let doing = "reading the dead letters";
    let mut letters = Vec::new();
    let read = async {
        let stream = connection.jetstream.get_stream(subjects::DEAD).await?;
        let waiting = usize::try_from(stream.cached_info().state.messages).unwrap_or(usize::MAX);
        let consumer = stream.create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default()).await?;
        let mut messages = consumer.messages().await?.take(limit.min(waiting));
        while let Some(message) = messages.next().await {
            letters.extend(serde_json::from_slice::<DeadLetter>(&message?.payload).ok());
        }
        Ok(())
    };
    let limit = Duration::from_secs(10);
    timeout(limit, read)
        .await
        .map_err(|_| QueueError::TimedOut { doing, seconds: limit.as_secs() })?
        .map_err(QueueError::refused(doing))?;
    Ok(letters)
}
