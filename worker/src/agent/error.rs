//! How a run ends without an answer.

use std::time::Duration;

use common::domain::{
    failure::{Failure, FailureCode},
    message::Usage,
};

use crate::providers::{provider::ProviderError, registry::ProviderMissing};

/// A run that failed, and what it used.
#[derive(Debug, thiserror::Error)]
#[error("{}", failure.message)]
pub struct RunError {
    /// What is stored and shown.
    pub failure: Failure,
    /// What was used nevertheless.
    pub usage: Usage,
    /// The provider asks for a pause that is too long to sit out in a slot: the job is better handed back for so long,
    /// as long as nobody's deadline is nearer. Absent: handing it back would not help.
    pub retry_after: Option<Duration>,
}

impl RunError {
    /// The run met its deadline.
    pub(super) fn run_limit(usage: Usage) -> Self {
        let message = "the job ran longer than a run may".to_owned();
        let failure = Failure { code: FailureCode::RunLimit, message, retryable: true };
        Self { failure, usage, retry_after: None }
    }

    /// The provider failed for the last time.
    pub(super) fn provider(error: &ProviderError, usage: Usage, retry_after: Option<Duration>) -> Self {
        let failure = Failure { code: error.kind.code(), message: error.to_string(), retryable: error.retryable() };
        Self { failure, usage, retry_after }
    }
}

impl From<ProviderMissing> for RunError {
    fn from(missing: ProviderMissing) -> Self {
        Self { failure: missing.into(), usage: Usage::default(), retry_after: None }
    }
}
