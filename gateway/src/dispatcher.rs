//! The one way to an agent, whatever the channel: puts a job on the queue, and waits for its end or does not.

pub mod answer;
pub mod answer_stream;
pub mod ends;
mod followed;
mod frames;
mod notes;
pub mod prompt;
pub mod upkeep;

use std::{borrow::Borrow, sync::Arc, time::Duration};

use common::{
    domain::{
        ids::{AccountId, GatewayId, MessageId},
        job::{Job, Lane},
        time::Millis,
    },
    lifecycle::Lifecycle,
    metrics::Metrics,
    queue::{
        error::PublishError,
        place::Place,
        publisher::{Published, Publisher},
    },
    store::connection::Store,
};
use tokio::time::Instant;
use tracing::warn;

use self::{
    answer::{Answer, DispatchError},
    answer_stream::AnswerStream,
    ends::Ends,
    followed::Followed,
    frames::{Frames, Source},
    notes::Notes,
    prompt::{Patience, Prompt, Terms},
};
use crate::{
    follow::hub::Hub,
    placement::Placement,
    prices::is_affordable,
    room::{Full, Room},
    stored_ends::StoredEnds,
    waiter::Waiters,
};

/// A job that was stored this long after its publish budget was over was answered as refused, and is not run.
const PUBLISH_SLACK: Duration = Duration::from_secs(3);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherConfig {
    /// How long a caller waits for the answer.
    pub deadline: Duration,
    /// How long after that deadline a worker may still begin the job.
    pub start_by_grace: Duration,
    /// How long after its acceptance a worker may begin a job that nobody waits for.
    pub start_within: Duration,
}

/// Sends prompts to agents.
#[derive(Clone)]
pub struct Dispatcher {
    gateway: GatewayId,
    config: DispatcherConfig,
    publisher: Publisher,
    placement: Placement,
    room: Arc<Room>,
    ends: Ends,
    hub: Hub,
    waiters: Arc<Waiters>,
    notes: Notes,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
}

/// What a [`Dispatcher`] is made of.
pub struct Parts {
    /// Where its replies come.
    pub gateway: GatewayId,
    /// How long things may take.
    pub config: DispatcherConfig,
    /// How jobs come to the queue.
    pub publisher: Publisher,
    /// And where there.
    pub placement: Placement,
    /// How many of them accounts may have.
    pub room: Arc<Room>,
    /// Where ends are stored.
    pub store: Store,
    /// Who follows messages.
    pub hub: Hub,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub lifecycle: Lifecycle,
}

