//! The pull loop: asks for exactly as many jobs as can start, and survives reconnects without a stall.
//!
//! The client's own `messages()` hoards 200 jobs and stalls up to 35 s after a reconnect; `fetch()` can hang and
//! `.heartbeat()` loses a message. This loop keeps credits instead: what was asked for and has not come yet. In front
//! some always stand; slot queues are asked when something is known to be there, and answer at once.

use std::time::Duration;

use async_nats::{HeaderMap, StatusCode, Subscriber, jetstream};
use futures_util::{StreamExt as _, future::BoxFuture};
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tracing::{debug, warn};

use super::{
    connection::{Connection, Link, REQUEST_TIMEOUT},
    delivery::{Delivery, Slot},
    depths::{self, Depth},
    error::QueueError,
    place::Queue,
    pulls::Pulls,
    rota::{Ask, Rota},
    slots::Slots,
    subjects,
    wakes::{self, SlotSet, Wakes},
};
use crate::domain::job::Lane;

/// How long the server keeps a pull in front that nothing answers.
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// How often it says that it still has it.
const PULL_HEARTBEAT: Duration = Duration::from_secs(2);
/// How long it keeps one of a queue of which as many jobs run as may.
const FULL_EXPIRES: Duration = Duration::from_millis(50);
/// After a refusal (no consumer, too many waiting pulls), or when as many jobs run as may, so that it is not asked in a
/// tight loop.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(250);
/// How often all queues are looked at: wake-ups can be lost, and nobody tells of jobs whose worker was.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
const LANES: usize = Lane::ALL.len();

/// What a pull says to the server (ADR-13, `JSApiConsumerGetNextRequest`).
#[derive(Default, Serialize)]
struct Pull {
    batch: usize,
    #[serde(skip_serializing_if = "is_zero")]
    expires: u64,
    #[serde(skip_serializing_if = "is_zero")]
    idle_heartbeat: u64,
    no_wait: bool,
}

type Sweep = BoxFuture<'static, Result<Vec<Depth>, QueueError>>;

/// Pulls jobs from all queues for one worker.
pub struct Puller {
    connection: Connection,
    link: watch::Receiver<Link>,
    wakes: Wakes,
    inbox: String,
    subscriber: Option<Subscriber>,
    /// The subscription before this one, until the server has confirmed that nothing more comes on it.
    draining: Option<Subscriber>,
    /// What others say of slot queues.
    woken: Option<Subscriber>,
    sweep: Option<Sweep>,
    sweeps: Interval,
    /// Whether all queues were looked at since it began, or began anew: before, who is heard of first would have it all.
    is_swept: bool,
    rota: Rota,
    pulls: Pulls,
    /// One job more of a lane than there are slots; it takes the next.
    held: [Option<Delivery>; LANES],
    freed_tx: mpsc::UnboundedSender<Queue>,
    freed: mpsc::UnboundedReceiver<Queue>,
    ticks: Interval,
    hold_for: Duration,
    last_hold: Instant,
}

impl Puller {
    /// A loop for `slots` jobs at a time. A held job is kept alive every third of `ack_wait`; what it hands back it
    /// tells of by `wakes`.
    pub fn new(connection: Connection, slots: usize, ack_wait: Duration, wakes: Wakes) -> Self {
        let (freed_tx, freed) = mpsc::unbounded_channel();
        Self {
            link: connection.link(),
            connection,
            wakes,
            inbox: String::new(),
            subscriber: None,
            draining: None,
            woken: None,
            sweep: None,
            sweeps: every(SWEEP_EVERY),
            is_swept: false,
            rota: Rota::new(Slots::new(slots)),
            pulls: Pulls::default(),
            held: [None, None, None],
            freed_tx,
            freed,
            ticks: every(Duration::from_millis(250)),
            hold_for: ack_wait / 3,
            last_hold: Instant::now(),
        }
    }

