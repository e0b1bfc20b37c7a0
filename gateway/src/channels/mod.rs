//! The ways in, one a file.

pub mod accepted;
pub mod agents;
pub mod batch_line;
pub mod batch_results;
pub mod batch_stream;
pub mod batches;
pub mod chat;
pub mod conversation;
pub mod message_request;
pub mod message_stream;
pub mod messages;
pub mod probes;
pub mod reference;
pub mod retry;
pub mod sse;
pub mod submit;
pub mod webhook_deliveries;
pub mod webhook_endpoints;
