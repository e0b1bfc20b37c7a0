//! The security suite: what `SECURITY.md` promises, a file a row, each telling how much it has tried.

mod auth_failures;
mod revocation;
