//! The HTTP side: takes prompts from callers, has them run through the queue, and answers.

pub mod admin;
pub mod auth;
pub mod channels;
pub mod cli;
pub mod config;
pub mod context;
pub mod desk;
pub mod directory;
pub mod dispatcher;
pub mod error;
pub mod extract;
pub mod fault;
pub mod fields;
pub mod framing;
pub mod news;
pub mod observe;
pub mod openapi;
pub mod prefer;
pub mod presence;
pub mod prices;
pub mod rate_limit;
pub mod respond;
pub mod router;
pub mod server;
pub mod state;
pub mod waiter;
