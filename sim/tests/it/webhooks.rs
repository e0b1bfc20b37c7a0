//! Webhooks out: tried at the documented times, until they are taken, given up, or their endpoint is off.

mod case;
mod days;
mod schedule;
mod visits;

use std::time::Duration;

/// From each try to the next, as the contract has it.
pub const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];
/// The most that is heeded of what a receiver asks for.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);
/// How long an endpoint is tried in vain before it is switched off.
pub const PATIENCE: Duration = Duration::from_hours(5 * 24);
