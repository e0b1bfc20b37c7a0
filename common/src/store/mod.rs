//! The only door to the database: SQLite or PostgreSQL, chosen by the URL.

pub mod accounts;
pub mod agents;
pub mod connection;
mod entity;
pub mod error;
pub mod keys;
mod migrate;
mod place;
#[cfg(test)]
mod testing;
mod write;
