//! What follows the end of a job: who waits is told, and the queue is acknowledged last of all.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        job::Job,
        message::{MessageStatus, Usage},
        reply::Outcome,
        time::Millis,
    },
    lifecycle::Lifecycle,
    metrics::Metrics,
    queue::{connection::Connection, delivery::Delivery, replies::ReplySender, signals::wake_deliveries},
    retry::Pauses,
    sabotage::{self, Bug, Point},
    store::{
        connection::Store,
        messages::{Committed, Finish},
    },
};
use tokio::time::{sleep, timeout};
use tracing::{Span, error, info, warn};

use crate::reply::LastFrame;

/// A job comes back after this long when the store does not do what it needs.
pub const STORE_DELAY: Duration = Duration::from_secs(2);
/// To take a counted start back may take this long: a worker that stops has not much longer.
const FORGET_LIMIT: Duration = Duration::from_secs(1);

/// What is left of a job whose run is over.
pub struct Rest {
    /// The job as the queue handed it out.
    pub delivery: Delivery,
    /// Tells of its end.
    pub last: LastFrame,
    /// What is logged about it belongs here.
    pub span: Span,
}

/// What is needed to conclude a job.
pub struct Conclusion {
    /// Where ends are stored.
    pub store: Store,
    /// The queue.
    pub connection: Connection,
    /// Where frames go.
    pub replies: ReplySender,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub lifecycle: Lifecycle,
}

impl Conclusion {
    /// Tells of the end of a job as it is stored, which was to be `finish`.
    pub async fn conclude(&self, rest: &Rest, Finish { job, outcome }: Finish, committed: Committed) {
        let used = outcome.usage;
        match committed {
            Committed::Won { credits_charged } => {
                if outcome.status == MessageStatus::Cancelled {
                    self.charge_cancelled(&job, used, outcome.model.as_deref()).await;
                }
                self.end(rest, &job, Outcome { credits_charged, ..outcome }).await;
            }
            Committed::Lost(earlier) => {
                let status = earlier.status;
                if status == MessageStatus::Cancelled {
                    self.charge_cancelled(&job, used, outcome.model.as_deref()).await;
                }
                self.tell(rest, &job, earlier).await;
                let who = if status == MessageStatus::Cancelled { "its caller" } else { "another run of the job" };
                info!(%status, "{who} had ended first");
            }
        }
    }

    /// Replies first: whoever waits does not wait for the log.
    async fn end(&self, rest: &Rest, job: &Job, mut outcome: Outcome) {
        // The answer itself is not copied for the log.
        let content = outcome.content.take();
        let end = outcome.clone();
        self.tell(rest, job, Outcome { content, ..outcome }).await;
        self.metrics.job_finished(job.channel, end.status);
        if end.status != MessageStatus::Cancelled {
            self.metrics.tokens_used(end.usage);
        }
        if job.tells(end.status) {
            wake_deliveries(&self.connection).await;
        }
        log_end(job, &end);
    }

    /// Tells who waits and acknowledges: all that the job caused is stored by now.
    pub async fn tell(&self, rest: &Rest, job: &Job, outcome: Outcome) {
        sabotage::reach(Point::AfterCommit);
        self.replies.terminal(job.reply_to, rest.last.telling(outcome)).await;
        sabotage::reach(Point::BeforeAck);
        rest.delivery.ack().await;
        sabotage::reach(Point::AfterAck);
    }

    /// Hands a job back whose end is not stored. This start of it does not count.
    pub async fn hand_back(&self, delivery: &Delivery, job: &Job, delay: Option<Duration>) {
        if sabotage::has(Bug::NakForgotten) {
            return;
        }
        if delivery.info().attempt.delivery > 1 {
            match timeout(FORGET_LIMIT, Box::pin(self.store.forget_start(job.id))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "could not take back a counted start"),
                Err(_) => warn!("could not take back a counted start within {FORGET_LIMIT:?}"),
            }
        }
        delivery.retry_after(delay).await;
    }

    /// Charges what a cancelled job has used, also when the database is away for a while: nobody else knows it.
    async fn charge_cancelled(&self, job: &Job, used: Usage, model: Option<&str>) {
        if used == Usage::default() {
            return;
        }
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(2), None);
        loop {
            match Box::pin(self.store.charge_cancelled(job, used, model, Millis::now())).await {
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
