//! Jobs that were given up: kept with the reason, for an operator to look at.

use std::{future::IntoFuture as _, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{message::PublishMessage, stream::RawMessageErrorKind},
};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::{QueueError, within},
    subjects,
};
use crate::domain::{ids::MessageId, time::Millis};

/// How long reading all letters may take.
const READ_LIMIT: Duration = Duration::from_secs(10);

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
    within(REQUEST_TIMEOUT, "keeping a dead letter", async {
        connection.jetstream.send_publish(subjects::dead(id), message).await?.into_future().await?;
        Ok(())
    })
    .await
}

/// Removes what is kept of a job, if it was given up.
pub async fn purge(connection: &Connection, id: MessageId) -> Result<(), QueueError> {
    within(REQUEST_TIMEOUT, "removing a dead letter", async {
        let stream = connection.jetstream.get_stream_no_info(subjects::DEAD).await?;
        loop {
            match stream.get_last_raw_message_by_subject(&subjects::dead(id)).await {
                Ok(letter) => stream.delete_message(letter.sequence).await?,
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(()),
                Err(error) => return Err(error.into()),
            };
        }
    })
    .await
}

/// The dead letters, oldest first, at most `limit`.
pub async fn list(connection: &Connection, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
    within(READ_LIMIT, "reading the dead letters", async {
        let mut letters = Vec::new();
        let stream = connection.jetstream.get_stream(subjects::DEAD).await?;
        let waiting = usize::try_from(stream.cached_info().state.messages).unwrap_or(usize::MAX);
        let consumer = stream.create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default()).await?;
        let mut messages = consumer.messages().await?.take(limit.min(waiting));
        while let Some(message) = messages.next().await {
            letters.extend(serde_json::from_slice::<DeadLetter>(&message?.payload).ok());
        }
        Ok(letters)
    })
    .await
}
