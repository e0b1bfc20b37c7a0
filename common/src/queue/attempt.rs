//! One try to put a job on the queue, and what came of it.

use std::{error::Error as _, future::IntoFuture as _};

use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{self, context::PublishErrorKind, message::PublishMessage},
};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{connection::Connection, error::PublishError, subjects};
use crate::{
    domain::ids::MessageId,
    sabotage::{self, Bug},
};

/// "maximum messages exceeded", "maximum bytes exceeded".
const STREAM_FULL: jetstream::ErrorCode = jetstream::ErrorCode::STREAM_STORE_FAILED;
/// What the server says to a publish that is to be the first on its subject, and is not.
const ON_THE_QUEUE: [jetstream::ErrorCode; 2] =
    [jetstream::ErrorCode::STREAM_WRONG_LAST_SEQUENCE, jetstream::ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT];

/// The message that carries the job `id`.
pub(super) fn message(id: MessageId, traceparent: Option<&str>, payload: Bytes) -> PublishMessage {
    let mut headers = HeaderMap::new();
    if !sabotage::has(Bug::NoMessageId) {
        headers.insert(NATS_MESSAGE_ID, id.0.simple().to_string());
    }
    if let Some(traceparent) = traceparent {
        headers.insert(subjects::TRACEPARENT, traceparent);
    }
    PublishMessage::build().payload(payload).headers(headers)
}

/// Publishes `message` once. Whether the server has had one of its id before, or has the job on the queue.
pub(super) async fn attempt(
    connection: &Connection,
    subject: &str,
    message: PublishMessage,
    until: Instant,
) -> Result<bool, Fault> {
    let sent = timeout_at(until, connection.jetstream.send_publish(subject.to_owned(), message)).await;
    let ack = match sent {
        Err(_) => return Err(Fault::NotSent("the connection to NATS is congested".to_owned())),
        Ok(Err(error)) => return Err(fault_of(&error)),
        Ok(Ok(ack)) => ack,
    };
    match timeout_at(until, ack.into_future()).await {
        Err(_) => Err(Fault::InDoubt("no acknowledgement in time".to_owned())),
        Ok(Err(error)) if is_on_the_queue(&error) => Ok(true),
        Ok(Err(error)) => Err(fault_of(&error)),
        Ok(Ok(ack)) => Ok(ack.duplicate),
    }
}

/// One failed try.
#[derive(Debug)]
pub(super) enum Fault {
    /// The stream takes no more.
    Full,
    /// The server does not take so much at once.
    TooLarge,
    /// Nothing was handed to the server.
    NotSent(String),
    /// The server refused.
    Refused(String),
    /// The server did not say.
    InDoubt(String),
}

impl Fault {
    /// Whether another try would end the same way.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Full | Self::TooLarge)
    }

    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Full => "full",
            Self::TooLarge => "too large",
            Self::NotSent(reason) | Self::Refused(reason) | Self::InDoubt(reason) => reason,
        }
    }

    /// `in_doubt`: an earlier or this very try may have been stored.
    pub(super) fn into_error(self, in_doubt: bool) -> PublishError {
        match self {
            _ if in_doubt => PublishError::Unknown(self.reason().to_owned()),
            Self::Full => PublishError::Full,
            Self::TooLarge => PublishError::TooLarge,
            Self::NotSent(reason) | Self::Refused(reason) | Self::InDoubt(reason) => PublishError::NotTaken(reason),
        }
    }
}

fn is_on_the_queue(error: &jetstream::context::PublishError) -> bool {
    answer_in(error).is_some_and(|answer| ON_THE_QUEUE.contains(&answer.error_code()))
}

fn fault_of(error: &jetstream::context::PublishError) -> Fault {
    match (error.kind(), answer_in(error)) {
        (_, Some(answer)) if answer.error_code() == STREAM_FULL => Fault::Full,
        (_, Some(answer)) => Fault::Refused(answer.to_string()),
        (PublishErrorKind::MaxPayloadExceeded, _) => Fault::TooLarge,
        // The server itself says that nothing listens for jobs: no stream, or no leader for it.
        (PublishErrorKind::StreamNotFound, _) => Fault::Refused("no stream takes jobs".to_owned()),
        (PublishErrorKind::MaxAckPending, _) => Fault::NotSent("too many publishes are under way".to_owned()),
        _ => Fault::InDoubt(error.to_string()),
    }
}

fn answer_in(error: &jetstream::context::PublishError) -> Option<&jetstream::Error> {
    error.source().and_then(|source| source.downcast_ref())
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
