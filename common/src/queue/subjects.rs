//! Every name on the queue: streams, consumers, subjects and headers. Literals for them stand nowhere else.

use sha2::{Digest, Sha256};

use crate::domain::{
    ids::{AccountId, GatewayId, MessageId},
    job::{Job, Lane},
};

/// Accepted, unfinished jobs.
pub const JOBS: &str = "JOBS";
/// Frames of running jobs, in memory.
pub const EVENTS: &str = "EVENTS";
/// Jobs that were given up.
pub const DEAD: &str = "DEAD";

/// What `JOBS` takes.
pub const JOBS_SUBJECTS: &str = "jobs.>";
/// What `EVENTS` takes.
pub const EVENTS_SUBJECTS: &str = "events.>";
/// What `DEAD` takes.
pub const DEAD_SUBJECTS: &str = "dead.>";

/// News about changed accounts, keys and agents.
pub const INVALIDATE: &str = "invalidate.>";
/// Where gateways tell each other what their limits have counted.
pub const LIMITS: &str = "limits.*";

/// The trace that a job belongs to (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// How many slots accounts are spread over in the subjects of jobs.
pub const SLOTS: u8 = 64;

/// Which of the [`SLOTS`] an account's jobs stand in.
pub fn slot(account: AccountId) -> u8 {
    Sha256::digest(account.0.as_bytes())[0] % SLOTS
}

/// Where a job is published: `jobs.<lane>.<slot>.<account>.<job>`.
pub fn job(job: &Job) -> String {
    format!("jobs.{}.{}.{}.{}", job.lane, slot(job.account), job.account.0.simple(), job.id.0.simple())
}

/// Everything in one lane.
pub fn lane_filter(lane: Lane) -> String {
    format!("jobs.{lane}.>")
}

/// The durable consumer of one lane.
pub fn lane_consumer(lane: Lane) -> String {
    format!("workers-{lane}")
}

/// The lane that a job's subject names.
pub fn lane_of(subject: &str) -> Option<Lane> {
    let name = subject.strip_prefix("jobs.")?.split('.').next()?;
    Lane::ALL.into_iter().find(|lane| lane.name() == name)
}

/// Where the end of a job is sent to the gateway that waits for it.
pub fn reply(gateway: GatewayId, job: MessageId) -> String {
    format!("replies.{}.{}", gateway.0.simple(), job.0.simple())
}

/// All ends that are sent to one gateway.
pub fn replies_to(gateway: GatewayId) -> String {
    format!("replies.{}.>", gateway.0.simple())
}

/// Where the pieces of an answer are sent; without a gateway for those only who attach later.
pub fn event(gateway: Option<GatewayId>, job: MessageId) -> String {
    match gateway {
        Some(gateway) => format!("events.{}.{}", gateway.0.simple(), job.0.simple()),
        None => format!("events.none.{}", job.0.simple()),
    }
}

/// All pieces of answers that are sent to one gateway.
pub fn events_to(gateway: GatewayId) -> String {
    format!("events.{}.>", gateway.0.simple())
}

/// Where a job that was given up is kept.
pub fn dead(job: MessageId) -> String {
    format!("dead.{}", job.0.simple())
}

/// Tells gateways that something of `kind` has changed.
pub fn invalidate(kind: &str) -> String {
    format!("invalidate.{kind}")
}

/// Where one gateway tells the others what its limits have counted.
pub fn limits(gateway: GatewayId) -> String {
    format!("limits.{}", gateway.0.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_subject_names_its_lane() {
        for lane in Lane::ALL {
            assert_eq!(lane_of(&format!("jobs.{lane}.3.a.b")), Some(lane));
        }
        assert_eq!(lane_of("jobs.other.3.a.b"), None);
        assert_eq!(lane_of("replies.interactive.1"), None);
    }

    #[test]
    fn accounts_spread_over_the_slots() {
        let used: std::collections::HashSet<u8> = (0..2_000).map(|_| slot(AccountId::new())).collect();
        assert_eq!(used.len(), usize::from(SLOTS));
    }
}
