//! The only door to the database: SQLite or PostgreSQL, chosen by the URL.

pub mod connection;
pub mod error;
mod migrate;
mod place;
#[cfg(test)]
mod testing;
mod write;
