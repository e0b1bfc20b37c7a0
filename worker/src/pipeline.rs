//! One job from its delivery to the end of its run, which is then brought to where ends are stored.

mod end;

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
    queue::{
        dead,
        delivery::{Delivery, EnvelopeError},
    },
    sabotage::{self, Bug, Point},
    store::messages::Start,
};
use tracing::{Instrument as _, Span, debug, error, info, info_span, warn};

use crate::{
    agent::meter::Meter,
    agents::Agents,
    cancels::Cancels,
    conclusion::{Conclusion, Rest, STORE_DELAY},
    config::WorkerConfig,
    finisher::Finisher,
    looks::{Looks, Seen},
    reply::Gatherer,
    run::{Ran, Runner},
};

/// A job of a newer version waits this long for a newer worker.
const NEWER_DELAY: Duration = Duration::from_secs(5);
/// Below this balance the worker looks at the account once more before it asks a model: one credit.
const LOW_BALANCE: i64 = 1_000_000;

/// What every job needs.
pub struct Pipeline {
    /// Where ends are brought.
    pub finisher: Finisher,
    /// What follows an end.
    pub conclusion: Arc<Conclusion>,
    /// Groups the looks at what may keep a job from being run.
    pub looks: Looks,
    /// Agents by version.
    pub agents: Agents,
    /// Runs agents.
    pub runner: Runner,
    /// What callers have stopped.
    pub cancels: Arc<Cancels>,
    /// This worker's settings.
    pub config: WorkerConfig,
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

// What is seldom needed is boxed: a task has room for all that it may do, and is moved with it.
impl Pipeline {
    /// Takes one delivery to its end. The slot in it is free when this returns.
    pub async fn process(self: Arc<Self>, delivery: Delivery) {
        let _running = self.conclusion.metrics.job_runs();
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

    async fn process_job(&self, delivery: Delivery, job: Arc<Job>) {
        let gatherer = Gatherer::new(job.id, delivery.info().attempt, self.config.delta_gather);
        let mut cancel = self.cancels.register(&job);
        let mut meter = Meter::default();
        let verdict = tokio::select! {
            biased;
            () = cancel.stopped() => None,
            verdict = self.verdict(&delivery, &job, &gatherer, &mut meter) => Some(verdict),
            () = self.conclusion.lifecycle.aborting() => Some(Verdict::HandBack(None)),
        };
        drop(cancel);
        let verdict = verdict.unwrap_or_else(|| {
            info!("stopped by its caller");
            Verdict::End(Outcome {
                usage: meter.usage(),
                model: meter.model().map(str::to_owned),
                attempts: meter.starts(),
                started_at: meter.started_at(),
                ..Outcome::cancelled(Millis::now())
            })
        });
        match verdict {
            Verdict::End(outcome) => self.finish(delivery, job, outcome, &gatherer).await,
            Verdict::Ended(outcome) => {
                let rest = Rest { delivery, last: gatherer.last(), span: Span::current() };
                self.conclusion.tell(&rest, &job, outcome).await;
            }
            Verdict::HandBack(delay) => self.conclusion.hand_back(&delivery, &job, delay).await,
        }
    }

    async fn verdict(&self, delivery: &Delivery, job: &Arc<Job>, gatherer: &Gatherer, meter: &mut Meter) -> Verdict {
        if is_overdue(delivery, job) {
            return Verdict::End(failed(FailureCode::Expired, "no worker began it in time", 0));
        }
        let starts = match self.begin(delivery, job).await {
            Ok(starts) => starts,
            Err(verdict) => return verdict,
        };
        sabotage::reach(Point::AfterStart);
        sabotage::swallow(job.turns.last().map_or("", |turn| &turn.content));
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
        match self.runner.run(delivery, job, &agent, gatherer, starts, meter).await {
            Ran::Ended(outcome) => Verdict::End(outcome),
            Ran::Later(delay) => Verdict::HandBack(Some(delay)),
        }
    }

    /// A first delivery runs without a look, unless its batch may have been stopped, or an equal job may have been there
    /// before. A later one may have an end already, or have been begun too often.
    async fn begin(&self, delivery: &Delivery, job: &Arc<Job>) -> Result<u32, Verdict> {
        let delivered = delivery.info().attempt.delivery;
        let is_first = delivered <= 1;
        if job.batch.is_some() || is_first && job.again {
            self.look(job, is_first && job.again).await?;
        }
        if is_first {
            return Ok(1);
        }
        self.conclusion.metrics.job_redelivered();
        sabotage::reach(Point::BeforeStart);
        match Box::pin(self.conclusion.store.count_start(job)).await {
            Ok(Start::Begun { starts }) if starts > self.config.max_starts && !sabotage::has(Bug::EndlessStarts) => {
                Err(self.give_up(delivery, job).await)
            }
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

    /// Looks at what may keep a job from being run.
    async fn look(&self, job: &Job, again: bool) -> Result<(), Verdict> {
        match self.looks.look(job, again).await {
            Some(Ok(Seen::Free)) => Ok(()),
            Some(Ok(Seen::Stopped)) => {
                debug!("dropping a line of a batch that was stopped");
                Err(Verdict::End(Outcome::cancelled(Millis::now())))
            }
            Some(Ok(Seen::Ended(outcome))) => Err(Verdict::Ended(outcome)),
            Some(Err(error)) => {
                warn!(%error, "could not look whether a job may run");
                Err(Verdict::HandBack(Some(STORE_DELAY)))
            }
            None => Err(Verdict::HandBack(None)),
        }
    }

    async fn give_up(&self, delivery: &Delivery, job: &Job) -> Verdict {
        let starts = self.config.max_starts;
        error!(starts, "giving a job up: none of its starts came to an end");
        let bury = dead::bury(&self.conclusion.connection, job.id, "poisoned", delivery.payload());
        if let Err(error) = Box::pin(bury).await {
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
        match Box::pin(self.conclusion.store.balance(job.account)).await {
            Ok(balance) if balance <= 0 => {
                Some(failed(FailureCode::InsufficientCredits, "the account has no credits left", 0))
            }
            _ => None,
        }
    }

    async fn bury_unreadable(&self, delivery: &Delivery, error: &EnvelopeError) {
        error!(%error, subject = delivery.subject(), "a job cannot be read");
        let id = delivery.subject().rsplit('.').next().and_then(|id| id.parse().ok()).unwrap_or_else(MessageId::new);
        match Box::pin(dead::bury(&self.conclusion.connection, id, "unreadable", delivery.payload())).await {
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
