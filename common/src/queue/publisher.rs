//! Puts a job on the queue, again and again under the same id until the outcome is known or the time is up.

use std::{borrow::Borrow, sync::Arc, time::Duration};

use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::warn;

use super::{
    attempt::{Fault, attempt, message},
    connection::Connection,
    error::PublishError,
    place::{Place, Queue},
    subjects,
    wakes::Wakes,
};
use crate::{
    domain::job::Job,
    retry::Pauses,
    sabotage::{self, Bug, Point},
};

/// A job with a short prompt has less than this, in bytes: its envelope is written without moving it.
const USUAL_SIZE: usize = 1024;
/// One try takes at most this part of the budget, so that a lost acknowledgement can be asked for again. Not less: a
/// connection that holds loses nothing, and a server that is busy writing is not helped by being asked twice.
const TRIES_PER_BUDGET: u32 = 2;

/// A job that is stored in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Whether another publish under the same id was there before. What may have been an earlier try of this very
    /// publish does not count.
    pub was_known: bool,
}

/// Publishes under way at a time. The server acknowledges a burst only when all of it is written: 2,000 at once were
/// all acknowledged after 3 s (measured, with `sync_interval: always`); in portions the first ones after 0.2 s, with the
/// same throughput.
const UNDER_WAY: usize = 512;

/// Publishes jobs.
#[derive(Clone)]
pub struct Publisher {
    connection: Connection,
    wakes: Wakes,
    budget: Duration,
    under_way: Arc<Semaphore>,
}

impl Publisher {
    /// A publisher that spends at most `budget` on one job, and wakes workers for those that they do not wait for.
    pub fn new(connection: Connection, wakes: Wakes, budget: Duration) -> Self {
        Self { connection, wakes, budget, under_way: Arc::new(Semaphore::new(UNDER_WAY)) }
    }

    /// Where it publishes.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How long one publish may take.
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// Returns once the job is stored in the stream, at `place` in its lane: with the shipped `nats.conf`, on disk.
    ///
    /// # Errors
    /// See [`PublishError`]: each says whether the job may have been taken.
    pub async fn publish(
        &self,
        job: impl Borrow<Job>,
        place: Place,
        traceparent: Option<String>,
    ) -> Result<Published, PublishError> {
        let queue = Queue { lane: job.borrow().lane, place };
        let mut payload = Vec::with_capacity(USUAL_SIZE);
        serde_json::to_writer(&mut payload, job.borrow()).map_err(|e| PublishError::NotTaken(e.to_string()))?;
        let payload = Bytes::from(payload);
        let subject = subjects::job(job.borrow(), place);
        let id = job.borrow().id;
        // What waits for the acknowledgement is the payload alone.
        drop(job);
        let until = Instant::now() + self.budget;
        let mut pauses = Pauses::new(Duration::from_millis(20), Duration::from_millis(250), None);
        let mut in_doubt = false;
        let Ok(Ok(_permit)) = timeout_at(until, self.under_way.acquire()).await else {
            return Err(PublishError::NotTaken("the queue is busy".to_owned()));
        };
        sabotage::reach(Point::BeforePublish);
        if sabotage::has(Bug::AcceptedUnpublished) {
            let message = message(id, traceparent.as_deref(), payload);
            let _ = self.connection.jetstream.send_publish(subject, message).await;
            return Ok(Published { was_known: false });
        }
        loop {
            let fault =
                match self.publish_once(&subject, message(id, traceparent.as_deref(), payload.clone()), until).await {
                    Ok(Published { was_known }) => {
                        sabotage::reach(Point::AfterPublish);
                        self.wakes.note(queue);
                        return Ok(Published { was_known: was_known && !in_doubt });
                    }
                    Err(fault) => fault,
                };
            in_doubt |= matches!(fault, Fault::InDoubt(_));
            let again_at = Instant::now() + pauses.next_pause().unwrap_or_default();
            if fault.is_final() || again_at >= until {
                return Err(fault.into_error(in_doubt));
            }
            warn!(message.id = %id, fault = fault.reason(), "publishing a job again");
            sleep_until(again_at).await;
        }
    }

    async fn publish_once(&self, subject: &str, message: PublishMessage, until: Instant) -> Result<Published, Fault> {
        let wait = until.saturating_duration_since(Instant::now());
        if !self.connection.is_up() && !self.connection.wait_until_up(wait).await {
            return Err(Fault::NotSent("no connection to NATS".to_owned()));
        }
        let try_until = until.min(Instant::now() + self.budget / TRIES_PER_BUDGET);
        let was_known = attempt(&self.connection, subject, message, try_until).await?;
        Ok(Published { was_known })
    }
}
