//! What can go wrong at the queue.

use std::{error::Error as StdError, future::Future, time::Duration};

use tokio::time::timeout;

/// What the calls of the client fail with.
pub(super) type AnyError = Box<dyn StdError + Send + Sync>;

/// A failed act on the queue that is not a publish.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// NATS cannot be reached, or refuses us.
    #[error("could not connect to NATS at {url}")]
    Connect {
        /// Where we tried, without credentials.
        url: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server did not answer within our time.
    #[error("NATS did not answer within {seconds} s while {doing}")]
    TimedOut {
        /// What was asked.
        doing: &'static str,
        /// How long we waited.
        seconds: u64,
    },
    /// The server or the client refused.
    #[error("NATS refused while {doing}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Why.
        #[source]
        source: AnyError,
    },
    /// The server is too old to keep our promises.
    #[error("nats-server {found} is too old: 2.11 or newer is needed, 2.14 or newer recommended")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// A payload that is not ours.
    #[error("could not read a message of {what}")]
    Malformed {
        /// Where it came from.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

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

impl QueueError {
    /// Wraps what a call of the client returned.
    pub(crate) fn refused(doing: &'static str) -> impl FnOnce(AnyError) -> Self {
        move |source| Self::Refused { doing, source }
    }
}

/// Does `act`, which is `doing` something on the queue, within `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    doing: &'static str,
    act: impl Future<Output = Result<T, AnyError>>,
) -> Result<T, QueueError> {
    match timeout(limit, act).await {
        Ok(done) => done.map_err(QueueError::refused(doing)),
        Err(_) => Err(QueueError::TimedOut { doing, seconds: limit.as_secs() }),
    }
}
