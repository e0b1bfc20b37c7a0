//! What the tests of this crate share: a provider with short limits, agents, jobs.

use std::time::Duration;

use common::domain::{
    agent::{Agent, AgentSpec},
    ids::{AccountId, AgentId, KeyId, MessageId},
    job::{JOB_VERSION, Job, Role, Turn},
    time::Millis,
};
use serde_json::json;
use tests::model::{Behaviour, ModelServer};
use worker::providers::{
    openai::{Limits, OpenAi, OpenAiConfig},
    provider::{Completion, ModelRequest, ModelTurn, Provider, ProviderError},
};

/// The key that every call is made with.
pub const KEY: &str = "sk-test-key";

/// Limits that a test can sit out.
pub const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    first_byte: Duration::from_millis(400),
    idle: Duration::from_millis(300),
};

/// The endpoint at `url`.
pub fn config(url: &str) -> OpenAiConfig {
    // Another test of this process may have installed one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    OpenAiConfig::new(url, Some(KEY), LIMITS).expect("an address")
}

/// A provider for the endpoint at `url`.
pub fn openai(url: &str) -> OpenAi {
    OpenAi::new(config(url)).expect("a client")
}

/// Asks `provider` once; what it said, and how it ended.
pub async fn ask(provider: &OpenAi) -> (Vec<String>, Result<Completion, ProviderError>) {
    let turns = [
        ModelTurn { role: Role::System, content: "be kind" },
        ModelTurn { role: Role::User, content: "a secret prompt" },
    ];
    let request = ModelRequest { model: "m", turns: &turns, temperature: Some(0.5), max_output_tokens: Some(9) };
    let mut said = Vec::new();
    let end = provider.complete(request, &mut |text: &str| said.push(text.to_owned())).await;
    (said, end)
}

/// Asks a server of its own that does `behaviour`.
pub async fn ask_one_that(behaviour: Behaviour) -> (Vec<String>, Result<Completion, ProviderError>) {
    let server = ModelServer::start().await.expect("a model server");
    server.script(behaviour);
    ask(&openai(&server.url())).await
}

/// An agent that is answered by `provider`.
pub fn agent(provider: &str) -> Agent {
    let spec = AgentSpec {
        name: "Ada".to_owned(),
        description: String::new(),
        provider: Some(provider.to_owned()),
        model: "m".to_owned(),
        instructions: "be kind".to_owned(),
        temperature: None,
        max_output_tokens: None,
    };
    Agent { id: AgentId::new(), account_id: AccountId::new(), version: 1, spec }
}

/// A job for `agent`.
pub fn job(agent: &Agent, prompt: &str) -> Job {
    // Read as from the queue, so that fields which jobs gain later take their defaults.
    let envelope = json!({
        "v": JOB_VERSION, "id": MessageId::new(), "account": agent.account_id, "key": KeyId::new(), "agent": agent.id,
        "agent_version": agent.version, "channel": "api", "lane": "interactive",
        "turns": [Turn::user(prompt)], "created_at": Millis::now(), "publish_by": Millis::now(), "start_by": Millis::now(),
    });
    serde_json::from_value(envelope).expect("a job")
}
