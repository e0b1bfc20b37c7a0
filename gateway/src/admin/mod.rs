//! The operator's subcommands, one file per noun.

pub mod accounts;
pub mod agent_file;
pub mod agents;
pub mod amount;
pub mod channels;
pub mod context;
pub mod credits;
pub mod date;
pub mod dead_letters;
pub mod error;
pub mod keys;
pub mod migrate;
pub mod names;
pub mod output;
pub mod run;
pub mod usage;
pub mod webhooks;
