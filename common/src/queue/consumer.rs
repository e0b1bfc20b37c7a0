//! The pull loop: asks for exactly as many jobs as can start, and survives reconnects without a stall.
//!
//! The client's own `messages()` hoards 200 jobs and stalls up to 35 s after a reconnect; `fetch()` can hang and
//! `.heartbeat()` loses a message. This loop keeps credits instead: what was asked for and has not come yet.

use std::time::Duration;

use async_nats::{HeaderMap, StatusCode, Subscriber, jetstream};
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{debug, warn};

use super::{
    connection::{Connection, Link, REQUEST_TIMEOUT},
    delivery::{Delivery, Slot},
    slots::Slots,
    subjects,
};
use crate::domain::job::Lane;

/// How long the server keeps a pull that nothing answers.
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// How often it says that it still has it.
const PULL_HEARTBEAT: Duration = Duration::from_secs(2);
/// A pull without a sign for this long is lost.
const PULL_LOST: Duration = Duration::from_secs(5);
/// After a refusal (no consumer, too many waiting pulls), so that it is not asked in a tight loop.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(250);
const LANES: usize = Lane::ALL.len();

/// What a pull says to the server (ADR-13, `JSApiConsumerGetNextRequest`).
#[derive(Serialize)]
struct Pull {
    batch: usize,
    expires: u64,
    idle_heartbeat: u64,
}

/// What is known of one lane.
struct LaneState {
    /// Asked for and not come yet.
    credits: usize,
    /// The last sign of life of a pull.
    seen: Instant,
    /// Not to be asked before this moment.
    resume_at: Option<Instant>,
    /// Jobs that waited behind the last one that came.
    pending: u64,
    /// One job more than there are slots; it takes the next.
    held: Option<Delivery>,
}

/// Pulls jobs from all lanes for one worker.
pub struct Puller {
    connection: Connection,
    link: watch::Receiver<Link>,
    inbox: String,
    subscriber: Option<Subscriber>,
    /// The subscription before this one, until the server has confirmed that nothing more comes on it.
    draining: Option<Subscriber>,
    lanes: [LaneState; LANES],
    slots: Slots,
    freed_tx: mpsc::UnboundedSender<Lane>,
    freed: mpsc::UnboundedReceiver<Lane>,
    ticks: tokio::time::Interval,
    hold_for: Duration,
    last_hold: Instant,
}

