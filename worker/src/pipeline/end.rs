//! The end of a job: stored once, told to who waits, and acknowledged last of all.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        job::Job,
        message::{MessageStatus, Usage},
        reply::Outcome,
        time::Millis,
    },
    queue::{delivery::Delivery, signals::wake_deliveries},
    retry::Pauses,
};
use tokio::time::{Instant, interval_at, sleep};
use tracing::{error, info, warn};

use super::{Pipeline, STORE_DELAY};
use crate::{finisher::Stored, reply::Gatherer};

impl Pipeline {
    /// Stores the end and tells who waits, or hands the job back when that cannot be done.
    pub(super) async fn finish(&self, delivery: &mut Delivery, job: Arc<Job>, outcome: Outcome, gatherer: &Gatherer) {
        let (used, model) = (outcome.usage, outcome.model.clone());
        let Some(stored) = self.store_end(delivery, &job, outcome).await else {
            if self.lifecycle.is_aborting() {
                return self.hand_back(delivery, &job, None).await;
            }
            // It counts as a start: an end that can never be stored must not be run for ever.
            return delivery.retry_after(Some(STORE_DELAY)).await;
        };
        let (Stored::First(end) | Stored::Earlier(end)) = &stored;
        if end.status == MessageStatus::Cancelled && used != Usage::default() {
            self.charge_cancelled(&job, used, model.as_deref()).await;
        }
        match stored {
            Stored::First(outcome) => self.conclude(delivery, &job, outcome, gatherer).await,
            Stored::Earlier(outcome) => self.conclude_late(delivery, &job, outcome, gatherer).await,
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
        if end.status != MessageStatus::Cancelled {
            self.metrics.tokens_used(end.usage);
        }
        if job.tells(end.status) {
            wake_deliveries(&self.connection).await;
        }
        log_end(job, &end);
    }

    /// Another end was stored first.
    async fn conclude_late(&self, delivery: &Delivery, job: &Job, earlier: Outcome, gatherer: &Gatherer) {
        let status = earlier.status;
        self.reply(delivery, job, earlier, gatherer).await;
        let who = if status == MessageStatus::Cancelled { "its caller" } else { "another run of the job" };
        info!(%status, "{who} had ended first");
    }

    /// Charges what a cancelled job has used, also when the database is away for a while: nobody else knows it.
    async fn charge_cancelled(&self, job: &Job, used: Usage, model: Option<&str>) {
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(2), None);
        loop {
            match self.store.charge_cancelled(job, used, model, Millis::now()).await {
                Ok(true) => break,
                Ok(false) => return,
                Err(error) if error.is_transient() => warn!(%error, "could not charge a cancelled job; trying again"),
                Err(error) => return error!(%error, "a cancelled job cannot be charged"),
            }
            tokio::select! {
                () = sleep(pauses.next_pause().unwrap_or_default()) => {}
                () = self.lifecycle.aborting() => return,
            }
        }
        self.metrics.tokens_used(used);
        if job.tells(MessageStatus::Cancelled) {
            wake_deliveries(&self.connection).await;
        }
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
