//! What the gateway and the worker both speak: the domain, the queue and the store.

pub mod cache;
pub mod domain;
pub mod env;
pub mod http;
pub mod lifecycle;
pub mod metrics;
pub mod ops;
pub mod outbound;
pub mod queue;
pub mod readiness;
pub mod retry;
pub mod sabotage;
pub mod store;
pub mod telemetry;
pub mod traceparent;
