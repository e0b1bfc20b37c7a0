//! Limits: never more than the quota in any minute, and never less for who asks for no more.
//!
//! Moments are cut to milliseconds, so that one that is just over a minute old may count for a millisecond more. Between
//! several gateways news take up to [`SPREAD`]: so long each may let through what the others do not know of.

mod spread;
mod window;

use std::time::Duration;

/// The window.
pub const MINUTE: Duration = Duration::from_mins(1);
/// How much longer than a minute something may count, for moments are cut to milliseconds.
pub const CUT: Duration = Duration::from_millis(1);
/// Gateways tell each other their counts every 100 ms; a case has them on their way for up to 50 ms more, by a clock that
/// goes in steps of a millisecond.
pub const SPREAD: Duration = Duration::from_millis(152);
