//! The one way to an agent, whatever the channel: puts a job on the queue and waits for its end.

pub mod answer;
pub mod answer_stream;
mod ends;
pub mod upkeep;

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        account::MicroCredits,
        channel::Channel,
        ids::{AccountId, AgentId, GatewayId, KeyId, MessageId},
        job::{JOB_VERSION, Job, Lane, Price, Turn},
        time::Millis,
    },
    lifecycle::Lifecycle,
    metrics::Metrics,
    queue::publisher::{PublishError, Publisher},
    store::connection::Store,
};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use self::{
    answer::{Answer, DispatchError},
    answer_stream::AnswerStream,
    ends::Ends,
};
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
    /// Whether they have endpoints that are told of events.
    pub notifies: bool,
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
    ends: Ends,
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
        Self { gateway, config, publisher, ends: Ends::new(store), waiters: Arc::default(), metrics, lifecycle }
    }

    /// Those who wait, for whoever receives the replies.
    pub fn waiters(&self) -> Arc<Waiters> {
        self.waiters.clone()
    }

    /// Puts a job on the queue and waits for its end, at most until the deadline.
    pub async fn call(&self, mut prompt: Prompt) -> Result<Answer, DispatchError> {
        let until = Instant::now() + self.config.deadline;
        let trace = prompt.traceparent.take();
        let job = self.job(prompt, false)?;
        let (id, created_at) = (job.id, job.created_at);
        // Registered before the publish: a fast worker may answer before the publish is acknowledged.
        let mut waiter = self.waiters.call(id);
        let wake = match self.publish(job, trace).await {
            Ok(()) => self.wait(&mut waiter, id, until).await?,
            Err(error) => waiter.take_now().ok_or(error)?,
        };
        let outcome = self.ends.outcome(id, wake, until).await?;
        Ok(Answer { id, created_at, outcome })
    }

    /// Puts a job on the queue and returns once there is text or the end: what fails before the first piece is
    /// an error, not a broken stream.
    pub async fn stream(&self, mut prompt: Prompt) -> Result<AnswerStream, DispatchError> {
        let until = Instant::now() + self.config.deadline;
        let trace = prompt.traceparent.take();
        let job = self.job(prompt, true)?;
        let (id, created_at) = (job.id, job.created_at);
        let waiter = self.waiters.stream(id);
        self.publish(job, trace).await?;
        AnswerStream::begin(self.ends.clone(), self.lifecycle.clone(), waiter, id, created_at, until).await
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
            callback: None,
            notifies: prompt.notifies,
            metadata: None,
            retry_of: None,
        })
    }

    /// Takes the job, so that its text is not kept while its caller waits.
    async fn publish(&self, job: Job, traceparent: Option<String>) -> Result<(), DispatchError> {
        let (id, channel) = (job.id, job.channel);
        match self.publisher.publish(job, traceparent).await {
            Ok(_) => {
                self.metrics.job_accepted(channel);
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
            () = sleep_until(until) => self.ends.last_look(id).await,
            () = self.lifecycle.aborting() => Err(DispatchError::Timeout { id }),
        }
    }
}
