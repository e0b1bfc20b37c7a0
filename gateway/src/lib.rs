//! The HTTP side: takes prompts from callers, has them run through the queue, and answers.

pub mod dispatcher;
pub mod error;
pub mod fault;
pub mod prices;
pub mod rate_limit;
pub mod waiter;
