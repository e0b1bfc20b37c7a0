//! Calls to addresses that a user gave: which of them are made, and which never.

pub mod address;
pub mod guard;
pub mod lookup;
pub mod refusal;
