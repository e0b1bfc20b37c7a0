//! The side that runs agents: what a job becomes once it has been pulled from the queue.

pub mod agent;
pub mod agents;
pub mod cancels;
pub mod conclusion;
pub mod config;
pub mod deliveries;
pub mod finisher;
pub mod housekeeping;
pub mod looks;
pub mod pipeline;
pub mod pool;
pub mod providers;
pub mod reply;
pub mod retention;
pub mod retry_after;
pub mod run;
pub mod started;
pub mod sweep;
pub mod worker;
