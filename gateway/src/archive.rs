//! What every way of asking for a message does: finds it in the database or on the queue, waits for it, follows it,
//! stops it, blanks it.

mod cursor;
mod found;

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        event::Callback,
        ids::{AgentId, MessageId},
        job::{Job, Turn},
        message::MessageStatus,
        object::MessageObject,
        reply::Outcome,
        time::Millis,
    },
    lifecycle::Lifecycle,
    metrics::Metrics,
    queue::{cancel::CancelSender, connection::Connection, dead, error::QueueError, events, jobs, signals},
    store::{
        connection::Store,
        error::StoreError,
        listing::{ListFilter, Listed, Purged},
        messages::{Committed, Finish},
        stored::StoredMessage,
    },
};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use tracing::error;

pub use self::{cursor::PageCursor, found::Found};
use crate::{
    auth::caller::Caller,
    error::ApiError,
    follow::{follower::Follower, hub::Hub, position::Position},
    waiter::{Waiters, Wake},
};

/// How long after one another the words of a cancelled message are purged again.
const LAST_WORDS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(30)];

/// Knows what was submitted. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    store: Store,
    connection: Connection,
    hub: Hub,
    waiters: Arc<Waiters>,
    cancels: CancelSender,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
}

/// What a message asked for.
pub struct Asked {
    /// Whom.
    pub agent: AgentId,
    /// What.
    pub turns: Vec<Turn>,
    /// Whether its caller marked the beginning of a conversation.
    pub new_chat: bool,
    /// Where its end is told.
    pub callback: Option<Callback>,
    /// What the caller gave along.
    pub metadata: Option<Map<String, Value>>,
}

/// A page of a list.
pub struct Page {
    /// Newest first.
    pub messages: Vec<MessageObject>,
    /// Where the next page begins, if there is one.
    pub next: Option<PageCursor>,
}

impl Archive {
    /// An archive of what is in `store` and on the queue behind `connection`.
    pub fn new(
        store: Store,
        connection: Connection,
        hub: Hub,
        waiters: Arc<Waiters>,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> Self {
        let cancels = CancelSender::new(connection.clone());
        Self { store, connection, hub, waiters, cancels, metrics, lifecycle }
    }

    /// What its work belongs to.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The message `id`, if `caller` may see it.
    ///
    /// # Errors
    /// [`ApiError::MessageNotFound`] for whatever is not there or not the caller's; the two cannot be told apart.
    pub async fn find(&self, caller: &Caller, id: MessageId) -> Result<Found, ApiError> {
        let found = match self.stored(id).await? {
            Some(message) => Some(message),
            None => match self.on_queue(caller, id).await? {
                Some(job) => Some(Found::OnQueue(Box::new(job))),
                // It may have ended, and have left the queue, between the two looks.
                None => self.stored(id).await?,
            },
        };
        let own = found.filter(|found| found.belongs_to(caller) && caller.key.may_use(found.agent()));
        own.ok_or(ApiError::MessageNotFound)
    }

    /// The message `id` once it has ended, or as it stands after `wait`.
    ///
    /// # Errors
    /// As for [`Archive::find`].
    pub async fn wait(&self, caller: &Caller, id: MessageId, wait: Duration) -> Result<MessageObject, ApiError> {
        let until = Instant::now() + wait;
        let found = self.find(caller, id).await?;
        if found.status().is_terminal() || wait.is_zero() {
            return Ok(found.object());
        }
        let ended = tokio::select! {
            ended = self.hub.end(caller.account.id, id, until) => ended,
            // Whoever waits here asks another gateway.
            () = self.lifecycle.stopping() => None,
        };
        match ended {
            Some(outcome) => Ok(found.object().ended(outcome)),
            None => self.find(caller, id).await.map(Found::object),
        }
    }

    /// A reader of the message `id` from its beginning, or from the event `after` on, and the message without its end.
    /// `None` when that event was the last one.
    ///
    /// # Errors
    /// As for [`Archive::find`]; 410 when its texts are gone, 400 when `after` is no event of it.
    pub async fn follow(
        &self,
        caller: &Caller,
        id: MessageId,
        after: Option<&str>,
    ) -> Result<Option<(Follower, MessageObject)>, ApiError> {
        let after = after
            .map(|after| Position::parse(after, id))
            .transpose()
            .map_err(|error| ApiError::BadRequest(format!("`Last-Event-ID` (or `after`): {error}")))?;
        let mut found = self.find(caller, id).await?;
        if found.is_purged() {
            return Err(ApiError::Purged(id));
        }
        if after.is_some_and(Position::is_end) {
            return Ok(None);
        }
        let follower = match found.take_outcome() {
            Some(outcome) => Follower::of_ended(outcome, after),
            None => self.hub.follow(caller.account.id, id, after),
        };
        Ok(Some((follower, found.object())))
    }

    /// The newest messages that pass `filter` and that `caller` may see.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn list(&self, caller: &Caller, mut filter: ListFilter, limit: usize) -> Result<Page, ApiError> {
        if let Some(allowed) = &caller.key.agents {
            filter.agents = Some(match filter.agents {
                Some(wanted) => wanted.into_iter().filter(|agent| allowed.contains(agent)).collect(),
                None => allowed.clone(),
            });
        }
        let listed = self.store.messages(caller.account.id, &filter, limit).await;
        let Listed { messages, has_more } = listed.map_err(|error| unavailable(&error))?;
        let next = messages.last().filter(|_| has_more).map(|last| PageCursor(last.id.0));
        Ok(Page { messages: messages.into_iter().map(StoredMessage::object).collect(), next })
    }

