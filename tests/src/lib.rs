//! What the end-to-end tests stand on: real servers on free ports, each test with its own.

pub mod answer;
pub mod batch;
pub mod batch_server;
pub mod caller;
pub mod canary;
pub mod client;
pub mod database;
pub mod model;
pub mod nats;
pub mod nats_wire;
pub mod nginx;
pub mod operation;
pub mod patience;
pub mod postgres_tap;
pub mod process;
pub mod queue;
pub mod raw;
pub mod schema;
pub mod sink;
pub mod sse;
pub mod stack;
pub mod webhook;
