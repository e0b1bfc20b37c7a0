//! Webhooks out: events that are stored as deliveries, sent to their receivers until they are taken.

pub mod body;
pub mod config;
pub mod courier;
pub mod post;
pub mod round;
pub mod schedule;
pub mod sender;
pub mod settler;
pub mod tried;
