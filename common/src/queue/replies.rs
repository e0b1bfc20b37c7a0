//! Frames on their way back: a worker sends them, the gateway that waits receives them.

use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::{QueueError, within},
    subjects,
};
use crate::domain::{
    ids::{GatewayId, MessageId},
    job::Job,
    reply::{Frame, FrameBody},
};

/// A larger answer does not travel in its terminal frame: the gateway reads it from the store. In bytes.
pub const INLINE_LIMIT: usize = 256 * 1024;

/// A frame with a short text has less than this, in bytes: it is written without moving it.
const USUAL_SIZE: usize = 512;

/// Sends frames.
#[derive(Clone)]
pub struct ReplySender {
    connection: Connection,
}

impl ReplySender {
    /// A sender on `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Sends a piece of the answer, or that a run has begun, to whoever follows the job. Best effort: the terminal
    /// frame fills every gap.
    pub async fn progress(&self, job: &Job, frame: &Frame) {
        self.send(subjects::event(job), frame).await;
    }

    /// Sends the end to the gateway that waits, or only to those who attached. The end is stored already: whoever
    /// misses this frame finds it there.
    pub async fn terminal(&self, gateway: Option<GatewayId>, mut frame: Frame) {
        if let FrameBody::Terminal { outcome } = &mut frame.body
            && outcome.content.as_ref().is_some_and(|content| content.len() > INLINE_LIMIT)
        {
            outcome.content = None;
        }
        self.send(subjects::reply(gateway, frame.id), &frame).await;
    }

    async fn send(&self, subject: String, frame: &Frame) {
        let mut payload = Vec::with_capacity(USUAL_SIZE);
        let Ok(()) = serde_json::to_writer(&mut payload, frame) else { return };
        let sent = timeout(REQUEST_TIMEOUT, self.connection.client.publish(subject, payload.into())).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!(message.id = %frame.id, "could not send a frame");
        }
    }
}

/// Receives all frames for one gateway.
pub struct ReplyReceiver {
    replies: Subscriber,
    events: Subscriber,
}

impl ReplyReceiver {
    /// Subscribes for `gateway`. Jobs that are published on the same connection afterwards find the
    /// subscriptions in place: the server handles a connection's lines in order.
    ///
    /// # Errors
    /// When the server does not answer in time.
    pub async fn subscribe(connection: &Connection, gateway: GatewayId) -> Result<Self, QueueError> {
        within(Duration::from_secs(10), "subscribing for replies", async {
            let replies = connection.client.subscribe(subjects::replies_to(gateway)).await?;
            let events = connection.client.subscribe(subjects::events_to(gateway)).await?;
            Ok(Self { replies, events })
        })
        .await
    }

    /// The next frame, still encoded, and the job that it is about. `None` when the connection was closed.
    pub async fn next(&mut self) -> Option<(MessageId, Bytes)> {
        loop {
            let message = tokio::select! {
                message = self.replies.next() => message?,
                message = self.events.next() => message?,
            };
            if let Some(id) = subjects::job_of(&message.subject) {
                return Some((id, message.payload));
            }
        }
    }
}
