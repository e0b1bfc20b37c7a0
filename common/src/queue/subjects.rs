//! Every name on the queue: streams, consumers, subjects and headers. Literals for them stand nowhere else.

use uuid::Uuid;

use super::place::{Place, Queue};
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

/// Whatever a stream holds: what the server finds without a look at its subjects.
pub const ANY: &str = ">";
/// News about changed accounts, keys and agents.
pub const INVALIDATE: &str = "invalidate.>";
/// Where gateways tell each other what their limits have counted.
pub const LIMITS: &str = "limits.*";
/// Jobs and batches whose callers have stopped them.
pub const CANCELS: &str = "cancel.*";
/// Where the server is asked for several messages of `EVENTS` at once.
pub const DIRECT_GET_EVENTS: &str = "$JS.API.DIRECT.GET.EVENTS";
/// Says that webhook deliveries have become due.
pub const DELIVERIES_WAKE: &str = "deliveries.wake";
/// Says in which slot queues there are new jobs.
pub const SLOTS_WAKE: &str = "slots.wake";
/// Where gateways tell each other which slot queue they have given to an account.
pub const SLOTS_PLACED: &str = "slots.placed.*";

/// The trace that a job belongs to (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// Where a job is published: `jobs.<lane>.<place>.<account>.<job>`.
pub fn job(job: &Job, place: Place) -> String {
    format!("jobs.{}.{place}.{}.{}", job.lane, job.account.0.simple(), job.id.0.simple())
}

/// Where an account's job stands, whatever its queue.
pub fn job_anywhere(account: AccountId, job: MessageId) -> String {
    format!("jobs.*.*.{}.{}", account.0.simple(), job.0.simple())
}

/// Where an account's jobs of one lane stand, whatever their queues.
pub fn jobs_of(account: AccountId, lane: Lane) -> String {
    format!("jobs.{lane}.*.{}.*", account.0.simple())
}

/// Everything in one queue.
pub fn queue_filter(queue: Queue) -> String {
    format!("jobs.{queue}.>")
}

/// The durable consumer of one queue.
pub fn consumer(queue: Queue) -> String {
    match queue.place {
        Place::Front => lane_consumer(queue.lane),
        Place::Slot(slot) => format!("{}-{slot}", lane_consumer(queue.lane)),
    }
}

/// The queue whose consumer has this name.
pub fn queue_of_consumer(name: &str) -> Option<Queue> {
    if name == lane_consumer(Lane::Interactive) {
        return Some(Queue::FRONT);
    }
    let (lane, slot) = name.strip_prefix("workers-")?.split_once('-')?;
    Some(Queue { lane: lane_named(lane)?, place: Place::named(slot).filter(|place| *place != Place::Front)? })
}

/// The consumer of a lane's front; earlier versions had one such for the whole of each lane.
pub fn lane_consumer(lane: Lane) -> String {
    format!("workers-{lane}")
}

/// Whether a consumer of this name hands out jobs of `lane`, be it all of them or some.
pub fn serves(consumer: &str, lane: Lane) -> bool {
    let rest = consumer.strip_prefix(lane_consumer(lane).as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The queue that a job's subject names.
pub fn queue_of(subject: &str) -> Option<Queue> {
    let mut tokens = subject.strip_prefix("jobs.")?.split('.');
    Some(Queue { lane: lane_named(tokens.next()?)?, place: Place::named(tokens.next()?)? })
}

fn lane_named(name: &str) -> Option<Lane> {
    Lane::ALL.into_iter().find(|lane| lane.name() == name)
}

/// Where the end of a job is sent: to the gateway that waits for it, else only to those who attached.
pub fn reply(gateway: Option<GatewayId>, job: MessageId) -> String {
    format!("replies.{}.{}", token(gateway), job.0.simple())
}

/// All ends that are sent to one gateway.
pub fn replies_to(gateway: GatewayId) -> String {
    format!("replies.{}.>", gateway.0.simple())
}

/// The end of one job, whoever it is sent to.
pub fn replies_about(job: MessageId) -> String {
    format!("replies.*.{}", job.0.simple())
}

/// Where the pieces of an answer are sent: to the gateway that wants them as they are made, else only to those who
/// attached.
pub fn event(job: &Job) -> String {
    format!("events.{}.{}", token(job.reply_to.filter(|_| job.stream)), job.id.0.simple())
}

/// All pieces of answers that are sent to one gateway.
pub fn events_to(gateway: GatewayId) -> String {
    format!("events.{}.>", gateway.0.simple())
}

/// All pieces of one answer, whoever they are sent to.
pub fn events_about(job: MessageId) -> String {
    format!("events.*.{}", job.0.simple())
}

/// Where a gateway, or nobody, is told.
fn token(gateway: Option<GatewayId>) -> String {
    gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.0.simple().to_string())
}

/// Where the worker that runs a job, or a line of a batch, is told that its caller has stopped it.
pub fn cancel(id: Uuid) -> String {
    format!("cancel.{}", id.simple())
}

/// The job in the last token of a subject.
pub fn job_of(subject: &str) -> Option<MessageId> {
    Uuid::try_parse(subject.rsplit('.').next()?).ok().map(MessageId)
}

/// Where a job that was given up is kept.
pub fn dead(job: MessageId) -> String {
    format!("dead.{}", job.0.simple())
}

/// Tells gateways that something of `kind` has changed.
pub fn invalidate(kind: &str) -> String {
    format!("invalidate.{kind}")
}

/// Where one gateway tells the others which slot queue it has given to an account.
pub fn slots_placed(gateway: GatewayId) -> String {
    format!("slots.placed.{}", gateway.0.simple())
}

/// Where one gateway tells the others what its limits have counted.
pub fn limits(gateway: GatewayId) -> String {
    format!("limits.{}", gateway.0.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_subject_names_its_queue() {
        for lane in Lane::ALL {
            assert_eq!(queue_of(&format!("jobs.{lane}.3.a.b")), Some(Queue::slot(lane, 3)));
        }
        assert_eq!(queue_of("jobs.interactive.front.a.b"), Some(Queue::FRONT));
        for subject in ["jobs.other.3.a.b", "jobs.batch.64.a.b", "jobs.batch", "replies.interactive.1"] {
            assert_eq!(queue_of(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_queue_is_known_by_its_consumer() {
        for queue in Queue::all(64) {
            assert_eq!(queue_of_consumer(&consumer(queue)), Some(queue));
        }
        for name in ["workers-batch", "workers-batch-front", "workers-batch-64", "others"] {
            assert_eq!(queue_of_consumer(name), None, "{name}");
        }
    }

    #[test]
    fn a_consumer_serves_the_lane_that_its_name_begins_with() {
        for name in ["workers-batch", "workers-batch-7"] {
            assert_eq!(Lane::ALL.map(|lane| serves(name, lane)), [false, false, true], "{name}");
        }
        assert!(!Lane::ALL.iter().any(|lane| serves("workers-batches", *lane) || serves("other-batch", *lane)));
    }
}