impl Puller {
    /// A loop for `slots` jobs at a time. A held job is kept alive every third of `ack_wait`.
    pub fn new(connection: Connection, slots: usize, ack_wait: Duration) -> Self {
        let (freed_tx, freed) = mpsc::unbounded_channel();
        let now = Instant::now();
        let lane = || LaneState { credits: 0, seen: now, resume_at: None, pending: 0, held: None };
        let mut ticks = interval(Duration::from_millis(250));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            link: connection.link(),
            connection,
            inbox: String::new(),
            subscriber: None,
            draining: None,
            lanes: [lane(), lane(), lane()],
            slots: Slots::new(slots),
            freed_tx,
            freed,
            ticks,
            hold_for: ack_wait / 3,
            last_hold: now,
        }
    }

    /// How many jobs run.
    pub fn running(&self) -> usize {
        self.slots.running()
    }

    /// The next job that has a slot. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Delivery {
        loop {
            self.take_freed();
            if let Some(ready) = self.unhold() {
                return ready;
            }
            self.refill().await;
            tokio::select! {
                biased;
                changed = self.link.changed() => {
                    // A closed channel means a closed connection: nothing will come any more.
                    if changed.is_err() { std::future::pending::<()>().await; }
                    self.renew().await;
                }
                message = next_message(&mut self.subscriber) => match message {
                    Some(message) => if let Some(ready) = self.receive(message).await { return ready },
                    None => self.renew().await,
                },
                message = next_message(&mut self.draining) => match message {
                    Some(message) => if let Some(ready) = self.receive(message).await { return ready },
                    None => self.draining = None,
                },
                Some(lane) = self.freed.recv() => self.slots.give_back(lane),
                _ = self.ticks.tick() => self.tick().await,
            }
        }
    }

    /// Hands back at once what has come and not begun.
    pub async fn give_up(mut self) {
        let mut rest: Vec<Delivery> = self.lanes.iter_mut().filter_map(|lane| lane.held.take()).collect();
        for mut subscriber in self.subscriber.take().into_iter().chain(self.draining.take()) {
            let _ = timeout(REQUEST_TIMEOUT, subscriber.drain()).await;
            while let Ok(Some(message)) = timeout(REQUEST_TIMEOUT, subscriber.next()).await {
                rest.extend(data(message, &self.connection));
            }
        }
        for delivery in rest {
            delivery.retry_after(None).await;
        }
    }

    fn take_freed(&mut self) {
        while let Ok(lane) = self.freed.try_recv() {
            self.slots.give_back(lane);
        }
    }

    /// A held job whose lane has a slot now.
    fn unhold(&mut self) -> Option<Delivery> {
        let lane =
            Lane::ALL.into_iter().find(|lane| self.lanes[lane.index()].held.is_some() && self.slots.free(*lane) > 0)?;
        let held = self.lanes[lane.index()].held.take()?;
        self.start(held)
    }

    fn start(&mut self, delivery: Delivery) -> Option<Delivery> {
        let lane = delivery.lane();
        self.slots.take(lane).then(|| delivery.put_in(Slot::new(lane, self.freed_tx.clone())))
    }

    /// A message of the subscription: a job, or a word about a pull.
    async fn receive(&mut self, message: async_nats::Message) -> Option<Delivery> {
        let status = message.status.unwrap_or(StatusCode::OK);
        if status != StatusCode::OK {
            self.note_status(status, &message);
            return None;
        }
        let delivery = data(message, &self.connection)?;
        let lane = &mut self.lanes[delivery.lane().index()];
        lane.credits = lane.credits.saturating_sub(1);
        lane.seen = Instant::now();
        lane.pending = delivery.info().pending;
        if self.slots.free(delivery.lane()) > 0 {
            return self.start(delivery);
        }
        self.hold_or_hand_back(delivery).await;
        None
    }

    async fn hold_or_hand_back(&mut self, delivery: Delivery) {
        let lane = &mut self.lanes[delivery.lane().index()];
        if lane.held.is_none() {
            lane.held = Some(delivery);
        } else {
            delivery.retry_after(None).await;
        }
    }

    fn note_status(&mut self, status: StatusCode, message: &async_nats::Message) {
        let Some(lane) = lane_of_inbox(&message.subject) else { return };
        let lane = &mut self.lanes[lane.index()];
        lane.seen = Instant::now();
        lane.pending = 0;
        if status == StatusCode::IDLE_HEARTBEAT {
            return;
        }
        // The pull ended: what it had left is not coming.
        lane.credits = match left_over(message.headers.as_ref()) {
            Some(left) => lane.credits.saturating_sub(left),
            None => 0,
        };
        if status != StatusCode::TIMEOUT && status != StatusCode::NOT_FOUND {
            debug!(%status, description = message.description.as_deref(), "a pull was refused");
            lane.resume_at = Some(Instant::now() + PAUSE_AFTER_REFUSAL);
        }
    }

    /// Asks for what can start and was not asked for.
    async fn refill(&mut self) {
        if self.subscriber.is_none() || !self.link.borrow().up {
            return;
        }
        for lane in Lane::ALL {
            let wanted = self.wanted(lane);
            let state = &self.lanes[lane.index()];
            let paused = state.resume_at.is_some_and(|at| at > Instant::now());
            // Half is enough to go on with: one pull then fetches many.
            if !paused && wanted > 0 && state.credits <= wanted / 2 {
                self.pull(lane, wanted - state.credits).await;
            }
        }
    }

    /// How many credits `lane` should have. `interactive` may always use all that is free. The others ask for
    /// what they own, for one job more as a scout, and for what their scout saw waiting while nothing
    /// interactive does.
    fn wanted(&self, lane: Lane) -> usize {
        let free = self.slots.free(lane);
        if lane == Lane::Interactive {
            return free;
        }
        let owned = self.slots.owned_free(lane).max(1);
        let idle = self.lanes[Lane::Interactive.index()].pending == 0;
        let seen = usize::try_from(self.lanes[lane.index()].pending).unwrap_or(usize::MAX);
        free.min(if idle { owned.max(seen) } else { owned })
    }

    async fn pull(&mut self, lane: Lane, batch: usize) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let pull = Pull { batch, expires: nanos(PULL_EXPIRES), idle_heartbeat: nanos(PULL_HEARTBEAT) };
        let Ok(payload) = serde_json::to_vec(&pull) else { return };
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", subjects::JOBS, subjects::lane_consumer(lane));
        let reply = format!("{}.{lane}", self.inbox);
        let sent = self.connection.client.publish_with_reply(subject, reply, payload.into());
        match timeout(REQUEST_TIMEOUT, sent).await {
            Ok(Ok(())) => {
                let state = &mut self.lanes[lane.index()];
                state.credits += batch;
                state.seen = Instant::now();
            }
            Ok(Err(error)) => warn!(%error, %lane, "could not ask for jobs"),
            Err(_) => warn!(%lane, "could not ask for jobs in time"),
        }
    }

    /// Keeps held jobs alive, and finds pulls that the server has forgotten.
    async fn tick(&mut self) {
        if self.last_hold.elapsed() >= self.hold_for {
            self.last_hold = Instant::now();
            for held in self.lanes.iter().filter_map(|lane| lane.held.as_ref()) {
                held.in_progress().await;
            }
        }
        let lost = self.lanes.iter().any(|lane| lane.credits > 0 && lane.seen.elapsed() > PULL_LOST);
        if (lost || self.subscriber.is_none()) && self.link.borrow().up {
            self.renew().await;
        }
    }

    /// Begins anew on an inbox of its own, so that pulls of before the change can no longer be answered.
    async fn renew(&mut self) {
        if !self.link.borrow_and_update().up {
            return;
        }
        let inbox = self.connection.client.new_inbox();
        let new = match timeout(REQUEST_TIMEOUT, self.connection.client.subscribe(format!("{inbox}.*"))).await {
            Ok(Ok(new)) => new,
            _ => return warn!("could not subscribe for jobs; trying again"),
        };
        self.inbox = inbox;
        for lane in &mut self.lanes {
            lane.credits = 0;
            lane.seen = Instant::now();
        }
        if let Some(mut old) = self.subscriber.replace(new)
            && let Ok(Ok(())) = timeout(REQUEST_TIMEOUT, old.drain()).await
        {
            self.draining = Some(old);
        }
    }
}

async fn next_message(subscriber: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}

fn data(message: async_nats::Message, connection: &Connection) -> Option<Delivery> {
    if message.status.is_some_and(|status| status != StatusCode::OK) {
        return None;
    }
    Delivery::read(jetstream::Message { message, context: connection.jetstream.clone() })
}

/// The lane in the last token of a pull's inbox.
fn lane_of_inbox(subject: &str) -> Option<Lane> {
    let name = subject.rsplit('.').next()?;
    Lane::ALL.into_iter().find(|lane| lane.name() == name)
}

/// How many messages a pull that ended had left.
fn left_over(headers: Option<&HeaderMap>) -> Option<usize> {
    headers?.get("Nats-Pending-Messages")?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_names_its_lane() {
        assert_eq!(lane_of_inbox("_INBOX.worker.abc.batch"), Some(Lane::Batch));
        assert_eq!(lane_of_inbox("_INBOX.worker.abc.7"), None);
    }

    #[test]
    fn a_pull_that_ended_says_what_it_had_left() {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Pending-Messages", "17");
        assert_eq!(left_over(Some(&headers)), Some(17));
        assert_eq!(left_over(None), None);
    }
}
