//! Agents: what answers a prompt, and how.

use serde::{Deserialize, Serialize};

use super::ids::{AccountId, AgentId};

/// What an operator writes about an agent; a change of it makes a new version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Shown in lists.
    pub name: String,
    /// One sentence on what it is for.
    #[serde(default)]
    pub description: String,
    /// `openai` or `demo`; absent: `openai` when the workers have it configured, else `demo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model's name as its provider knows it.
    pub model: String,
    /// The system prompt.
    #[serde(default)]
    pub instructions: String,
    /// Sampling temperature, 0 to 2; absent: the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The most tokens an answer may have; absent: the provider's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
}

/// An agent in one of its versions. A job pins the version that it was accepted with.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its identifier, the same in every version.
    pub id: AgentId,
    /// Who owns it.
    pub account_id: AccountId,
    /// Counts from 1.
    pub version: i32,
    /// What it is like in this version.
    pub spec: AgentSpec,
}
