//! `Idempotency-Key`: the same request sent again is the same message.

pub mod key;
pub mod ticket;
