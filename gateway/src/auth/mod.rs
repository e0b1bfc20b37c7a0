//! Who calls, and whether they may.

pub mod authenticator;
pub mod caller;
pub mod client;
pub mod gate;
