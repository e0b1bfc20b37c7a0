//! Why an operator's command did not do what it was asked, and the exit code that says so.

use std::{fmt, io, process::ExitCode};

use common::{domain::ids::KeyId, env::EnvError, queue::error::QueueError, store::error::StoreError};

/// The end of a command that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// The input breaks a rule, or what it asks for is taken.
    #[error("{0}")]
    Refused(String),
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] EnvError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The result could not be printed.
    #[error("could not write the result")]
    Output(#[from] io::Error),
    /// A key was made and its secret is lost.
    #[error("key {id} was made, but its secret could not be shown: revoke it and make another")]
    SecretLost {
        /// The key.
        id: KeyId,
        /// Why it could not be shown.
        #[source]
        cause: io::Error,
    },
}

impl AdminError {
    /// 1 failed, 3 not found, 4 refused; 2 is the argument parser's.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NotFound(_) | Self::Store(StoreError::Missing(_)) => 3,
            Self::Refused(_)
            | Self::Store(StoreError::Taken { .. } | StoreError::TooLarge | StoreError::TooMany(_)) => 4,
            Self::Setting(_) | Self::Store(_) | Self::Queue(_) | Self::Output(_) | Self::SecretLost { .. } => 1,
        })
    }

    /// That there is no `what` called `name`.
    pub fn no_such(what: &str, name: impl fmt::Display) -> Self {
        Self::NotFound(format!("there is no {what} `{name}`"))
    }
}