    /// How many jobs run.
    pub fn running(&self) -> usize {
        self.rota.slots().running()
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
                Some(queue) = self.freed.recv() => self.rota.end(queue),
                message = next_message(&mut self.woken) => match message {
                    Some(message) => self.wake(&message),
                    None => self.woken = None,
                },
                found = finished(&mut self.sweep) => self.swept(found),
                _ = self.sweeps.tick() => self.begin_sweep(),
                _ = self.ticks.tick() => self.tick().await,
            }
        }
    }

    /// Hands back at once what has come and not begun.
    pub async fn give_up(mut self) {
        let mut rest: Vec<Delivery> = self.held.iter_mut().filter_map(Option::take).collect();
        for mut subscriber in self.subscriber.take().into_iter().chain(self.draining.take()) {
            let _ = timeout(REQUEST_TIMEOUT, subscriber.drain()).await;
            while let Ok(Some(message)) = timeout(REQUEST_TIMEOUT, subscriber.next()).await {
                rest.extend(self.data(message));
            }
        }
        for delivery in rest {
            delivery.retry_after(None).await;
        }
    }

    fn take_freed(&mut self) {
        while let Ok(queue) = self.freed.try_recv() {
            self.rota.end(queue);
        }
    }

    /// A held job whose lane has a slot now.
    fn unhold(&mut self) -> Option<Delivery> {
        let slots = self.rota.slots();
        let lane = Lane::ALL.into_iter().find(|lane| self.held[lane.index()].is_some() && slots.free(*lane) > 0)?;
        let held = self.held[lane.index()].take()?;
        self.rota.begin(held.queue()).then(|| self.start(held))
    }

    fn start(&self, delivery: Delivery) -> Delivery {
        let slot = Slot::new(delivery.queue(), self.freed_tx.clone());
        delivery.put_in(slot)
    }

    /// A message of the subscription: a job, or a word about a pull.
    async fn receive(&mut self, message: async_nats::Message) -> Option<Delivery> {
        let status = message.status.unwrap_or(StatusCode::OK);
        if status != StatusCode::OK {
            self.note_status(status, &message);
            return None;
        }
        let delivery = self.data(message)?;
        let (queue, info) = (delivery.queue(), delivery.info());
        let asked_at = self.pulls.came(queue, Instant::now()).unwrap_or_default();
        self.rota.came(queue, info.pending, info.attempt.delivery > 1, asked_at);
        if self.rota.begin(queue) {
            return Some(self.start(delivery));
        }
        self.hold_or_hand_back(delivery).await;
        None
    }

    async fn hold_or_hand_back(&mut self, delivery: Delivery) {
        let held = &mut self.held[delivery.lane().index()];
        if held.is_none() {
            *held = Some(delivery);
        } else {
            delivery.retry_after(None).await;
        }
    }

    fn note_status(&mut self, status: StatusCode, message: &async_nats::Message) {
        let now = Instant::now();
        let Some(number) = number_of_inbox(&message.subject) else { return };
        if status == StatusCode::IDLE_HEARTBEAT {
            // Of the front: it has nothing.
            self.pulls.lives(number, now);
            return self.rota.was_empty(Queue::FRONT, u64::MAX);
        }
        // What it had left is not coming.
        let Some(pull) = self.pulls.close(number) else { return };
        match status {
            StatusCode::TIMEOUT if is_expired(message.headers.as_ref()) => {
                self.rota.gave_nothing(pull.queue, pull.asked_at, now + PAUSE_AFTER_REFUSAL);
            }
            // There is no more, or others have asked for all that there is.
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND => self.rota.was_empty(pull.queue, pull.asked_at),
            _ => {
                debug!(%status, description = message.description.as_deref(), "a pull was refused");
                self.rota.pause(pull.queue, now + PAUSE_AFTER_REFUSAL);
            }
        }
    }

    fn wake(&mut self, message: &async_nats::Message) {
        let queues = SlotSet::from_bytes(&message.payload).unwrap_or_default();
        queues.iter().for_each(|queue| self.rota.some_wait(queue));
    }

    /// Asks for what can start and was not asked for.
    async fn refill(&mut self) {
        if self.subscriber.is_none() || !self.link.borrow().up {
            return;
        }
        for ask in self.rota.asks(&self.pulls, Instant::now()) {
            if self.is_swept || ask.queue == Queue::FRONT {
                self.pull(ask).await;
            }
        }
    }

    async fn pull(&mut self, Ask { queue, batch }: Ask) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let pull = match queue {
            Queue::FRONT => {
                let (expires, idle_heartbeat) = (nanos(PULL_EXPIRES), nanos(PULL_HEARTBEAT));
                Pull { batch, expires, idle_heartbeat, no_wait: false }
            }
            // Without an end, the server would keep it for as long as no more jobs may run.
            _ if self.rota.is_limited(queue) => {
                Pull { batch, expires: nanos(FULL_EXPIRES), no_wait: true, ..Pull::default() }
            }
            _ => Pull { batch, no_wait: true, ..Pull::default() },
        };
        let Ok(payload) = serde_json::to_vec(&pull) else { return };
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", subjects::JOBS, subjects::consumer(queue));
        let number = self.pulls.open(queue, batch, self.rota.news(), Instant::now());
        let reply = format!("{}.{number}", self.inbox);
        let sent = self.connection.client.publish_with_reply(subject, reply, payload.into());
        match timeout(REQUEST_TIMEOUT, sent).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => warn!(%error, %queue, "could not ask for jobs"),
            Err(_) => warn!(%queue, "could not ask for jobs in time"),
        }
        self.pulls.close(number);
    }

    /// Looks at all queues, unless there is no use for what they have.
    fn begin_sweep(&mut self) {
        let is_of_use = !self.rota.slots().are_taken() || !self.is_swept;
        if self.sweep.is_none() && is_of_use && self.link.borrow().up {
            let connection = self.connection.clone();
            self.sweep = Some(Box::pin(async move { depths::all(&connection).await }));
        }
    }

    fn swept(&mut self, found: Result<Vec<Depth>, QueueError>) {
        (self.sweep, self.is_swept) = (None, true);
        match found {
            Ok(depths) => depths.iter().filter(|d| d.queue != Queue::FRONT).for_each(|depth| self.rota.found(depth)),
            Err(error) => warn!(%error, "could not look at the queues; trying again"),
        }
    }

    /// Keeps held jobs alive, and finds pulls that the server has forgotten.
    async fn tick(&mut self) {
        if self.last_hold.elapsed() >= self.hold_for {
            self.last_hold = Instant::now();
            for held in self.held.iter().flatten() {
                held.in_progress().await;
            }
        }
        let is_cut = self.subscriber.is_none() || self.woken.is_none();
        if (is_cut || self.pulls.is_one_lost(Instant::now())) && self.link.borrow().up {
            self.renew().await;
        }
    }

    /// Begins anew on an inbox of its own, so that pulls of before the change can no longer be answered, and looks at
    /// all queues: what was told meanwhile was not heard.
    async fn renew(&mut self) {
        if !self.link.borrow_and_update().up {
            return;
        }
        if self.woken.is_none() {
            self.woken = wakes::hear(&self.connection).await.ok();
        }
        let inbox = self.connection.client.new_inbox();
        let new = match timeout(REQUEST_TIMEOUT, self.connection.client.subscribe(format!("{inbox}.*"))).await {
            Ok(Ok(new)) => new,
            _ => return warn!("could not subscribe for jobs; trying again"),
        };
        self.inbox = inbox;
        self.pulls.clear();
        (self.sweep, self.is_swept) = (None, false);
        self.sweeps.reset_immediately();
        if let Some(mut old) = self.subscriber.replace(new)
            && let Ok(Ok(())) = timeout(REQUEST_TIMEOUT, old.drain()).await
        {
            self.draining = Some(old);
        }
    }

    fn data(&self, message: async_nats::Message) -> Option<Delivery> {
        if message.status.is_some_and(|status| status != StatusCode::OK) {
            return None;
        }
        let message = jetstream::Message { message, context: self.connection.jetstream.clone() };
        Delivery::read(message, self.wakes.clone())
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

async fn next_message(subscriber: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}

async fn finished(sweep: &mut Option<Sweep>) -> Result<Vec<Depth>, QueueError> {
    match sweep {
        Some(sweep) => sweep.await,
        None => std::future::pending().await,
    }
}

/// The pull that the last token of an inbox names.
fn number_of_inbox(subject: &str) -> Option<u64> {
    subject.rsplit('.').next()?.parse().ok()
}

/// Whether a pull has ended because its time was over: it says what it had left. One that is refused because others
/// have asked for all that there is does not.
fn is_expired(headers: Option<&HeaderMap>) -> bool {
    headers.is_some_and(|headers| headers.get("Nats-Pending-Messages").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_names_its_pull() {
        assert_eq!(number_of_inbox("_INBOX.worker.abc.17"), Some(17));
        assert_eq!(number_of_inbox("_INBOX.worker.abc.batch"), None);
    }

    #[test]
    fn a_pull_whose_time_is_over_says_what_it_had_left() {
        let mut headers = HeaderMap::new();
        assert!(!is_expired(Some(&headers)) && !is_expired(None));
        headers.insert("Nats-Pending-Messages", "17");
        assert!(is_expired(Some(&headers)));
    }
}
