//! The contract, tested through the front door: one binary, a module per part.

mod agents;
mod agents_api;
mod auth;
mod bad_input;
mod body_limit;
mod changes;
mod channels;
mod chat;
mod credits;
mod deadline;
mod draining;
mod faults;
mod framing;
mod headers;
mod keys;
mod limits;
mod metrics;
mod operator;
mod order;
mod providers;
mod queue;
mod real_model;
mod redelivery;
mod reference;
mod streaming;
mod unanswered;
