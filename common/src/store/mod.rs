//! The only door to the database: SQLite or PostgreSQL, chosen by the URL.

pub mod accounts;
pub mod agents;
pub mod batch_leases;
mod batch_lines;
pub mod batch_results;
pub mod batch_stops;
pub mod batches;
pub mod callback_secrets;
mod caused;
pub mod charges;
pub mod claims;
pub mod connection;
pub mod credits;
mod deliveries;
pub mod delivery_log;
pub mod endpoints;
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
pub mod retention;
mod rows;
pub mod settlements;
mod sql;
mod sqlite_writer;
pub mod stored;
pub mod targets;
#[cfg(test)]
mod testing;
pub mod usage;
mod write;
