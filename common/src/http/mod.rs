//! Serving HTTP/1.1: the one home of hyper.

pub mod body;
pub mod listener;
pub mod wire;
