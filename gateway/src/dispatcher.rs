//! The one way to an agent, whatever the channel: puts a job on the queue and waits for its end.

pub mod answer_stream;
pub mod upkeep;

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        account::MicroCredits,
        channel::Channel,
        ids::{AccountId, AgentId, GatewayId, KeyId, MessageId},
        job::{JOB_VERSION, Job, Lane, Price, Turn},
        message::MessageStatus,
        reply::{Frame, FrameBody, Outcome},
        time::Millis,
    },
    lifecycle::Lifecycle,
    metrics::Metrics,
    queue::publisher::{PublishError, Publisher},
    retry::Pauses,
    store::connection::Store,
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use self::answer_stream::AnswerStream;
use crate::{
    prices::is_affordable,
    waiter::{CallWaiter, Waiters, Wake},
};

/// A job that was stored this long after its publish budget was over was answered as refused, and is not run.
const PUBLISH_SLACK: Duration = Duration::from_secs(3);

/// What a channel wants to be done.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Who pays.
    pub account: AccountId,
    /// What they had left when last looked at.
    pub balance: MicroCredits,
    /// With which key.
    pub key: KeyId,
    /// Who is to answer.
    pub agent: AgentId,
    /// In which version.
    pub agent_version: i32,
    /// What its tokens cost.
    pub price: Price,
    /// The way in.
    pub channel: Channel,
    /// The conversation; the last turn is the caller's.
    pub turns: Vec<Turn>,
    /// Whether the caller marked the beginning of a conversation.
    pub new_chat: bool,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// How a message ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The message.
    pub id: MessageId,
    /// When it was accepted.
    pub created_at: Millis,
    /// Its end; a completed one has its content.
    pub outcome: Outcome,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The account has nothing left to spend. Nothing was accepted.
    #[error("the account has no credits left")]
    InsufficientCredits,
    /// This gateway is stopping. Nothing was accepted.
    #[error("the gateway is stopping")]
    Draining,
    /// The job stream is full. Nothing was accepted.
    #[error("the queue is full")]
    QueueFull,
    /// The job is larger than the queue takes. Nothing was accepted.
    #[error("the request is too large for the queue")]
    TooLarge,
    /// The queue cannot be reached.
    #[error("message {id} could not be handed to the queue")]
    Unreachable {
        /// The message.
        id: MessageId,
        /// `Some(false)`: certainly not taken. `None`: the queue did not say.
        accepted: Option<bool>,
    },
    /// The job goes on, but nobody waits for it any more.
    #[error("message {id} was not answered in time")]
    Timeout {
        /// The message.
        id: MessageId,
    },
    /// A stream that ended without an answer before its first piece of text.
    #[error("message {} ended as {}", .0.id, .0.outcome.status)]
    Ended(Box<Answer>),
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherConfig {
    /// How long a caller waits for the answer.
    pub deadline: Duration,
    /// How long after that deadline a worker may still begin the job.
    pub start_by_grace: Duration,
}

/// Sends prompts to agents.
#[derive(Clone)]
pub struct Dispatcher {
    gateway: GatewayId,
    config: DispatcherConfig,
    publisher: Publisher,
    store: Store,
    waiters: Arc<Waiters>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
}

