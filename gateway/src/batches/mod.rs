//! Batches: many requests in one body, read whole and judged before the first of them is on the queue.

pub mod archive;
pub mod desk;
pub mod enqueue;
pub mod intake;
pub mod judge;
pub mod line;
pub mod rules;
pub mod splitter;
pub mod spool;
pub mod uploads;
pub mod watches;
