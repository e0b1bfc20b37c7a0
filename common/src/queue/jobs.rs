//! Single jobs on the queue: found and taken back by their id.

use async_nats::jetstream::{
    ErrorCode,
    stream::{DeleteMessageErrorKind, RawMessageErrorKind},
};

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::{QueueError, within},
    place::Queue,
    subjects,
};
use crate::domain::{
    ids::{AccountId, MessageId},
    job::{Job, Lane},
};

/// Where an unfinished job stands in `JOBS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    seq: u64,
}

/// An account's job, as long as it is not finished. Asks the stream's leader: whatever was acknowledged is found.
///
/// # Errors
/// When the queue does not answer, or holds something under this id that is not a job.
pub async fn find(
    connection: &Connection,
    account: AccountId,
    id: MessageId,
) -> Result<Option<(Job, Place)>, QueueError> {
    let found = within(REQUEST_TIMEOUT, "looking for a job", async {
        let stream = connection.jetstream.get_stream_no_info(subjects::JOBS).await?;
        match stream.get_last_raw_message_by_subject(&subjects::job_anywhere(account, id)).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    });
    let Some(message) = found.await? else { return Ok(None) };
    let job = serde_json::from_slice(&message.payload)
        .map_err(|source| QueueError::Malformed { what: subjects::JOBS, source })?;
    Ok(Some((job, Place { seq: message.sequence })))
}

/// Where the account's last unfinished job of `lane` stands. The server looks at all that the account has there.
///
/// # Errors
/// When the queue does not answer.
pub async fn last_queue(connection: &Connection, account: AccountId, lane: Lane) -> Result<Option<Queue>, QueueError> {
    within(REQUEST_TIMEOUT, "looking for an account's jobs", async {
        let stream = connection.jetstream.get_stream_no_info(subjects::JOBS).await?;
        match stream.get_last_raw_message_by_subject(&subjects::jobs_of(account, lane)).await {
            Ok(message) => Ok(subjects::queue_of(&message.subject)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Takes a job off the queue: no worker gets it any more. One that runs goes on. Whether it was still there.
///
/// # Errors
/// When the queue does not answer: the job may be gone or not.
pub async fn delete(connection: &Connection, place: Place) -> Result<bool, QueueError> {
    within(REQUEST_TIMEOUT, "taking a job back", async {
        let stream = connection.jetstream.get_stream_no_info(subjects::JOBS).await?;
        match stream.delete_message(place.seq).await {
            Ok(deleted) => Ok(deleted),
            Err(error) => match error.kind() {
                DeleteMessageErrorKind::JetStream(answer) if is_gone(&answer) => Ok(false),
                _ => Err(error.into()),
            },
        }
    })
    .await
}

fn is_gone(answer: &async_nats::jetstream::Error) -> bool {
    let gone = [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::STREAM_MESSAGE_DELETE_FAILED];
    gone.contains(&answer.error_code())
}
