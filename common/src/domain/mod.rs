//! Plain types without I/O: what a job, a message, an account, a key and an agent are.

pub mod account;
pub mod agent;
pub mod backlog;
pub mod batch;
pub mod batch_object;
pub mod channel;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod failure;
pub mod fingerprint;
pub mod ids;
pub mod job;
pub mod key;
pub mod message;
pub mod object;
pub mod reply;
pub mod signing;
pub mod time;
