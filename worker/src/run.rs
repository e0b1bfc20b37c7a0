//! One run of an agent: kept alive on the queue, its text passed on as it comes, ended in time.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{agent::Agent, job::Job, message::MessageStatus, reply::Outcome, time::Millis},
    metrics::Metrics,
    queue::{delivery::Delivery, replies::ReplySender},
    store::messages::StartedJob,
};
use tokio::time::{Instant, interval_at, sleep_until};

use crate::{
    agent::{
        error::RunError,
        meter::Meter,
        runtime::{Event, Run, Runtime},
    },
    reply::Gatherer,
    started::StartedRows,
};

/// A run that has taken this long gets a row, so that lists show it.
const ROW_AFTER: Duration = Duration::from_secs(1);

/// How a run came out.
pub enum Ran {
    /// With this end.
    Ended(Outcome),
    /// The provider asks to come back after this long, and there is time for it.
    Later(Duration),
}

/// What every run needs.
pub struct Runner {
    /// Runs agents.
    pub runtime: Runtime,
    /// Where frames go.
    pub replies: ReplySender,
    /// Writes rows of running jobs behind.
    pub started: StartedRows,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// How long one run may take.
    pub limit: Duration,
    /// How often a running job says that it is alive.
    pub heartbeat: Duration,
}

impl Runner {
    /// Runs `agent` for `job`, which is begun for the `starts`th time. Dropping the future stops the run at once; what
    /// it has used until then stands in `meter`.
    pub async fn run(
        &self,
        delivery: &Delivery,
        job: &Arc<Job>,
        agent: &Agent,
        gatherer: &Gatherer,
        starts: u32,
        meter: &mut Meter,
    ) -> Ran {
        let started_at = Millis::now();
        meter.start(starts, started_at);
        self.metrics.job_waited(started_at.since(job.created_at));
        let begun = Instant::now();
        let mut say = |event: Event<'_>| match event {
            Event::Text(text) => gatherer.say(text),
            Event::Restarted => gatherer.restart(),
        };
        let mut work = std::pin::pin!(self.runtime.run(agent, job, begun + self.limit, &mut say, meter));
        let mut beat = interval_at(begun + self.heartbeat, self.heartbeat);
        let mut row_due = true;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                frame = gatherer.due() => self.replies.progress(job, &frame).await,
                _ = beat.tick() => delivery.in_progress().await,
                () = sleep_until(begun + ROW_AFTER), if row_due => {
                    row_due = false;
                    self.started.note(StartedJob { job: job.clone(), started_at, attempts: starts });
                }
            }
        };
        self.metrics.job_ran(begun.elapsed());
        conclude(job, gatherer, started_at, starts, result)
    }
}

fn conclude(job: &Job, gatherer: &Gatherer, started_at: Millis, starts: u32, result: Result<Run, RunError>) -> Ran {
    let outcome = |status, content, model, usage, failure| Outcome {
        status,
        content,
        model,
        usage,
        credits_charged: 0,
        failure,
        attempts: starts,
        started_at: Some(started_at),
        completed_at: Millis::now(),
    };
    match result {
        Ok(run) => Ran::Ended(outcome(MessageStatus::Completed, Some(run.content), Some(run.model), run.usage, None)),
        Err(error) => match later(job, gatherer, &error) {
            Some(delay) => Ran::Later(delay),
            None => Ran::Ended(outcome(MessageStatus::Failed, None, None, error.usage, Some(error.failure))),
        },
    }
}

/// A provider's long pause is spent on the queue, without a slot, when nobody waits or the caller waits longer.
pub fn later(job: &Job, gatherer: &Gatherer, error: &RunError) -> Option<Duration> {
    let delay = error.retry_after?;
    let by = job.wait_until.unwrap_or(job.start_by);
    (!gatherer.has_spoken() && Millis::now().plus(delay) < by).then_some(delay)
}
