//! Following a job from anywhere: what it has said so far, and then what it says.

use std::{collections::VecDeque, future::pending};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::{QueueError, within},
    events, jobs, subjects,
};
use crate::domain::{
    ids::{AccountId, MessageId},
    reply::Frame,
};

/// One job's frames, whichever gateway they are sent to. Dropping it ends the subscriptions.
pub struct Attachment {
    connection: Connection,
    account: AccountId,
    id: MessageId,
    /// Where the job speaks, once it was seen on the queue.
    speaks_on: Option<String>,
    /// Absent as long as only the end is wanted.
    events: Option<Subscriber>,
    replies: Subscriber,
    replayed: VecDeque<Frame>,
}

impl Attachment {
    /// Subscribes, and reads what `EVENTS` remembers. Whatever is sent after this has returned is received: an end
    /// that a look into the store does not find afterwards will come as a frame, unless the connection breaks.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn open(connection: &Connection, account: AccountId, id: MessageId) -> Result<Self, QueueError> {
        let mut attachment = Self::subscribed(connection, account, id).await?;
        attachment.hear_text().await?;
        Ok(attachment)
    }

    /// Subscribes to the end alone: an answer's text then costs nothing. What is sent after this has returned is
    /// received.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn open_for_end(connection: &Connection, account: AccountId, id: MessageId) -> Result<Self, QueueError> {
        let attachment = Self::subscribed(connection, account, id).await?;
        // The server handles a connection's lines in order: once it answers, the subscription is in place.
        events::ask(connection).await?;
        Ok(attachment)
    }

    async fn subscribed(connection: &Connection, account: AccountId, id: MessageId) -> Result<Self, QueueError> {
        let replies = within(REQUEST_TIMEOUT, "subscribing to a job", async {
            Ok(connection.client.subscribe(subjects::replies_about(id)).await?)
        });
        let (replies, connection) = (replies.await?, connection.clone());
        Ok(Self { connection, account, id, speaks_on: None, events: None, replies, replayed: VecDeque::new() })
    }

    /// Hears the text as well from now on, and reads what `EVENTS` remembers of it.
    ///
    /// # Errors
    /// When the queue does not answer. It can be called again.
    pub async fn hear_text(&mut self) -> Result<(), QueueError> {
        if self.events.is_none() {
            let events = within(REQUEST_TIMEOUT, "subscribing to a job's text", async {
                Ok(self.connection.client.subscribe(subjects::events_about(self.id)).await?)
            });
            self.events = Some(events.await?);
        }
        self.replay().await
    }

    /// Reads again what `EVENTS` remembers: after a reconnect, frames may have been missed.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn replay(&mut self) -> Result<(), QueueError> {
        // Also the round trip after which the subscriptions are in place: the server handles a connection's lines in
        // order. A job that is not on the queue is finished, or has said nothing yet.
        if self.speaks_on.is_none() {
            let found = jobs::find(&self.connection, self.account, self.id).await?;
            self.speaks_on = found.map(|(job, _)| subjects::event(&job));
        }
        if let Some(subject) = &self.speaks_on {
            // What is left of the reading before is among it.
            self.replayed = events::read(&self.connection, subject).await?.into();
        }
        Ok(())
    }

    /// The next frame: first those that were replayed, then those that come. A frame may show twice, and one of an
    /// older run after one of a newer. `None` when the connection was closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.replayed.pop_front() {
                return Some(frame);
            }
            // The end comes last: what was said before it is in its channel by then.
            let message = tokio::select! {
                biased;
                message = next(&mut self.events) => message?,
                message = self.replies.next() => message?,
            };
            if let Some(frame) = events::frame(&message.payload) {
                return Some(frame);
            }
        }
    }
}

/// The next message; never one as long as there is no subscription.
async fn next(events: &mut Option<Subscriber>) -> Option<Message> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}
