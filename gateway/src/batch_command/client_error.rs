//! Why a request has no good answer, and whether another try may have one.

use std::{error::Error, time::Duration};

use super::wire::InvalidLine;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection: nothing was sent.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// The server.
        url: String,
        /// Why not.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The connection ended in the middle.
    #[error("the connection to the server broke off")]
    Broken(#[source] reqwest::Error),
    /// Nothing came, and nothing was taken, for a long time.
    #[error("the server has fallen silent")]
    Silent,
    /// The server is up, but not able to do it now.
    #[error("the server answered {status}: {sentence}")]
    Busy {
        /// The status.
        status: u16,
        /// What it says.
        sentence: String,
        /// The pause that it asks for.
        retry_after: Option<Duration>,
    },
    /// The server refused it, and would again.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// What answers is no Frontdesk, or one that speaks another language.
    #[error("what answers at {url} is not what was expected: {what}")]
    Strange {
        /// The server.
        url: String,
        /// What it said.
        what: String,
    },
    /// The client itself could not be made, or not its request.
    #[error("could not make a request")]
    Request(#[source] reqwest::Error),
}

/// A refusal that trying again does not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server refused it: {sentence} ({status} {code}{})", in_request(.request_id.as_deref()))]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The kind.
    pub code: String,
    /// What it says.
    pub sentence: String,
    /// How the server's log names the request.
    pub request_id: Option<String>,
    /// How many lines of the body make no sense.
    pub invalid_count: u64,
    /// The first of them.
    pub invalid_lines: Vec<InvalidLine>,
}

fn in_request(id: Option<&str>) -> String {
    id.map(|id| format!(", request {id}")).unwrap_or_default()
}

impl ClientError {
    /// Whether the same may do better later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broken(_) | Self::Silent | Self::Busy { .. })
    }

    /// Whether the server may have done what it was asked all the same.
    pub fn may_have_been_done(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Silent | Self::Strange { .. } => true,
            Self::Busy { status, .. } => !matches!(status, 429 | 503),
            Self::Unreachable { .. } | Self::Refused(_) | Self::Request(_) => false,
        }
    }

    /// The pause that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
