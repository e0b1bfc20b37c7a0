//! The consumers of `JOBS`, one for each queue: made and altered by `gateway migrate` alone, checked by everybody.

use std::{collections::HashSet, time::Duration};

use async_nats::jetstream::{
    consumer::{self, AckPolicy, Info, pull},
    context::{Context, ContextBuilder},
    stream::RawMessageErrorKind,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    config::StreamLimits,
    connection::Connection,
    depths,
    error::AnyError,
    place::{MOST_SLOTS, Queue},
    subjects,
};
use crate::domain::job::Lane;

/// Far above all slots of all workers: it would otherwise cap the running jobs of the whole pool.
pub const MAX_ACK_PENDING: u64 = 1_000_000;
const MAX_WAITING: i64 = 8_192;
/// Consumers that are made at a time: each is some files that have to reach the disk.
const MADE_AT_ONCE: usize = 16;
/// How long that may take.
const MAKE_LIMIT: Duration = Duration::from_secs(30);

/// Gives each queue its consumer. Those by which earlier versions handed out whole lanes take what the slot queues are
/// for: they go, and what they had handed out and is not finished is handed out once more.
///
/// # Errors
/// When the server refuses.
pub(super) async fn make(connection: &Connection, limits: &StreamLimits) -> Result<(), AnyError> {
    let jetstream = &patient(connection);
    let there = depths::consumers(connection).await?;
    for old in there.iter().filter(|info| Lane::ALL.iter().any(|lane| hands_out_all(info, *lane))) {
        jetstream.delete_consumer_from_stream(&old.name, subjects::JOBS).await?;
    }
    let further = further(jetstream, limits.slots, &there).await?;
    let wanted = Queue::all(limits.slots).chain(further).map(|queue| config(queue, limits));
    let make = wanted
        .filter(|wanted| !there.iter().any(|info| is_as_wanted(&info.config, wanted)))
        .map(async |wanted| jetstream.create_consumer_on_stream(wanted, subjects::JOBS).await.map(drop));
    Ok(stream::iter(make).buffer_unordered(MADE_AT_ONCE).try_collect().await?)
}

/// For what has to reach a disk that others write to.
fn patient(connection: &Connection) -> Context {
    ContextBuilder::new().timeout(MAKE_LIMIT).build(connection.client.clone())
}

fn is_as_wanted(found: &consumer::Config, wanted: &pull::Config) -> bool {
    found.durable_name == wanted.durable_name
        && found.filter_subject == wanted.filter_subject
        && found.ack_policy == wanted.ack_policy
        && found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
        && found.max_waiting == wanted.max_waiting
        && found.backoff.is_empty()
}

fn hands_out_all(info: &Info, lane: Lane) -> bool {
    info.config.filter_subject == format!("jobs.{lane}.>")
}

/// Queues beyond those that `slots` asks for that are there already or hold jobs: of when there were more.
async fn further(jetstream: &Context, slots: u8, there: &[Info]) -> Result<Vec<Queue>, AnyError> {
    let asked: HashSet<Queue> = Queue::all(slots).collect();
    let known: HashSet<Queue> = there.iter().filter_map(|info| subjects::queue_of_consumer(&info.name)).collect();
    let stream = jetstream.get_stream(subjects::JOBS).await?;
    let is_empty = stream.cached_info().state.messages == 0;
    let mut further = Vec::new();
    for queue in Queue::all(MOST_SLOTS).filter(|queue| !asked.contains(queue)) {
        let holds_jobs = async || match stream.get_last_raw_message_by_subject(&subjects::queue_filter(queue)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            Err(error) => Err(error),
        };
        if known.contains(&queue) || (!is_empty && holds_jobs().await?) {
            further.push(queue);
        }
    }
    Ok(further)
}

fn config(queue: Queue, limits: &StreamLimits) -> pull::Config {
    let most_running = limits.account_running.filter(|_| queue != Queue::FRONT).map_or(MAX_ACK_PENDING, u64::from);
    pull::Config {
        durable_name: Some(subjects::consumer(queue)),
        filter_subject: subjects::queue_filter(queue),
        ack_policy: AckPolicy::Explicit,
        ack_wait: limits.ack_wait,
        max_deliver: -1,
        max_ack_pending: i64::try_from(most_running).unwrap_or(i64::MAX),
        max_waiting: MAX_WAITING,
        ..pull::Config::default()
    }
}

/// What is missing for `slots` slot queues a lane, or is not as it has to be.
pub(super) fn faults(there: &[Info], slots: u8) -> Vec<String> {
    let names: HashSet<&str> = there.iter().map(|info| info.name.as_str()).collect();
    let missing = Queue::all(slots).map(subjects::consumer).find(|name| !names.contains(name.as_str()));
    let missing = missing.map(|name| format!("consumer {name} is missing: run `gateway migrate`"));
    let mut faults: Vec<String> = missing.into_iter().collect();
    faults.extend(there.iter().flat_map(|info| config_faults(&info.name, &info.config)));
    faults
}

fn config_faults(name: &str, found: &consumer::Config) -> Vec<String> {
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