    /// Stops the message `id`: when this returns, it is cancelled, and no other end of it will count.
    ///
    /// # Errors
    /// As for [`Archive::find`]; 409 when it has ended.
    pub async fn cancel(&self, caller: &Caller, id: MessageId) -> Result<MessageObject, ApiError> {
        let found = self.find(caller, id).await?;
        if found.status().is_terminal() {
            return Err(ApiError::AlreadyEnded(id, found.status()));
        }
        let job = match &found {
            Found::OnQueue(job) => Arc::new((**job).clone()),
            Found::Stored(_) => match self.on_queue(caller, id).await? {
                Some(job) => Arc::new(job),
                // What has left the queue has ended by now.
                None => return Err(ApiError::AlreadyEnded(id, self.find(caller, id).await?.status())),
            },
        };
        let object = found.object();
        let outcome = cancelled(&object);
        // Not in the request's own task: a caller who hangs up in between must not leave it half done.
        let stopping = self.lifecycle.spawn(self.clone().stop(job, outcome.clone()));
        let committed = stopping.await.map_err(|_| ApiError::Internal)?;
        match committed.map_err(|error| unavailable(&error))? {
            Committed::Won { .. } => Ok(object.ended(outcome)),
            Committed::Lost(earlier) => Err(ApiError::AlreadyEnded(id, earlier.status)),
        }
    }

    /// What the message `id`, which was found, asked for, to ask it again.
    ///
    /// # Errors
    /// 409 when it has not ended or was answered, 410 when its texts are gone.
    pub async fn asked(&self, found: Found, id: MessageId) -> Result<Asked, ApiError> {
        let message = match found {
            Found::Stored(message) => message,
            Found::OnQueue(_) => return Err(ApiError::NotEnded(id, MessageStatus::Queued)),
        };
        if message.purged_at.is_some() {
            return Err(ApiError::Purged(id));
        }
        match message.status {
            MessageStatus::Failed | MessageStatus::Cancelled | MessageStatus::Expired => {}
            MessageStatus::Completed => return Err(ApiError::AlreadyAnswered(id)),
            status => return Err(ApiError::NotEnded(id, status)),
        }
        let turns = self.store.turns(id).await.map_err(|error| unavailable(&error))?;
        // Purged between the two looks.
        let turns = turns.filter(|turns| !turns.is_empty()).ok_or(ApiError::Purged(id))?;
        let StoredMessage { agent, new_chat, callback, metadata, .. } = *message;
        Ok(Asked { agent, turns, new_chat, callback, metadata })
    }

