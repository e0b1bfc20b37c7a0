//! What waits and what runs, asked of the server: seldom, and never per job.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{consumer::Info, context::Context, stream::RawMessageErrorKind};
use futures_util::TryStreamExt as _;
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::debug;

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::{AnyError, QueueError, within},
    pace::{Count, Pace},
    subjects,
};
use crate::{
    domain::{backlog::Backlog, job::Lane, time::Millis},
    lifecycle::Lifecycle,
};

/// How long an answer stands. Anybody may ask, so asking often must cost nothing.
const FRESH: Duration = Duration::from_secs(2);
/// How often it is asked for when nobody does: without counts of before there is no rate.
const EVERY: Duration = Duration::from_secs(10);
/// A lane of more jobs than these is not searched for its oldest one: for that the server looks at all subjects that
/// match (*measured*: 0.3 µs each, and nobody can publish meanwhile).
const SEARCHED: u64 = 5_000;

/// Where the backlog is read. Clones share one answer.
#[derive(Clone)]
pub struct BacklogGauge(Arc<Inner>);

struct Inner {
    connection: Connection,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pace: Pace,
    last: Option<(Instant, Option<Backlog>)>,
}

impl BacklogGauge {
    /// A gauge that asks over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(Arc::new(Inner { connection, state: Mutex::default() }))
    }

    /// What there is, as of at most 2 s ago; `None` when the queue does not tell.
    pub async fn read(&self) -> Option<Backlog> {
        let Inner { connection, state } = &*self.0;
        if !connection.is_up() {
            return None;
        }
        let mut state = state.lock().await;
        if let Some((at, backlog)) = state.last
            && at.elapsed() < FRESH
        {
            return backlog;
        }
        let backlog = match count(connection).await {
            Ok((mut backlog, ended)) => {
                let (running, unfinished) = (backlog.running(), backlog.unfinished());
                backlog.drain = state.pace.drain(Count { at: Instant::now(), ended, running, unfinished });
                Some(backlog)
            }
            Err(error) => {
                debug!(%error, "cannot tell how much work there is");
                None
            }
        };
        state.last = Some((Instant::now(), backlog));
        backlog
    }

    /// Reads it from time to time until the lifecycle says stop, so that whoever asks first learns a rate too.
    pub async fn keep_reading(self, lifecycle: Lifecycle) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = lifecycle.stopping() => return,
                _ = ticks.tick() => self.read().await,
            };
        }
    }
}

/// The backlog, and how many jobs have left the stream since it was made: finished, or taken back.
async fn count(connection: &Connection) -> Result<(Backlog, u64), QueueError> {
    within(REQUEST_TIMEOUT, "counting jobs", async {
        let stream = connection.jetstream.get_stream(subjects::JOBS).await?;
        let state = &stream.cached_info().state;
        // Each job takes one sequence number, and each number is a job's.
        let ended = state.last_sequence.saturating_sub(state.messages);
        let consumers: Vec<Info> = stream.consumers().try_collect().await?;
        let mut backlog = Backlog::default();
        for (lane, counts) in Lane::ALL.into_iter().zip(&mut backlog.lanes) {
            let mut consumers: Vec<_> = consumers.iter().filter(|c| subjects::serves(&c.name, lane)).collect();
            counts.pending = consumers.iter().map(|c| c.num_pending).sum();
            counts.running = consumers.iter().map(|c| c.num_ack_pending as u64).sum();
            consumers.retain(|c| c.num_pending > 0);
            counts.oldest = oldest(&connection.jetstream, consumers, counts.pending).await?;
        }
        Ok((backlog, ended))
    })
    .await
}

/// Since when the oldest of `pending` jobs waits that `consumers` have not handed out yet. In a lane of many it is
/// since when the oldest job on the whole queue is there that stands where the lane goes on: the same as soon as the
/// lane moves, before that perhaps longer.
async fn oldest(jetstream: &Context, mut consumers: Vec<&Info>, pending: u64) -> Result<Option<Millis>, AnyError> {
    consumers.sort_unstable_by_key(|consumer| consumer.delivered.stream_sequence);
    if pending > SEARCHED {
        consumers.truncate(1);
    }
    let mut oldest: Option<(u64, Millis)> = None;
    for consumer in consumers {
        let from = consumer.delivered.stream_sequence + 1;
        // What the other consumers have not handed out comes later still.
        if oldest.is_some_and(|(sequence, _)| sequence <= from) {
            break;
        }
        let filter = if pending > SEARCHED { subjects::ANY } else { &consumer.config.filter_subject };
        let found = first(jetstream, filter, from).await?;
        oldest = found.into_iter().chain(oldest).min();
    }
    Ok(oldest.map(|(_, stored_at)| stored_at))
}

/// The first job from a place in the stream on that `filter` matches: its place, and since when it stands there.
async fn first(jetstream: &Context, filter: &str, from: u64) -> Result<Option<(u64, Millis)>, AnyError> {
    let stream = jetstream.get_stream_no_info(subjects::JOBS).await?;
    match stream.get_first_raw_message_by_subject(filter, from).await {
        Ok(message) => Ok(Some((message.sequence, message.time.into()))),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
