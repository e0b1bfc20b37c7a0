//! Plain types without I/O: what a job, a message, an account, a key and an agent are.

pub mod account;
pub mod agent;
pub mod channel;
pub mod failure;
pub mod fingerprint;
pub mod ids;
pub mod job;
pub mod key;
pub mod message;
pub mod object;
pub mod reply;
pub mod time;
