//! One job as the queue hands it out, with the slot that it runs in.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use tokio::{sync::mpsc, time::timeout};
use tracing::warn;

use super::{connection::REQUEST_TIMEOUT, place::Queue, subjects, wakes::Wakes};
use crate::{
    domain::{
        job::{JOB_VERSION, Job, Lane},
        reply::Attempt,
        time::Millis,
    },
    sabotage::{self, Bug},
};

/// A worker's slot. Dropping it tells the pull loop that it is free.
#[derive(Debug)]
pub struct Slot {
    queue: Queue,
    freed: mpsc::UnboundedSender<Queue>,
}

impl Slot {
    pub(super) fn new(queue: Queue, freed: mpsc::UnboundedSender<Queue>) -> Self {
        Self { queue, freed }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.freed.send(self.queue);
    }
}

/// What the queue knows about one delivery.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// Which run of the job this is.
    pub attempt: Attempt,
    /// When the queue stored the job, by the server's clock.
    pub stored_at: Millis,
    /// How many jobs of its queue waited behind it.
    pub pending: u64,
}

/// Why a payload is not a job that we can run.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// A newer gateway wrote it: a newer worker will run it.
    #[error("job of version {0}; this worker reads up to {JOB_VERSION}")]
    Newer(u64),
    /// Nobody can read it.
    #[error("malformed job")]
    Malformed(#[source] serde_json::Error),
}

/// A job that was handed to this worker. It comes back when it is neither acknowledged nor kept alive.
pub struct Delivery {
    message: Message,
    queue: Queue,
    info: Delivered,
    wakes: Wakes,
    slot: Option<Slot>,
}

impl Delivery {
    /// `None` for a message that no consumer of ours can have sent.
    pub(super) fn read(message: Message, wakes: Wakes) -> Option<Self> {
        let queue = subjects::queue_of(&message.subject)?;
        let info = message.info().ok()?;
        let info = Delivered {
            attempt: Attempt {
                seq: info.stream_sequence,
                delivery: u32::try_from(info.delivered).unwrap_or(u32::MAX),
                restart: 0,
            },
            stored_at: info.published.into(),
            pending: info.pending,
        };
        Some(Self { message, queue, info, wakes, slot: None })
    }

    pub(super) fn put_in(mut self, slot: Slot) -> Self {
        self.slot = Some(slot);
        self
    }

    /// Gives the slot back before the delivery is done with: what is left needs none.
    pub fn free_slot(&mut self) {
        self.slot = None;
    }

    /// What the queue knows about it.
    pub fn info(&self) -> Delivered {
        self.info
    }

    /// The queue that it came through.
    pub fn queue(&self) -> Queue {
        self.queue
    }

    /// The lane of that queue.
    pub fn lane(&self) -> Lane {
        self.queue.lane
    }

    /// The trace that it belongs to.
    pub fn traceparent(&self) -> Option<&str> {
        self.message.headers.as_ref()?.get(subjects::TRACEPARENT).map(|value| value.as_str())
    }

    /// The payload as it came.
    pub fn payload(&self) -> &[u8] {
        &self.message.payload
    }

    /// The subject that it was published on.
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// The job in it.
    pub fn job(&self) -> Result<Job, EnvelopeError> {
        job_in(&self.message.payload)
    }

    /// The job is done: whatever it caused is stored.
    pub async fn ack(&self) {
        self.answer(AckKind::Ack).await;
    }

    /// Hands the job back, to be given out again after `delay`.
    pub async fn retry_after(&self, delay: Option<Duration>) {
        self.answer(AckKind::Nak(delay)).await;
        if delay.is_none() {
            self.wakes.note(self.queue);
        }
    }

    /// The job can never be run; it leaves the queue.
    pub async fn reject(&self) {
        self.answer(AckKind::Term).await;
    }

    /// The job still runs. Needed every third of `ack_wait`, or another worker gets it.
    pub async fn in_progress(&self) {
        if sabotage::has(Bug::NoHeartbeat) {
            return;
        }
        self.answer(AckKind::Progress).await;
    }

    /// A lost answer is harmless: the job is given out again, and its stored end is found.
    async fn answer(&self, kind: AckKind) {
        match timeout(REQUEST_TIMEOUT, self.message.ack_with(kind)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error, subject = self.subject(), "could not answer the queue"),
            Err(_) => warn!(subject = self.subject(), "could not answer the queue in time"),
        }
    }
}

/// The job in `payload`.
///
/// # Errors
/// When it is none, or one of a newer version than we read.
pub fn job_in(payload: &[u8]) -> Result<Job, EnvelopeError> {
    let job: Result<Job, _> = serde_json::from_slice(payload);
    match job {
        Ok(job) if job.v <= JOB_VERSION => Ok(job),
        Ok(job) => Err(EnvelopeError::Newer(u64::from(job.v))),
        Err(error) => Err(version_of(payload)
            .filter(|v| *v > u64::from(JOB_VERSION))
            .map_or(EnvelopeError::Malformed(error), EnvelopeError::Newer)),
    }
}

fn version_of(payload: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(payload).ok()?.get("v")?.as_u64()
}
