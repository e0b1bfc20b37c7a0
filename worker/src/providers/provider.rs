//! What a model provider is: one call, its text as it is made, and the kinds of its failures.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use common::domain::{failure::FailureCode, job::Role, message::Usage};

/// Something that continues a conversation. Dropping the future of a call stops the call.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name in agents, logs and metrics.
    fn name(&self) -> &'static str;

    /// Makes one call, without tries of its own. The answer's text goes to `text` piece by piece while it is made;
    /// what has gone there stays true when the call fails later.
    async fn complete(&self, request: ModelRequest<'_>, text: &mut TextSink<'_>) -> Result<Completion, ProviderError>;
}

/// Takes the pieces of an answer, in order; never blocks.
pub type TextSink<'a> = dyn FnMut(&str) + Send + 'a;

/// What a model is asked.
#[derive(Clone, Copy, Debug)]
pub struct ModelRequest<'a> {
    /// The model's name as its provider knows it.
    pub model: &'a str,
    /// The conversation, instructions first.
    pub turns: &'a [ModelTurn<'a>],
    /// Sampling temperature; absent: the provider's own.
    pub temperature: Option<f64>,
    /// The most tokens the answer may have; absent: the provider's own limit.
    pub max_output_tokens: Option<u32>,
}

/// One turn of the conversation.
#[derive(Clone, Copy, Debug)]
pub struct ModelTurn<'a> {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: &'a str,
}

/// The end of a call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The model that answered, as the provider names it.
    pub model: String,
    /// What it used; absent when the provider did not say.
    pub usage: Option<Usage>,
}

/// What kind of failure a call met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Our credentials were refused.
    Auth,
    /// The quota or the money is used up.
    Quota,
    /// Too many requests or tokens in a short time.
    RateLimited,
    /// The conversation does not fit the model.
    ContextLength,
    /// The request made no sense to the provider, or names a model that it does not have.
    BadRequest,
    /// The provider cannot serve now.
    Unavailable,
    /// No connection, or it broke before an answer began.
    Connect,
    /// Silent for too long.
    Timeout,
    /// The answer ended without its finish mark.
    Truncated,
    /// The answer cannot be understood, or is larger than we take.
    Protocol,
}

impl ErrorKind {
    /// Whether the same call may succeed a little later.
    pub fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Connect | Self::Timeout | Self::Truncated)
    }

    /// The code under which a message that ends with it is stored.
    pub fn code(self) -> FailureCode {
        match self {
            Self::Auth => FailureCode::ProviderAuth,
            Self::Quota => FailureCode::ProviderQuota,
            Self::RateLimited => FailureCode::ProviderRateLimited,
            Self::ContextLength => FailureCode::ContextLength,
            Self::BadRequest => FailureCode::ProviderBadRequest,
            Self::Unavailable => FailureCode::ProviderUnavailable,
            Self::Connect => FailureCode::ProviderConnect,
            Self::Timeout => FailureCode::ProviderTimeout,
            Self::Truncated => FailureCode::Truncated,
            Self::Protocol => FailureCode::ProviderProtocol,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Auth => "the model provider refused our credentials",
            Self::Quota => "the quota at the model provider is used up",
            Self::RateLimited => "the model provider asked us to slow down",
            Self::ContextLength => "the conversation does not fit the model",
            Self::BadRequest => "the model provider could not use the request",
            Self::Unavailable => "the model provider cannot serve now",
            Self::Connect => "the model provider could not be reached",
            Self::Timeout => "the model provider was silent for too long",
            Self::Truncated => "the model's answer broke off before its end",
            Self::Protocol => "the model provider's answer made no sense",
        }
    }
}

/// A call that failed.
///
/// A provider's own words may quote the prompt or the key, so they are never kept: what is shown is a sentence of
/// ours, the status, and the provider's code where it is a plain word.
#[derive(Debug, thiserror::Error)]
pub struct ProviderError {
    /// Its kind.
    pub kind: ErrorKind,
    /// The HTTP status that said so.
    pub status: Option<u16>,
    /// The provider's own code for it, if that is a plain word.
    pub provider_code: Option<String>,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
    /// What happened beneath, for the log; holds no texts and no keys.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ProviderError {
    /// A failure of which only the kind is known.
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, status: None, provider_code: None, retry_after: None, source: None }
    }

    /// The same failure with what happened beneath.
    #[must_use]
    pub fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Whether the same call may succeed a little later.
    pub fn retryable(&self) -> bool {
        self.kind.retryable()
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.sentence())?;
        match (self.status, &self.provider_code) {
            (Some(status), Some(code)) => write!(f, " (status {status}, `{code}`)"),
            (Some(status), None) => write!(f, " (status {status})"),
            (None, Some(code)) => write!(f, " (`{code}`)"),
            (None, None) => Ok(()),
        }
    }
}
