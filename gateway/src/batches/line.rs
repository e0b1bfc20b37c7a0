//! One line of a batch as it was understood.

use common::domain::job::Turn;
use serde_json::{Map, Value};

use crate::{
    directory::roster::Named,
    fields::{FieldFault, Fields},
};

/// What a line asks for, apart from its name.
#[derive(Debug, PartialEq)]
pub struct LineRequest {
    /// Who is to answer.
    pub agent: Named,
    /// What is said.
    pub turns: Vec<Turn>,
    /// Whether its caller marked the beginning of a conversation.
    pub new_chat: bool,
    /// What the caller wants to find again with the message.
    pub metadata: Option<Map<String, Value>>,
}

/// Reads what a line asks for. The forms are those of the channels, so that the same faults get the same sentences.
pub type ReadLine = fn(Fields) -> Result<LineRequest, FieldFault>;
