//! The streams and consumers: made and altered by `gateway migrate` alone, checked by everybody.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, PullConsumer, pull},
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType},
};
use tokio::time::sleep;
use tracing::warn;

use super::{config::StreamLimits, connection::Connection, error::QueueError, subjects};
use crate::domain::job::Lane;

const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
const DEAD_MAX_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Far above all slots of all workers: it would otherwise cap the running jobs of the whole pool.
const MAX_ACK_PENDING: i64 = 1_000_000;
/// What the largest job may take in the stream, in bytes.
const ROOM_FOR_ONE: u64 = 256 * 1024;
/// Between two looks at a queue that is not as it has to be.
const FIT_PAUSE: Duration = Duration::from_secs(2);
const MAX_WAITING: i64 = 8_192;

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
        for lane in Lane::ALL {
            jetstream.create_consumer_on_stream(consumer(lane, limits), subjects::JOBS).await?;
        }
        Ok(())
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

/// Waits until NATS is there with all that this program needs, saying what is missing, and returns the time after
/// which a silent job is handed out again.
pub async fn wait_until_fit(connection: &Connection) -> Duration {
    loop {
        if !connection.wait_until_up(FIT_PAUSE).await {
            warn!("waiting for NATS");
            continue;
        }
        match fitness(connection).await {
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

/// Whether the queue is there as this program needs it; the reason when not.
pub async fn readiness(connection: &Connection) -> Result<(), String> {
    if !connection.is_up() {
        return Err("no connection to NATS".to_owned());
    }
    fitness(connection).await.map(|_| ())
}

async fn fitness(connection: &Connection) -> Result<Duration, String> {
    connection.require_version().map_err(|e| e.to_string())?;
    let faults = faults(connection).await.map_err(|e| e.to_string())?;
    if !faults.is_empty() {
        return Err(faults.join("; "));
    }
    let consumer = subjects::lane_consumer(Lane::Interactive);
    let found: Result<PullConsumer, _> = connection.jetstream.get_consumer_from_stream(&consumer, subjects::JOBS).await;
    found.map(|found| found.cached_info().config.ack_wait).map_err(|e| e.to_string())
}

/// What is missing or differs from what this program needs; empty when all is well.
pub async fn faults(connection: &Connection) -> Result<Vec<String>, QueueError> {
    let stream = match connection.jetstream.get_stream(subjects::JOBS).await {
        Ok(stream) => stream,
        Err(error) if is_missing(error.kind()) => {
            return Ok(vec!["stream JOBS is missing: run `gateway migrate`".to_owned()]);
        }
        Err(error) => return Err(QueueError::refused("looking at JOBS")(error.into())),
    };
    let mut faults = jobs_faults(&stream.cached_info().config);
    for lane in Lane::ALL {
        let name = subjects::lane_consumer(lane);
        match stream.consumer_info(&name).await {
            Ok(info) => faults.extend(consumer_faults(&name, &info.config)),
            Err(_) => faults.push(format!("consumer {name} is missing: run `gateway migrate`")),
        }
    }
    Ok(faults)
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

fn consumer_faults(name: &str, found: &async_nats::jetstream::consumer::Config) -> Vec<String> {
    let mut faults = Vec::new();
    if found.ack_policy != AckPolicy::Explicit {
        faults.push(format!("consumer {name}: acks are not explicit"));
    }
    if found.max_deliver > 0 {
        faults.push(format!("consumer {name}: max_deliver would leave jobs undeliverable"));
    }
    if !found.backoff.is_empty() {
        faults.push(format!("consumer {name}: backoff overrides ack_wait"));
    }
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

fn consumer(lane: Lane, limits: &StreamLimits) -> pull::Config {
    pull::Config {
        durable_name: Some(subjects::lane_consumer(lane)),
        filter_subject: subjects::lane_filter(lane),
        ack_policy: AckPolicy::Explicit,
        ack_wait: limits.ack_wait,
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        max_waiting: MAX_WAITING,
        ..pull::Config::default()
    }
}
