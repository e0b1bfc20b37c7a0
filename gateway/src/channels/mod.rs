//! The ways in, one a file.

pub mod agents;
pub mod chat;
pub mod probes;
pub mod reference;