impl Dispatcher {
    /// A dispatcher whose replies come to `gateway`.
    pub fn new(
        gateway: GatewayId,
        config: DispatcherConfig,
        publisher: Publisher,
        store: Store,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> Self {
        Self { gateway, config, publisher, store, waiters: Arc::default(), metrics, lifecycle }
    }

    /// Those who wait, for whoever receives the replies.
    pub fn waiters(&self) -> Arc<Waiters> {
        self.waiters.clone()
    }

    /// Puts a job on the queue and waits for its end, at most until the deadline.
    pub async fn call(&self, prompt: Prompt) -> Result<Answer, DispatchError> {
        let until = Instant::now() + self.config.deadline;
        let job = self.job(prompt.clone(), false)?;
        // Registered before the publish: a fast worker may answer before the publish is acknowledged.
        let mut waiter = self.waiters.call(job.id);
        let wake = match self.publish(&job, prompt.traceparent.as_deref()).await {
            Ok(()) => self.wait(&mut waiter, job.id, until).await?,
            Err(error) => waiter.take_now().ok_or(error)?,
        };
        let outcome = self.outcome(job.id, wake, until).await?;
        Ok(Answer { id: job.id, created_at: job.created_at, outcome })
    }

    /// Puts a job on the queue and returns once there is text or the end: what fails before the first piece is
    /// an error, not a broken stream.
    pub async fn stream(&self, prompt: Prompt) -> Result<AnswerStream, DispatchError> {
        let until = Instant::now() + self.config.deadline;
        let job = self.job(prompt.clone(), true)?;
        let waiter = self.waiters.stream(job.id);
        self.publish(&job, prompt.traceparent.as_deref()).await?;
        AnswerStream::begin(self.clone(), waiter, &job, until).await
    }

    fn job(&self, prompt: Prompt, stream: bool) -> Result<Job, DispatchError> {
        if self.lifecycle.is_stopping() {
            return Err(DispatchError::Draining);
        }
        if !is_affordable(prompt.price, prompt.balance) {
            return Err(DispatchError::InsufficientCredits);
        }
        let created_at = Millis::now();
        Ok(Job {
            v: JOB_VERSION,
            id: MessageId::new(),
            account: prompt.account,
            key: prompt.key,
            agent: prompt.agent,
            agent_version: prompt.agent_version,
            channel: prompt.channel,
            lane: Lane::Interactive,
            turns: prompt.turns,
            new_chat: prompt.new_chat,
            created_at,
            publish_by: created_at.plus(self.publisher.budget() + PUBLISH_SLACK),
            start_by: created_at.plus(self.config.deadline + self.config.start_by_grace),
            wait_until: Some(created_at.plus(self.config.deadline)),
            reply_to: Some(self.gateway),
            stream,
            price: prompt.price,
            balance: prompt.balance,
        })
    }

    async fn publish(&self, job: &Job, traceparent: Option<&str>) -> Result<(), DispatchError> {
        let id = job.id;
        match self.publisher.publish(job, traceparent).await {
            Ok(()) => {
                self.metrics.job_accepted(job.channel);
                Ok(())
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

    async fn wait(&self, waiter: &mut CallWaiter, id: MessageId, until: Instant) -> Result<Wake, DispatchError> {
        tokio::select! {
            wake = waiter.wait() => Ok(wake),
            () = sleep_until(until) => self.last_look(id).await,
            () = self.lifecycle.aborting() => Err(DispatchError::Timeout { id }),
        }
    }

    /// A reply may have been lost on its way: the store has the last word before a time-out.
    async fn last_look(&self, id: MessageId) -> Result<Wake, DispatchError> {
        let looked = tokio::time::timeout(Duration::from_secs(1), self.stored(id)).await;
        match looked.ok().flatten() {
            Some(outcome) => {
                info!(message.id = %id, "found an answer at the deadline whose reply was missed");
                Ok(Wake::Stored(Box::new(outcome)))
            }
            None => Err(DispatchError::Timeout { id }),
        }
    }

    /// The end that `wake` tells of, with its content; a large one is read from the store.
    async fn outcome(&self, id: MessageId, wake: Wake, until: Instant) -> Result<Outcome, DispatchError> {
        let told = match wake {
            Wake::Stored(outcome) => Some(*outcome),
            Wake::Frame(bytes) => match serde_json::from_slice::<Frame>(&bytes) {
                Ok(Frame { body: FrameBody::Terminal { outcome }, .. }) => Some(outcome),
                _ => None,
            },
        };
        match told {
            Some(outcome) if !content_is_missing(&outcome) => Ok(outcome),
            _ => self.read_until(id, until).await,
        }
    }

    /// Reads the end from the store, again and again while the store cannot be reached.
    async fn read_until(&self, id: MessageId, until: Instant) -> Result<Outcome, DispatchError> {
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1), None);
        loop {
            if let Some(outcome) = self.stored(id).await {
                return Ok(outcome);
            }
            let pause = pauses.next_pause().unwrap_or_default();
            if Instant::now() + pause >= until {
                return Err(DispatchError::Timeout { id });
            }
            sleep(pause).await;
        }
    }

    async fn stored(&self, id: MessageId) -> Option<Outcome> {
        match self.store.outcomes(&[id]).await {
            Ok(found) => found.into_iter().next().map(|(_, outcome)| outcome),
            Err(error) => {
                warn!(message.id = %id, %error, "could not look for an answer in the store");
                None
            }
        }
    }
}

/// Whether a completed answer was too large for its frame.
fn content_is_missing(outcome: &Outcome) -> bool {
    outcome.status == MessageStatus::Completed && outcome.content.is_none()
}
