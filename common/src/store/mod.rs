//! The only door to the database: SQLite or PostgreSQL, chosen by the URL.

pub mod accounts;
pub mod agents;
pub mod connection;
pub mod credits;
mod entity;
pub mod error;
mod finish;
pub mod gateways;
pub mod idempotency;
pub mod keys;
pub mod listing;
pub mod messages;
mod migrate;
mod place;
mod rows;
mod sql;
mod sqlite_writer;
pub mod stored;
#[cfg(test)]
mod testing;
pub mod usage;
mod write;
