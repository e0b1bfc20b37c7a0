//! One run of an agent: kept alive on the queue, its text passed on as it comes, ended in time.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{agent::Agent, job::Job, message::MessageStatus, reply::Outcome, time::Millis},
    queue::delivery::Delivery,
    store::messages::StartedJob,
};
use tokio::time::{Instant, interval_at, sleep_until};

use crate::{
    agent::{
        error::RunError,
        meter::Meter,
        runtime::{Event, Run},
    },
    pipeline::Pipeline,
    reply::Gatherer,
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

/// Runs `agent` for `job`.
pub async fn run(
    pipeline: &Pipeline,
    delivery: &Delivery,
    job: &Arc<Job>,
    agent: &Agent,
    gatherer: &Gatherer,
    starts: u32,
) -> Ran {
    let started_at = Millis::now();
    pipeline.metrics.job_waited(started_at.since(job.created_at));
    let begun = Instant::now();
    let limit = begun + pipeline.config.run_limit;
    let mut meter = Meter::default();
    let mut say = |event: Event<'_>| match event {
        Event::Text(text) => gatherer.say(text),
        Event::Restarted => gatherer.restart(),
    };
    let mut work = std::pin::pin!(pipeline.runtime.run(agent, job, limit, &mut say, &mut meter));
    let mut beat = interval_at(begun + pipeline.heartbeat, pipeline.heartbeat);
    let mut row_due = true;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            frame = gatherer.due() => pipeline.replies.delta(job, &frame).await,
            _ = beat.tick() => delivery.in_progress().await,
            () = sleep_until(begun + ROW_AFTER), if row_due => {
                row_due = false;
                pipeline.started.note(StartedJob { job: job.clone(), started_at, attempts: starts });
            }
        }
    };
    pipeline.metrics.job_ran(begun.elapsed());
    conclude(job, gatherer, started_at, starts, result)
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
fn later(job: &Job, gatherer: &Gatherer, error: &RunError) -> Option<Duration> {
    let delay = error.retry_after?;
    let by = job.wait_until.unwrap_or(job.start_by);
    (!gatherer.has_spoken() && Millis::now().plus(delay) < by).then_some(delay)
}
