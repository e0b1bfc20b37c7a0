//! Providers and the runtime against a scripted model server.

mod answers;
mod failures;
mod runs;
mod support;
