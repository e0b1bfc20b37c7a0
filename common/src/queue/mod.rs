//! The only door to NATS: connection, streams, publishing, pulling, replies and signals.

pub mod attach;
mod attempt;
pub mod backlog;
pub mod cancel;
pub mod config;
pub mod connection;
pub mod consumer;
pub mod control;
pub mod dead;
pub mod delivery;
pub mod durability;
pub mod error;
pub mod events;
pub mod jobs;
pub mod lines;
mod pace;
pub mod publisher;
pub mod replies;
pub mod signals;
pub mod slots;
pub mod streams;
pub mod subjects;
mod window;
