//! What a model is shown: the agent's instructions, then the conversation.

use common::domain::{
    agent::AgentSpec,
    job::{Role, Turn},
};

use crate::providers::provider::ModelTurn;

/// The turns for a model. Empty instructions are left out: some models take an empty turn for a strange one.
pub fn build<'a>(spec: &'a AgentSpec, turns: &'a [Turn]) -> Vec<ModelTurn<'a>> {
    let instructions = Some(spec.instructions.as_str()).filter(|text| !text.trim().is_empty());
    let system = instructions.map(|content| ModelTurn { role: Role::System, content });
    let said = turns.iter().map(|turn| ModelTurn { role: turn.role, content: &turn.content });
    system.into_iter().chain(said).collect()
}
