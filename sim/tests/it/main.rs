//! Properties of the pure parts, each held against hundreds or thousands of random cases.

mod batches;
mod clock;
mod database;
mod ends;
mod frames;
mod hops;
mod jobs;
mod limits;
mod retries;
mod waiters;
mod webhooks;
