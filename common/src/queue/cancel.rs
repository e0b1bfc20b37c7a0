//! Stopping a job or a batch: whoever waits is told, the worker that runs it stops, and the queue forgets it.

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::QueueError,
    jobs,
    replies::ReplySender,
    signals::subscribe,
    subjects,
};
use crate::domain::{
    ids::{AccountId, BatchId, MessageId},
    reply::{Attempt, Frame, FrameBody, Outcome},
};

/// A gateway's way to stop jobs.
#[derive(Clone)]
pub struct CancelSender {
    connection: Connection,
    replies: ReplySender,
}

impl CancelSender {
    /// A sender on `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { replies: ReplySender::new(connection.clone()), connection }
    }

    /// Stops a job whose cancelled end is stored already: tells the worker that may run it and those who wait for it,
    /// and takes it off the queue. Best effort: a worker that hears nothing finds the stored end when it has one of
    /// its own.
    pub async fn tell(&self, account: AccountId, id: MessageId, cancelled: Outcome) {
        self.stop(id.0).await;
        let found = jobs::find(&self.connection, account, id).await.unwrap_or_else(|error| {
            warn!(message.id = %id, %error, "could not look for a cancelled job on the queue");
            None
        });
        let waiting = found.as_ref().and_then(|(job, _)| job.reply_to);
        let body = FrameBody::Terminal { outcome: cancelled };
        self.replies.terminal(waiting, Frame { id, attempt: Attempt::LAST, n: 0, body }).await;
        if let Some((_, place)) = found
            && let Err(error) = jobs::delete(&self.connection, place).await
        {
            warn!(message.id = %id, %error, "could not take a cancelled job off the queue");
        }
    }

    /// Stops what runs of a batch whose stop is stored already. Its lines that wait on the queue are dropped as their
    /// turn comes. Best effort: workers look by themselves as well.
    pub async fn tell_batch(&self, id: BatchId) {
        self.stop(id.0).await;
    }

    async fn stop(&self, id: Uuid) {
        let sent = self.connection.client.publish(subjects::cancel(id), Bytes::new());
        if !matches!(timeout(REQUEST_TIMEOUT, sent).await, Ok(Ok(()))) {
            warn!(%id, "could not tell the workers of a cancelled job or batch");
        }
    }
}

/// A worker's ear for jobs and batches that are to stop.
pub struct CancelReceiver(Subscriber);

impl CancelReceiver {
    /// Subscribes. A job that is pulled on the same connection afterwards and stopped before that is heard of first.
    ///
    /// # Errors
    /// When the client does not take the subscription in time.
    pub async fn subscribe(connection: &Connection) -> Result<Self, QueueError> {
        Ok(Self(subscribe(connection, subjects::CANCELS.to_owned()).await?))
    }

    /// The next job or batch that is to stop: an id tells which of them. `None` when the connection was closed.
    pub async fn next(&mut self) -> Option<Uuid> {
        loop {
            let message = self.0.next().await?;
            if let Some(id) = subjects::job_of(&message.subject) {
                return Some(id.0);
            }
        }
    }
}
