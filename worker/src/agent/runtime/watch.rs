//! What is said about one call of a model: a line in the log, in the span of its job, and a word to whoever counts.

use std::time::Instant;

use common::domain::{ids::AgentId, message::Usage};
use tracing::{debug, warn};

use super::Observer;
use crate::providers::provider::ProviderError;

/// The outcome of a call that was stopped from outside.
const DROPPED: &str = "dropped";

/// An open call. Dropped without an end, it was stopped from outside.
pub(super) struct Watch<'a> {
    agent: AgentId,
    provider: &'static str,
    model: &'a str,
    observer: &'a Observer,
    began: Instant,
    outcome: &'static str,
}

impl<'a> Watch<'a> {
    /// The call begins.
    pub(super) fn begin(agent: AgentId, provider: &'static str, model: &'a str, observer: &'a Observer) -> Self {
        Self { agent, provider, model, observer, began: Instant::now(), outcome: DROPPED }
    }

    /// It succeeded.
    pub(super) fn succeeded(mut self, used: Usage) {
        self.outcome = "ok";
        debug!(
            agent.id = %self.agent,
            provider.name = self.provider,
            model.name = self.model,
            outcome = self.outcome,
            duration_ms = self.duration_ms(),
            tokens.input = used.input_tokens,
            tokens.output = used.output_tokens,
            tokens.estimated = used.estimated,
            "`{}` answered", self.provider
        );
    }

    /// It failed.
    pub(super) fn failed(mut self, error: &ProviderError, used: Usage) {
        self.outcome = error.kind.code().name();
        warn!(
            agent.id = %self.agent,
            provider.name = self.provider,
            model.name = self.model,
            outcome = self.outcome,
            duration_ms = self.duration_ms(),
            retry_after_ms = error.retry_after.map(|wait| wait.as_millis()),
            tokens.input = used.input_tokens,
            tokens.output = used.output_tokens,
            "{error}{}", Causes(error)
        );
    }

    fn duration_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.outcome == DROPPED {
            debug!(
                agent.id = %self.agent,
                provider.name = self.provider,
                model.name = self.model,
                outcome = DROPPED,
                duration_ms = self.duration_ms(),
                "the call was stopped"
            );
        }
        (self.observer)(self.provider, self.outcome);
    }
}

/// What lies beneath an error, each after a colon.
struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}