    /// Blanks the texts of the message `id` everywhere.
    ///
    /// # Errors
    /// As for [`Archive::find`]; 409 when it has not ended. After 502 some of it may be left: do it again.
    pub async fn purge(&self, caller: &Caller, id: MessageId) -> Result<(), ApiError> {
        let found = self.find(caller, id).await?;
        let purged = self.store.purge(caller.account.id, id).await.map_err(|error| unavailable(&error))?;
        match purged {
            // What was purged before may still be on the queue: that time it could not be reached.
            Purged::Done | Purged::AlreadyPurged => {}
            Purged::NotFinished => return Err(ApiError::NotEnded(id, found.status())),
            Purged::Missing => return Err(ApiError::NotEnded(id, MessageStatus::Queued)),
        }
        if found.status() == MessageStatus::Cancelled {
            self.lifecycle.spawn_background(self.clone().purge_last_words(id));
        }
        self.purge_queue(caller, id).await.map_err(|error| unreachable(&error))
    }

    /// The worker of a message that was just cancelled may say some more before it hears of it.
    async fn purge_last_words(self, id: MessageId) {
        for pause in LAST_WORDS {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.lifecycle.aborting() => return,
            }
            if let Err(error) = events::purge(&self.connection, id).await {
                error!(message.id = %id, %error, "could not purge what a cancelled message may have said since");
            }
        }
    }

    async fn purge_queue(&self, caller: &Caller, id: MessageId) -> Result<(), QueueError> {
        // Finished, and not acknowledged yet.
        if let Some((_, place)) = jobs::find(&self.connection, caller.account.id, id).await? {
            jobs::delete(&self.connection, place).await?;
        }
        events::purge(&self.connection, id).await?;
        dead::purge(&self.connection, id).await
    }

    /// Stores the end and, when it is the one that counts, tells everybody.
    async fn stop(self, job: Arc<Job>, outcome: Outcome) -> Result<Committed, StoreError> {
        let end = Finish { job: job.clone(), outcome: outcome.clone() };
        let committed = self.store.finish(std::slice::from_ref(&end)).await?;
        let committed = committed.into_iter().next().ok_or(StoreError::Missing("message"))?;
        if let Committed::Won { .. } = committed {
            self.metrics.job_finished(job.channel, MessageStatus::Cancelled);
            self.waiters.wake(job.id, Wake::Stored(Box::new(outcome.clone())));
            self.hub.tell(job.id, outcome.clone());
            self.cancels.tell(job.account, job.id, outcome).await;
            if job.tells(MessageStatus::Cancelled) {
                signals::wake_deliveries(&self.connection).await;
            }
        }
        Ok(committed)
    }

    async fn stored(&self, id: MessageId) -> Result<Option<Found>, ApiError> {
        let message = self.store.message(id).await.map_err(|error| unavailable(&error))?;
        Ok(message.map(|message| Found::Stored(Box::new(message))))
    }

    async fn on_queue(&self, caller: &Caller, id: MessageId) -> Result<Option<Job>, ApiError> {
        let found = jobs::find(&self.connection, caller.account.id, id).await;
        Ok(found.map_err(|error| unreachable(&error))?.map(|(job, _)| job))
    }
}

/// The end that a caller gives a message. What it used until then is charged by the worker that ran it.
fn cancelled(object: &MessageObject) -> Outcome {
    Outcome {
        attempts: object.attempts,
        started_at: object.started_at.map(|moment| moment.0),
        ..Outcome::cancelled(Millis::now())
    }
}

fn unavailable(error: &StoreError) -> ApiError {
    error!(%error, "could not look into the store");
    ApiError::StoreUnavailable
}

fn unreachable(error: &QueueError) -> ApiError {
    error!(%error, "could not look into the queue");
    ApiError::StoreUnavailable
}
