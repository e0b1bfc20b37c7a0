//! Model providers: one interface, what implements it, and the choice between them.

pub mod demo;
pub mod openai;
pub mod provider;
pub mod registry;
