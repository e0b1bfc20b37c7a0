//! One job from its delivery to its acknowledgement: run, store the end, tell who waits, acknowledge last of all.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        failure::{Failure, FailureCode},
        ids::MessageId,
        job::Job,
        message::{MessageStatus, Usage},
        reply::Outcome,
        time::Millis,
    },
    lifecycle::Lifecycle,
    metrics::Metrics,
    queue::{
        connection::Connection,
        dead,
        delivery::{Delivery, EnvelopeError},
        replies::ReplySender,
    },
    store::{connection::Store, messages::Start},
};
use tokio::time::{Instant, interval_at};
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::{
    agents::Agents,
    config::WorkerConfig,
    finisher::{Finisher, Stored},
    reply::Gatherer,
    run::{Ran, Runner},
};

/// A job of a newer version waits this long for a newer worker.
const NEWER_DELAY: Duration = Duration::from_secs(5);
/// A job whose row could not be looked at comes back after this long.
const STORE_DELAY: Duration = Duration::from_secs(2);
/// Below this balance the worker looks at the account once more before it asks a model: one credit.
const LOW_BALANCE: i64 = 1_000_000;

/// What every job needs.
pub struct Pipeline {
    /// Where ends are stored.
    pub store: Store,
    /// The queue.
    pub connection: Connection,
    /// Where frames go.
    pub replies: ReplySender,
    /// Groups the commits.
    pub finisher: Finisher,
    /// Agents by version.
    pub agents: Agents,
    /// Runs agents.
    pub runner: Runner,
    /// This worker's settings.
    pub config: WorkerConfig,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub lifecycle: Lifecycle,
}

/// What is to be done with a delivery after its run.
enum Verdict {
    /// Store this end.
    End(Outcome),
    /// It has an end already.
    Ended(Outcome),
    /// Give it back; somebody runs it after this delay.
    HandBack(Option<Duration>),
}

impl Pipeline {
    /// Takes one delivery to its end. The slot in it is free when this returns.
    pub async fn process(self: Arc<Self>, delivery: Delivery) {
        let job = match delivery.job() {
            Ok(job) => Arc::new(job),
            Err(EnvelopeError::Newer(version)) => {
                warn!(version, "a job of a newer version waits for a newer worker");
                return delivery.retry_after(Some(NEWER_DELAY)).await;
            }
            Err(error) => return self.bury_unreadable(&delivery, &error).await,
        };
        let trace = delivery.traceparent().unwrap_or_default();
        let span = info_span!("job", message.id = %job.id, traceparent = trace);
        self.process_job(delivery, job).instrument(span).await;
    }

    async fn process_job(&self, mut delivery: Delivery, job: Arc<Job>) {
        let gatherer = Gatherer::new(job.id, delivery.info().attempt, self.config.delta_gather);
        let verdict = tokio::select! {
            verdict = self.verdict(&delivery, &job, &gatherer) => verdict,
            () = self.lifecycle.aborting() => Verdict::HandBack(None),
        };
        match verdict {
            Verdict::End(outcome) => self.finish(&mut delivery, job, outcome, &gatherer).await,
            Verdict::Ended(outcome) => self.reply(&delivery, &job, outcome, &gatherer).await,
            Verdict::HandBack(delay) => self.hand_back(&delivery, &job, delay).await,
        }
    }

    async fn verdict(&self, delivery: &Delivery, job: &Arc<Job>, gatherer: &Gatherer) -> Verdict {
        if is_overdue(delivery, job) {
            return Verdict::End(failed(FailureCode::Expired, "no worker began it in time", 0));
        }
        let starts = match self.begin(delivery, job).await {
            Ok(starts) => starts,
            Err(verdict) => return verdict,
        };
        if let Some(outcome) = self.refuse_the_broke(job).await {
            return Verdict::End(outcome);
        }
        let agent = match self.agents.version(job.agent, job.agent_version).await {
            Ok(Some(agent)) => agent,
            Ok(None) => return Verdict::End(failed(FailureCode::AgentMissing, "the agent is gone", starts)),
            Err(error) => {
                warn!(%error, "could not read the agent of a job");
                return Verdict::HandBack(Some(STORE_DELAY));
            }
        };
        match self.runner.run(delivery, job, &agent, gatherer, starts).await {
            Ran::Ended(outcome) => Verdict::End(outcome),
            Ran::Later(delay) => Verdict::HandBack(Some(delay)),
        }
    }

    /// A first delivery runs without a look. A later one may have an end already, or have been begun too often.
    async fn begin(&self, delivery: &Delivery, job: &Arc<Job>) -> Result<u32, Verdict> {
        let delivered = delivery.info().attempt.delivery;
        if delivered <= 1 {
            return Ok(1);
        }
        self.metrics.job_redelivered();
        match self.store.count_start(job).await {
            Ok(Start::Begun { starts }) if starts > self.config.max_starts => Err(self.give_up(delivery, job).await),
            Ok(Start::Begun { starts }) => {
                info!(starts, delivered, "running a job again");
                Ok(starts)
            }
            Ok(Start::Ended(outcome)) => Err(Verdict::Ended(outcome)),
            Err(error) => {
                warn!(%error, "could not look at the row of a job that came back");
                Err(Verdict::HandBack(Some(STORE_DELAY)))
            }
        }
    }