impl Dispatcher {
    /// A dispatcher of these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { gateway, config, publisher, placement, room, store, hub, metrics, lifecycle } = parts;
        let notes = Notes::start(store.clone(), publisher.connection().clone(), &lifecycle);
        let (ends, waiters) = (Ends::new(StoredEnds::new(store)), Arc::default());
        Self { gateway, config, publisher, placement, room, ends, hub, waiters, notes, metrics, lifecycle }
    }

    /// Those who wait, for whoever receives the replies.
    pub fn waiters(&self) -> Arc<Waiters> {
        self.waiters.clone()
    }

    /// Puts the job `id` on the queue and waits for its end. Nobody else on this gateway may wait in this way for the
    /// same id. Calls `joins` when another's job is there already under this id, here and wherever that may be.
    ///
    /// # Errors
    /// [`DispatchError::Timeout`] when the caller's patience is at an end, and the job goes on.
    pub async fn call(
        &self,
        mut prompt: Prompt,
        id: MessageId,
        patience: Patience,
        joins: impl FnOnce() + Send,
    ) -> Result<Answer, DispatchError> {
        let until = self.until(prompt.asked_at, patience);
        let trace = prompt.traceparent.take();
        let mut under_way = self.placement.call(prompt.account);
        let place = under_way.place().await;
        let terms = Terms { reply_to: Some(self.gateway), ..self.waiting(id, place, patience) };
        let job = self.job(prompt, terms)?;
        let (account, created_at) = (job.account, job.created_at);
        // Registered before the publish: a fast worker may answer before the publish is acknowledged.
        let mut waiter = self.waiters.call(id);
        let wake = match self.publish(job, place, trace).await {
            Ok(Published { was_known: false }) => {
                let awaited = self.notes.awaited(account, id);
                let wake = self.ends.wake(&mut waiter, id, until, &self.lifecycle).await?;
                awaited.heard();
                under_way.heard();
                wake
            }
            // Another's job under the same id counts, and its end is told to whom that one names.
            Ok(Published { was_known: true }) => {
                joins();
                return self.join_until(account, id, created_at, until).await;
            }
            Err(error) => waiter.take_now().ok_or(error)?,
        };
        let outcome = self.ends.outcome(id, wake, until).await?;
        Ok(Answer { id, created_at, outcome })
    }

    /// Puts the job `id` on the queue and returns once there is text or the end: what fails before the first piece is
    /// an error, not a broken stream. Nobody else on this gateway may wait in this way for the same id.
    pub async fn stream(
        &self,
        mut prompt: Prompt,
        id: MessageId,
        joins: impl FnOnce() + Send,
    ) -> Result<AnswerStream, DispatchError> {
        let asked_at = prompt.asked_at;
        let until = self.until(asked_at, Patience::Deadline);
        let trace = prompt.traceparent.take();
        let under_way = self.placement.call(prompt.account);
        let place = under_way.place().await;
        let terms = Terms { reply_to: Some(self.gateway), stream: true, ..self.waiting(id, place, Patience::Deadline) };
        let job = self.job(prompt, terms)?;
        let (account, created_at) = (job.account, job.created_at);
        let waiter = self.waiters.stream(id);
        if self.publish(job, place, trace).await?.was_known {
            joins();
            return self.follow(account, asked_at, id, created_at).await;
        }
        let (ends, lifecycle) = (self.ends.clone(), self.lifecycle.clone());
        let source = Source::Own(Frames { id, waiter, under_way, ends, until, lifecycle });
        self.begin(source, account, id, created_at).await
    }

    /// Puts the job `id` on the queue, and returns once it is stored there.
    pub async fn submit(&self, mut prompt: Prompt, id: MessageId) -> Result<(), DispatchError> {
        let trace = prompt.traceparent.take();
        let place = Place::Slot(self.placement.slot(prompt.account, Lane::Background).await);
        let job = Arc::new(self.job(prompt, self.submitted(id, Lane::Background, place))?);
        self.publish(job.clone(), place, trace).await?;
        self.notes.queued(job);
        Ok(())
    }

    /// Like [`Dispatcher::call`] for an id that an earlier request took: others may wait for it, here or elsewhere, and
    /// may put an equal job on the queue at the same time.
    pub async fn call_again(
        &self,
        prompt: Prompt,
        id: MessageId,
        created_at: Millis,
        patience: Patience,
        joins: impl FnOnce() + Send,
    ) -> Result<Answer, DispatchError> {
        let (account, until) = (prompt.account, self.until(prompt.asked_at, patience));
        let mut under_way = self.placement.call(account);
        if self.hand_in(prompt, self.waiting(id, under_way.place().await, patience)).await?.was_known {
            joins();
        }
        let answer = self.join_until(account, id, created_at, until).await?;
        under_way.heard();
        Ok(answer)
    }

    /// Like [`Dispatcher::stream`] for an id that an earlier request took.
    pub async fn stream_again(
        &self,
        prompt: Prompt,
        id: MessageId,
        created_at: Millis,
        joins: impl FnOnce() + Send,
    ) -> Result<AnswerStream, DispatchError> {
        let (account, asked_at) = (prompt.account, prompt.asked_at);
        let place = self.placement.call(account).place().await;
        if self.hand_in(prompt, self.waiting(id, place, Patience::Deadline)).await?.was_known {
            joins();
        }
        self.follow(account, asked_at, id, created_at).await
    }

    /// The answer to an account's message that was accepted at `created_at`, by whatever gateway, as it is made, for a
    /// caller who asked at `asked_at`.
    ///
    /// # Errors
    /// As for [`Dispatcher::stream`].
    pub async fn follow(
        &self,
        account: AccountId,
        asked_at: Instant,
        id: MessageId,
        created_at: Millis,
    ) -> Result<AnswerStream, DispatchError> {
        let (until, hub) = (self.until(asked_at, Patience::Deadline), self.hub.clone());
        let (follower, lifecycle) = (hub.follow(account, id, None), self.lifecycle.clone());
        let source = Source::Others(Followed { account, id, follower, hub, until, lifecycle });
        self.begin(source, account, id, created_at).await
    }

    async fn begin(
        &self,
        source: Source,
        account: AccountId,
        id: MessageId,
        created_at: Millis,
    ) -> Result<AnswerStream, DispatchError> {
        let awaited = self.notes.awaited(account, id);
        let begun = AnswerStream::begin(source, id, created_at).await;
        if !matches!(begun, Err(DispatchError::Timeout { .. })) {
            awaited.heard();
        }
        begun
    }

    /// Waits for the end of an account's message that was accepted at `created_at`, by whatever gateway, for a caller who
    /// asked at `asked_at`.
    ///
    /// # Errors
    /// As for [`Dispatcher::call`].
    pub async fn join(
        &self,
        account: AccountId,
        asked_at: Instant,
        id: MessageId,
        created_at: Millis,
        patience: Patience,
    ) -> Result<Answer, DispatchError> {
        self.join_until(account, id, created_at, self.until(asked_at, patience)).await
    }

    async fn join_until(
        &self,
        account: AccountId,
        id: MessageId,
        created_at: Millis,
        until: Instant,
    ) -> Result<Answer, DispatchError> {
        let awaited = self.notes.awaited(account, id);
        let ended = Box::pin(self.hub.end(account, id, until)).await;
        let outcome = ended.ok_or(DispatchError::Timeout { id })?;
        awaited.heard();
        Ok(Answer { id, created_at, outcome })
    }

    /// When the patience of a caller who asked at `asked_at` is at an end.
    fn until(&self, asked_at: Instant, patience: Patience) -> Instant {
        let wait = match patience {
            Patience::Deadline => self.config.deadline,
            Patience::AtMost(wait) => wait.min(self.config.deadline),
        };
        asked_at + wait
    }

    async fn hand_in(&self, mut prompt: Prompt, terms: Terms) -> Result<Published, DispatchError> {
        let (trace, place) = (prompt.traceparent.take(), terms.place);
        self.publish(self.job(prompt, terms)?, place, trace).await.map_err(DispatchError::of_repeat)
    }

    fn job(&self, prompt: Prompt, terms: Terms) -> Result<Job, DispatchError> {
        if self.lifecycle.is_stopping() {
            return Err(DispatchError::Draining);
        }
        if !is_affordable(prompt.price, prompt.balance) {
            return Err(DispatchError::InsufficientCredits);
        }
        Ok(prompt.job(terms))
    }

    /// What is the same for all jobs of callers who wait until `patience` is at an end.
    fn waiting(&self, id: MessageId, place: Place, patience: Patience) -> Terms {
        let wait = (patience == Patience::Deadline).then_some(self.config.deadline);
        let start_within = wait.map_or(self.config.start_within, |wait| wait + self.config.start_by_grace);
        Terms { wait, start_within, ..self.submitted(id, Lane::Interactive, place) }
    }

    /// What is the same for all jobs that nobody waits for.
    fn submitted(&self, id: MessageId, lane: Lane, place: Place) -> Terms {
        Terms {
            id,
            lane,
            place,
            reply_to: None,
            stream: false,
            wait: None,
            publish_within: self.publisher.budget() + PUBLISH_SLACK,
            start_within: self.config.start_within,
        }
    }

    /// Takes the job, so that its text is not kept while its caller waits.
    async fn publish(
        &self,
        job: impl Borrow<Job>,
        place: Place,
        traceparent: Option<String>,
    ) -> Result<Published, DispatchError> {
        let (id, channel) = (job.borrow().id, job.borrow().channel);
        self.room.enter(job.borrow().account).await.map_err(|Full(limit)| DispatchError::AccountQueueFull(limit))?;
        match self.publisher.publish(job, place, traceparent).await {
            Ok(published) => {
                if !published.was_known {
                    self.metrics.job_accepted(channel);
                }
                Ok(published)
            }
            Err(PublishError::Full) => Err(DispatchError::QueueFull),
            Err(PublishError::TooLarge) => Err(DispatchError::TooLarge),
            Err(error @ PublishError::NotTaken(_)) => {
                warn!(message.id = %id, %error, "a message was not accepted");
                Err(DispatchError::Unreachable { id, accepted: Some(false) })
            }
            Err(error @ PublishError::Unknown(_)) => {
                warn!(message.id = %id, %error, "a message may not have been accepted");
                Err(DispatchError::Unreachable { id, accepted: None })
            }
        }
    }
}
