//! The end of a job: stored once, told to who waits, and acknowledged last of all.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{job::Job, message::MessageStatus, reply::Outcome},
    queue::delivery::Delivery,
};
use tokio::time::{Instant, interval_at};
use tracing::{info, warn};

use super::{Pipeline, STORE_DELAY};
use crate::{finisher::Stored, reply::Gatherer};

impl Pipeline {
    /// Stores the end and tells who waits, or hands the job back when that cannot be done.
    pub(super) async fn finish(&self, delivery: &mut Delivery, job: Arc<Job>, outcome: Outcome, gatherer: &Gatherer) {
        match self.store_end(delivery, &job, outcome).await {
            Some(Stored::First(outcome)) => self.conclude(delivery, &job, outcome, gatherer).await,
            Some(Stored::Earlier(earlier)) => self.conclude_late(delivery, &job, earlier, gatherer).await,
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
    async fn conclude(&self, delivery: &Delivery, job: &Job, mut outcome: Outcome, gatherer: &Gatherer) {
        // The answer itself is not copied for the log.
        let content = outcome.content.take();
        let end = outcome.clone();
        self.reply(delivery, job, Outcome { content, ..outcome }, gatherer).await;
        self.metrics.job_finished(job.channel, end.status);
        self.metrics.tokens_used(end.usage);
        log_end(job, &end);
    }

    /// Another end was stored first.
    async fn conclude_late(&self, delivery: &Delivery, job: &Job, earlier: Outcome, gatherer: &Gatherer) {
        let status = earlier.status;
        let cancelled = status == MessageStatus::Cancelled;
        self.reply(delivery, job, earlier, gatherer).await;
        let who = if cancelled { "its caller" } else { "another run of the job" };
        info!(%status, "{who} had ended first");
    }

    /// Tells who waits and acknowledges: all that the job caused is stored by now.
    pub(super) async fn reply(&self, delivery: &Delivery, job: &Job, outcome: Outcome, gatherer: &Gatherer) {
        self.replies.terminal(job.reply_to, gatherer.terminal(outcome)).await;
        delivery.ack().await;
    }

    pub(super) async fn hand_back(&self, delivery: &Delivery, job: &Job, delay: Option<Duration>) {
        if delivery.info().attempt.delivery > 1
            && let Err(error) = self.store.forget_start(job.id).await
        {
            warn!(%error, "could not take back a counted start");
        }
        delivery.retry_after(delay).await;
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
