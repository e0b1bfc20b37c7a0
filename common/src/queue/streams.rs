//! The streams: made and altered by `gateway migrate` alone, checked by everybody.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::Info as ConsumerInfo,
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType},
};
use tokio::time::sleep;
use tracing::warn;

use super::{config::StreamLimits, connection::Connection, depths, error::QueueError, place::Queue, queues, subjects};

const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
const DEAD_MAX_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// What the largest job may take in the stream, in bytes.
const ROOM_FOR_ONE: u64 = 256 * 1024;
/// Between two looks at a queue that is not as it has to be.
const FIT_PAUSE: Duration = Duration::from_secs(2);

/// Makes what is missing and brings what is there to `limits`.
///
/// # Errors
/// When the server refuses, for instance a change that it cannot make in place.
pub async fn migrate(connection: &Connection, limits: &StreamLimits) -> Result<(), QueueError> {
    connection.require_version()?;
    let refused = QueueError::refused("making the streams");
    let jetstream = &connection.jetstream;
    let make = async {
        for config in [jobs(limits), events(limits), dead()] {
            jetstream.create_or_update_stream(config).await?;
        }
        queues::make(connection, limits).await
    };
    make.await.map_err(refused)
}

/// Makes `EVENTS` when it is gone: it lives in memory and does not survive a restart of the server.
pub async fn ensure_events(connection: &Connection, limits: &StreamLimits) -> Result<(), QueueError> {
    let made = connection.jetstream.get_or_create_stream(events(limits)).await;
    made.map(|_| ()).map_err(|e| QueueError::refused("making EVENTS")(e.into()))
}

/// Makes `EVENTS` again whenever a reconnect finds it gone. Runs until it is dropped.
pub async fn keep_events(connection: &Connection, limits: &StreamLimits) {
    let mut link = connection.link();
    while link.wait_for(|link| link.up).await.is_ok() {
        if let Err(error) = ensure_events(connection, limits).await {
            warn!(%error, "could not make the stream EVENTS; readers that attach late see no text until the end");
            sleep(FIT_PAUSE).await;
            continue;
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until NATS is there with all that this program needs, `slots` slot queues a lane among it, saying what is
/// missing, and returns the time after which a silent job is handed out again.
pub async fn wait_until_fit(connection: &Connection, slots: u8) -> Duration {
    loop {
        if !connection.wait_until_up(FIT_PAUSE).await {
            warn!("waiting for NATS");
            continue;
        }
        match fitness(connection, slots).await {
            Ok(ack_wait) => return ack_wait,
            Err(reason) => warn!(reason, "waiting for the queue"),
        }
        sleep(FIT_PAUSE).await;
    }
}

/// Whether `JOBS` takes more; the reason when not.
pub async fn room(connection: &Connection) -> Result<(), String> {
    let stream = connection.jetstream.get_stream(subjects::JOBS).await.map_err(|e| e.to_string())?;
    let Info { config, state, .. } = stream.cached_info();
    let at_limit = |used: u64, limit: i64| limit > 0 && used >= u64::try_from(limit).unwrap_or(u64::MAX);
    if at_limit(state.messages, config.max_messages) || at_limit(state.bytes + ROOM_FOR_ONE, config.max_bytes) {
        return Err("stream JOBS is full".to_owned());
    }
    Ok(())
}

/// Whether the queue is there as this program needs it, with `slots` slot queues a lane; the reason when not.
pub async fn readiness(connection: &Connection, slots: u8) -> Result<(), String> {
    if !connection.is_up() {
        return Err("no connection to NATS".to_owned());
    }
    fitness(connection, slots).await.map(|_| ())
}

async fn fitness(connection: &Connection, slots: u8) -> Result<Duration, String> {
    connection.require_version().map_err(|e| e.to_string())?;
    let (consumers, faults) = look(connection, slots).await.map_err(|e| e.to_string())?;
    if !faults.is_empty() {
        return Err(faults.join("; "));
    }
    let front = consumers.into_iter().find(|info| info.name == subjects::consumer(Queue::FRONT));
    front.map(|front| front.config.ack_wait).ok_or_else(|| "there is no front queue".to_owned())
}

/// What is missing or differs from what this program needs; empty when all is well.
pub async fn faults(connection: &Connection, slots: u8) -> Result<Vec<String>, QueueError> {
    Ok(look(connection, slots).await?.1)
}

/// The consumers that are there, and what is wrong.
async fn look(connection: &Connection, slots: u8) -> Result<(Vec<ConsumerInfo>, Vec<String>), QueueError> {
    let stream = match connection.jetstream.get_stream(subjects::JOBS).await {
        Ok(stream) => stream,
        Err(error) if is_missing(error.kind()) => {
            return Ok((Vec::new(), vec!["stream JOBS is missing: run `gateway migrate`".to_owned()]));
        }
        Err(error) => return Err(QueueError::refused("looking at JOBS")(error.into())),
    };
    let consumers = depths::consumers(connection).await?;
    let mut faults = jobs_faults(&stream.cached_info().config);
    faults.extend(queues::faults(&consumers, slots));
    Ok((consumers, faults))
}

fn is_missing(kind: GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND)
}

fn jobs_faults(found: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            faults.push(format!("stream JOBS: {what}"));
        }
    };
    expect(found.retention == RetentionPolicy::WorkQueue, "retention is not work queue");
    expect(found.storage == StorageType::File, "storage is not file");
    expect(found.discard == DiscardPolicy::New, "a full stream would drop old jobs (discard is not new)");
    expect(found.max_age.is_zero(), "jobs would vanish by age (max_age is set)");
    expect(found.duplicate_window >= DUPLICATE_WINDOW, "the duplicate window is under 2 minutes");
    expect(found.subjects == [subjects::JOBS_SUBJECTS], "takes other subjects");
    faults
}

fn jobs(limits: &StreamLimits) -> Config {
    Config {
        name: subjects::JOBS.to_owned(),
        description: Some("Accepted, unfinished jobs of Frontdesk".to_owned()),
        subjects: vec![subjects::JOBS_SUBJECTS.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: limits.jobs_max_bytes,
        max_messages: limits.jobs_max_messages,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    }
}

fn events(limits: &StreamLimits) -> Config {
    Config {
        name: subjects::EVENTS.to_owned(),
        description: Some("Frames of running jobs of Frontdesk".to_owned()),
        subjects: vec![subjects::EVENTS_SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::Memory,
        discard: DiscardPolicy::Old,
        max_age: limits.events_max_age,
        max_bytes: limits.events_max_bytes,
        allow_direct: true,
        ..Config::default()
    }
}

fn dead() -> Config {
    Config {
        name: subjects::DEAD.to_owned(),
        description: Some("Jobs that Frontdesk gave up".to_owned()),
        subjects: vec![subjects::DEAD_SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        max_age: DEAD_MAX_AGE,
        allow_direct: true,
        ..Config::default()
    }
}
