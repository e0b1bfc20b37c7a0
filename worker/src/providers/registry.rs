//! Which provider answers for an agent.

use common::{
    domain::{
        agent::AgentSpec,
        failure::{Failure, FailureCode},
    },
    env::EnvError,
};
use tracing::{info, warn};

use super::{
    demo::Demo,
    openai::{OpenAi, OpenAiConfig},
    provider::Provider,
};

/// The settings of all providers.
#[derive(Clone, Debug, Default)]
pub struct ProvidersConfig {
    /// The OpenAI-compatible endpoint, if there is one.
    pub openai: Option<OpenAiConfig>,
}

impl ProvidersConfig {
    /// What the environment says.
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self { openai: OpenAiConfig::from_environment()? })
    }
}

/// All providers that are configured.
pub struct Registry {
    demo: Demo,
    openai: Option<OpenAi>,
    others: Vec<Box<dyn Provider>>,
}

/// An agent asks for a provider that is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent's model provider is not configured")]
pub struct ProviderMissing;

impl From<ProviderMissing> for Failure {
    fn from(missing: ProviderMissing) -> Self {
        Self { code: FailureCode::ProviderMissing, message: missing.to_string(), retryable: false }
    }
}

impl Registry {
    /// The providers of `config`. Says once who answers for agents that name none.
    ///
    /// # Panics
    /// When `openai` is configured and no rustls crypto provider has been installed in this process.
    pub fn new(config: ProvidersConfig) -> Result<Self, reqwest::Error> {
        match &config.openai {
            Some(openai) => info!(provider.url = %openai.url(), "agents are answered by the configured provider"),
            None => warn!(
                "no model provider is configured (FRONTDESK_OPENAI_URL or FRONTDESK_OPENAI_KEY): agents that name \
                 none are answered by `demo`, which only echoes"
            ),
        }
        Ok(Self { demo: Demo, openai: config.openai.map(OpenAi::new).transpose()?, others: Vec::new() })
    }

    /// The same and `provider`, for agents that name it.
    #[must_use]
    pub fn with(mut self, provider: impl Provider + 'static) -> Self {
        self.others.push(Box::new(provider));
        self
    }

    /// The provider for agents like `spec`: the one that it names, else `openai`, else `demo`.
    pub fn pick(&self, spec: &AgentSpec) -> Result<&dyn Provider, ProviderMissing> {
        let openai = self.openai.as_ref().map(|openai| openai as &dyn Provider);
        match spec.provider.as_deref() {
            None => Ok(openai.unwrap_or(&self.demo)),
            Some("openai") => openai.ok_or(ProviderMissing),
            Some("demo") => Ok(&self.demo),
            Some(name) => {
                let named = self.others.iter().find(|provider| provider.name() == name);
                named.map(AsRef::as_ref).ok_or(ProviderMissing)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::openai::Limits;

    fn picked(registry: &Registry, provider: Option<&str>) -> Result<&'static str, ProviderMissing> {
        let spec = AgentSpec {
            name: "Ada".to_owned(),
            description: String::new(),
            provider: provider.map(str::to_owned),
            model: "m".to_owned(),
            instructions: String::new(),
            temperature: None,
            max_output_tokens: None,
        };
        registry.pick(&spec).map(Provider::name)
    }

    #[test]
    fn demo_stands_in_only_for_agents_that_name_no_provider() {
        let registry = Registry::new(ProvidersConfig::default()).expect("nothing to build");
        assert_eq!(picked(&registry, None), Ok("demo"));
        assert_eq!(picked(&registry, Some("demo")), Ok("demo"));
        assert_eq!(picked(&registry, Some("openai")), Err(ProviderMissing));
        assert_eq!(picked(&registry, Some("other")), Err(ProviderMissing));
    }

    #[test]
    fn a_configured_endpoint_answers_unless_demo_is_named() {
        // Another test of this process may have installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let openai = OpenAiConfig::new("http://127.0.0.1:1/v1", None, Limits::default()).expect("an address");
        let registry = Registry::new(ProvidersConfig { openai: Some(openai) }).expect("a client");
        assert_eq!(picked(&registry, None), Ok("openai"));
        assert_eq!(picked(&registry, Some("openai")), Ok("openai"));
        assert_eq!(picked(&registry, Some("demo")), Ok("demo"));
    }
}
