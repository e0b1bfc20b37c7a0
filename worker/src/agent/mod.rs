//! An agent at work: its prompt, its calls of a model, and what they used.

pub mod error;
pub mod meter;
pub mod prompt;
pub mod runtime;
