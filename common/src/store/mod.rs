//! The only door to the database: SQLite or PostgreSQL, chosen by the URL.

pub mod accounts;
pub mod agents;
pub mod connection;
pub mod credits;
mod entity;
pub mod error;
mod finish;
pub mod gateways;
pub mod keys;
pub mod messages;
mod migrate;
mod place;
pub mod rows;
mod sql;
mod sqlite_writer;
#[cfg(test)]
mod testing;
pub mod usage;
mod write;
