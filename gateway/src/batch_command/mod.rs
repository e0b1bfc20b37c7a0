//! `gateway batch`: the command for people who have a file of prompts. A caller like any other, through HTTP and a key.

pub mod args;
pub mod body;
pub mod faults;
pub mod input;
pub mod lines;
pub mod rows;
pub mod spool;
pub mod wire;
