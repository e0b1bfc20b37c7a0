//! Following messages from any gateway: what they say as they say it, from any place on, and how they end.

pub mod cursor;
pub mod follower;
pub mod hub;
pub mod log;
pub mod position;
mod reread;
pub mod seats;
mod track;
pub mod upkeep;