    async fn give_up(&self, delivery: &Delivery, job: &Job) -> Verdict {
        let starts = self.config.max_starts;
        error!(starts, "giving a job up: none of its starts came to an end");
        if let Err(error) = dead::bury(&self.connection, job.id, "poisoned", delivery.payload()).await {
            warn!(%error, "could not keep a dead letter; trying again later");
            return Verdict::HandBack(Some(STORE_DELAY));
        }
        Verdict::End(failed(FailureCode::WorkerLost, "every worker that began it was lost", starts))
    }

    /// The door looked at a cached balance; when little was left, the account is looked at once more.
    async fn refuse_the_broke(&self, job: &Job) -> Option<Outcome> {
        if job.price.is_free() || job.balance > LOW_BALANCE {
            return None;
        }
        match self.store.balance(job.account).await {
            Ok(balance) if balance <= 0 => {
                Some(failed(FailureCode::InsufficientCredits, "the account has no credits left", 0))
            }
            _ => None,
        }
    }

    async fn finish(&self, delivery: &mut Delivery, job: Arc<Job>, outcome: Outcome, gatherer: &Gatherer) {
        match self.store_end(delivery, &job, outcome).await {
            Some(stored) => self.conclude(delivery, &job, stored, gatherer).await,
            None if self.lifecycle.is_aborting() => self.hand_back(delivery, &job, None).await,
            // It counts as a start: an end that can never be stored must not be run for ever.
            None => delivery.retry_after(Some(STORE_DELAY)).await,
        }
    }

    /// Stores the end, or finds the one that was stored first. The job is kept alive meanwhile.
    async fn store_end(&self, delivery: &mut Delivery, job: &Arc<Job>, outcome: Outcome) -> Option<Stored> {
        let heartbeat = self.runner.heartbeat;
        let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
        let place = loop {
            tokio::select! {
                biased;
                place = self.finisher.place() => break place?,
                _ = beat.tick() => delivery.in_progress().await,
                () = self.lifecycle.aborting() => return None,
            }
        };
        delivery.free_slot();
        let mut finish = std::pin::pin!(place.finish(job.clone(), outcome));
        loop {
            tokio::select! {
                biased;
                stored = &mut finish => return stored,
                _ = beat.tick() => delivery.in_progress().await,
                () = self.lifecycle.aborting() => return None,
            }
        }
    }

    /// Replies first: whoever waits does not wait for the log.
    async fn conclude(&self, delivery: &Delivery, job: &Job, stored: Stored, gatherer: &Gatherer) {
        let (mut outcome, is_first) = match stored {
            Stored::First(outcome) => (outcome, true),
            Stored::Earlier(outcome) => (outcome, false),
        };
        // The answer itself is not copied for the log.
        let content = outcome.content.take();
        let end = outcome.clone();
        self.reply(delivery, job, Outcome { content, ..outcome }, gatherer).await;
        if is_first {
            self.metrics.job_finished(job.channel, end.status);
            self.metrics.tokens_used(end.usage);
            log_end(job, &end);
        } else {
            info!(status = %end.status, "another run of the job had ended first");
        }
    }

    /// Tells who waits and acknowledges: all that the job caused is stored by now.
    async fn reply(&self, delivery: &Delivery, job: &Job, outcome: Outcome, gatherer: &Gatherer) {
        self.replies.terminal(job.reply_to, gatherer.terminal(outcome)).await;
        delivery.ack().await;
    }

    async fn hand_back(&self, delivery: &Delivery, job: &Job, delay: Option<Duration>) {
        if delivery.info().attempt.delivery > 1
            && let Err(error) = self.store.forget_start(job.id).await
        {
            warn!(%error, "could not take back a counted start");
        }
        delivery.retry_after(delay).await;
    }

    async fn bury_unreadable(&self, delivery: &Delivery, error: &EnvelopeError) {
        error!(%error, subject = delivery.subject(), "a job cannot be read");
        let id = delivery.subject().rsplit('.').next().and_then(|id| id.parse().ok()).unwrap_or_else(MessageId::new);
        match dead::bury(&self.connection, id, "unreadable", delivery.payload()).await {
            Ok(()) => delivery.reject().await,
            Err(error) => {
                warn!(%error, "could not keep a dead letter; trying again later");
                delivery.retry_after(Some(STORE_DELAY)).await;
            }
        }
    }
}

/// Published after its caller was told that it was not, or not begun in time.
fn is_overdue(delivery: &Delivery, job: &Job) -> bool {
    delivery.info().stored_at > job.publish_by || Millis::now() > job.start_by
}

/// An end without a run's result.
pub fn failed(code: FailureCode, message: &str, attempts: u32) -> Outcome {
    let status = if code == FailureCode::Expired { MessageStatus::Expired } else { MessageStatus::Failed };
    let retryable = matches!(code, FailureCode::Expired | FailureCode::WorkerLost);
    Outcome {
        status,
        content: None,
        model: None,
        usage: Usage::default(),
        credits_charged: 0,
        failure: Some(Failure { code, message: message.to_owned(), retryable }),
        attempts,
        started_at: None,
        completed_at: Millis::now(),
    }
}

fn log_end(job: &Job, outcome: &Outcome) {
    let run_ms = outcome.started_at.map(|started| outcome.completed_at.0 - started.0);
    info!(
        channel = %job.channel,
        agent.id = %job.agent,
        status = %outcome.status,
        failure = outcome.failure.as_ref().map(|failure| failure.code.name()),
        attempts = outcome.attempts,
        run_ms,
        input_tokens = outcome.usage.input_tokens,
        output_tokens = outcome.usage.output_tokens,
        "job ended"
    );
}
