//! Puts a job on the queue, again and again under the same id until the outcome is known or the time is up.

use std::{borrow::Borrow, error::Error as _, future::IntoFuture as _, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{self, context::PublishErrorKind, message::PublishMessage},
};
use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::warn;

use super::{connection::Connection, subjects};
use crate::{
    domain::{ids::MessageId, job::Job},
    retry::Pauses,
};

/// One try takes at most this part of the budget, so that a lost acknowledgement can be asked for again. Not less: a
/// connection that holds loses nothing, and a server that is busy writing is not helped by being asked twice.
const TRIES_PER_BUDGET: u32 = 2;
/// "maximum messages exceeded", "maximum bytes exceeded".
const STREAM_FULL: jetstream::ErrorCode = jetstream::ErrorCode::STREAM_STORE_FAILED;

/// Why a job is not known to be on the queue.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The stream is at its limit. The job was not taken.
    #[error("the job stream is full")]
    Full,
    /// The job is larger than the server takes. It was not taken.
    #[error("the job is larger than the queue takes")]
    TooLarge,
    /// Nothing was handed to the server, or the server refused. The job was not taken.
    #[error("the queue did not take the job: {0}")]
    NotTaken(String),
    /// The server did not say. The job may or may not be taken.
    #[error("the queue did not say whether it took the job: {0}")]
    Unknown(String),
}

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
    budget: Duration,
    under_way: Arc<Semaphore>,
}

impl Publisher {
    /// A publisher that spends at most `budget` on one job.
    pub fn new(connection: Connection, budget: Duration) -> Self {
        Self { connection, budget, under_way: Arc::new(Semaphore::new(UNDER_WAY)) }
    }

    /// Where it publishes.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How long one publish may take.
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// Returns once the job is stored in the stream: with the shipped `nats.conf`, on disk.
    ///
    /// # Errors
    /// See [`PublishError`]: each says whether the job may have been taken.
    pub async fn publish(&self, job: impl Borrow<Job>, traceparent: Option<String>) -> Result<Published, PublishError> {
        let payload = serde_json::to_vec(job.borrow()).map_err(|e| PublishError::NotTaken(e.to_string()))?;
        let payload = Bytes::from(payload);
        let subject = subjects::job(job.borrow());
        let id = job.borrow().id;
        // What waits for the acknowledgement is the payload alone.
        drop(job);
        let until = Instant::now() + self.budget;
        let mut pauses = Pauses::new(Duration::from_millis(20), Duration::from_millis(250), None);
        let mut in_doubt = false;
        let Ok(Ok(_permit)) = timeout_at(until, self.under_way.acquire()).await else {
            return Err(PublishError::NotTaken("the queue is busy".to_owned()));
        };
        loop {
            let fault =
                match self.publish_once(&subject, message(id, traceparent.as_deref(), payload.clone()), until).await {
                    Ok(Published { was_known }) => return Ok(Published { was_known: was_known && !in_doubt }),
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
        let sent = timeout_at(try_until, self.connection.jetstream.send_publish(subject.to_owned(), message)).await;
        let ack = match sent {
            Err(_) => return Err(Fault::NotSent("the connection to NATS is congested".to_owned())),
            Ok(Err(error)) => return Err(fault_of(&error)),
            Ok(Ok(ack)) => ack,
        };
        match timeout_at(try_until, ack.into_future()).await {
            Err(_) => Err(Fault::InDoubt("no acknowledgement in time".to_owned())),
            Ok(Err(error)) => Err(fault_of(&error)),
            Ok(Ok(ack)) => Ok(Published { was_known: ack.duplicate }),
        }
    }
}

fn message(id: MessageId, traceparent: Option<&str>, payload: Bytes) -> PublishMessage {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id.0.simple().to_string());
    if let Some(traceparent) = traceparent {
        headers.insert(subjects::TRACEPARENT, traceparent);
    }
    PublishMessage::build().payload(payload).headers(headers)
}

/// One failed try.
#[derive(Debug)]
enum Fault {
    Full,
    TooLarge,
    NotSent(String),
    Refused(String),
    InDoubt(String),
}

impl Fault {
    /// Whether another try would end the same way.
    fn is_final(&self) -> bool {
        matches!(self, Self::Full | Self::TooLarge)
    }

    fn reason(&self) -> &str {
        match self {
            Self::Full => "full",
            Self::TooLarge => "too large",
            Self::NotSent(reason) | Self::Refused(reason) | Self::InDoubt(reason) => reason,
        }
    }

    /// `in_doubt`: an earlier or this very try may have been stored.
    fn into_error(self, in_doubt: bool) -> PublishError {
        match self {
            _ if in_doubt => PublishError::Unknown(self.reason().to_owned()),
            Self::Full => PublishError::Full,
            Self::TooLarge => PublishError::TooLarge,
            Self::NotSent(reason) | Self::Refused(reason) | Self::InDoubt(reason) => PublishError::NotTaken(reason),
        }
    }
}

fn fault_of(error: &jetstream::context::PublishError) -> Fault {
    let answer = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), answer) {
        (_, Some(answer)) if answer.error_code() == STREAM_FULL => Fault::Full,
        (_, Some(answer)) => Fault::Refused(answer.to_string()),
        (PublishErrorKind::MaxPayloadExceeded, _) => Fault::TooLarge,
        // The server itself says that nothing listens for jobs: no stream, or no leader for it.
        (PublishErrorKind::StreamNotFound, _) => Fault::Refused("no stream takes jobs".to_owned()),
        (PublishErrorKind::MaxAckPending, _) => Fault::NotSent("too many publishes are under way".to_owned()),
        _ => Fault::InDoubt(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_is_not_forgotten_by_a_later_refusal() {
        assert!(matches!(Fault::Full.into_error(true), PublishError::Unknown(_)));
        assert!(matches!(Fault::Full.into_error(false), PublishError::Full));
        assert!(matches!(Fault::Refused("no".into()).into_error(false), PublishError::NotTaken(_)));
    }
}
