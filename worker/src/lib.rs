//! The side that runs agents: what a job becomes once it has been pulled from the queue.

pub mod agent;
pub mod providers;
