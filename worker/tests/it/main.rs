//! Providers and the runtime against a scripted model server.

mod answers;
mod failures;
mod posts;
mod runs;
mod support;
