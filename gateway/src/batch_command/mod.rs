//! `gateway batch`: the command for people who have a file of prompts. A caller like any other, through HTTP and a key.

pub mod args;
pub mod body;
pub mod client;
pub mod client_error;
pub mod error;
pub mod faults;
pub mod follow;
pub mod input;
pub mod lines;
pub mod paths;
pub mod patience;
pub mod progress;
pub mod results;
pub mod rows;
pub mod run;
pub mod server;
pub mod session;
pub mod spool;
pub mod state;
pub mod submit;
pub mod upload;
pub mod view;
pub mod wire;
