//! Webhooks out: events that are stored as deliveries, sent to their receivers until they are taken.

pub mod post;
pub mod schedule;
