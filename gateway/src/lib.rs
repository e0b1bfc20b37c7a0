//! The HTTP side: takes prompts from callers, has them run through the queue, and answers.

pub mod auth;
pub mod context;
pub mod dispatcher;
pub mod error;
pub mod extract;
pub mod fault;
pub mod fields;
pub mod framing;
pub mod observe;
pub mod prices;
pub mod rate_limit;
pub mod respond;
pub mod waiter;
