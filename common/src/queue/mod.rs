//! The only door to NATS: connection, streams, publishing, pulling, replies and signals.

pub mod subjects;
