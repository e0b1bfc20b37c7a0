//! Why a message ended without an answer.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of a failure: what a caller, a log and a metric can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The provider refused our credentials.
    ProviderAuth,
    /// The provider's quota is used up.
    ProviderQuota,
    /// The provider asked us to slow down, and it still did when the tries were used up.
    ProviderRateLimited,
    /// The conversation does not fit the model.
    ContextLength,
    /// The provider could not make sense of the request.
    ProviderBadRequest,
    /// The provider answered that it cannot serve now.
    ProviderUnavailable,
    /// No connection to the provider.
    ProviderConnect,
    /// The provider was silent for too long.
    ProviderTimeout,
    /// The answer broke off before its end.
    Truncated,
    /// The provider's answer made no sense.
    ProviderProtocol,
    /// The agent names a provider that the workers have not configured.
    ProviderMissing,
    /// The agent or its version is gone.
    AgentMissing,
    /// The job ran longer than a run may.
    RunLimit,
    /// Every worker that began the job died.
    WorkerLost,
    /// The account's credits were used up before the job began.
    InsufficientCredits,
    /// The caller stopped it.
    Cancelled,
    /// It was not begun in time.
    Expired,
}

/// A failure code that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("unknown failure code `{0}`")]
pub struct UnknownFailure(String);

impl FailureCode {
    /// Every code.
    pub const ALL: [Self; 17] = [
        Self::ProviderAuth,
        Self::ProviderQuota,
        Self::ProviderRateLimited,
        Self::ContextLength,
        Self::ProviderBadRequest,
        Self::ProviderUnavailable,
        Self::ProviderConnect,
        Self::ProviderTimeout,
        Self::Truncated,
        Self::ProviderProtocol,
        Self::ProviderMissing,
        Self::AgentMissing,
        Self::RunLimit,
        Self::WorkerLost,
        Self::InsufficientCredits,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The name that rows, bodies and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProviderAuth => "provider_auth",
            Self::ProviderQuota => "provider_quota",
            Self::ProviderRateLimited => "provider_rate_limited",
            Self::ContextLength => "context_length",
            Self::ProviderBadRequest => "provider_bad_request",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ProviderConnect => "provider_connect",
            Self::ProviderTimeout => "provider_timeout",
            Self::Truncated => "truncated",
            Self::ProviderProtocol => "provider_protocol",
            Self::ProviderMissing => "provider_missing",
            Self::AgentMissing => "agent_missing",
            Self::RunLimit => "run_limit",
            Self::WorkerLost => "worker_lost",
            Self::InsufficientCredits => "insufficient_credits",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FailureCode {
    type Err = UnknownFailure;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|code| code.name() == text).ok_or_else(|| UnknownFailure(text.to_owned()))
    }
}

/// A failure as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Its kind.
    pub code: FailureCode,
    /// A sentence for the caller; holds no prompt, no answer and no credentials.
    pub message: String,
    /// Whether the same request may do better later.
    pub retryable: bool,
}
