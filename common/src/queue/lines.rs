//! Puts the lines of a batch on the queue: many under way at a time, each tried again under its own id.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, jetstream::message::PublishMessage};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    attempt::{Fault, attempt, message},
    connection::Connection,
    error::PublishError,
    place::{Place, Queue},
    subjects,
    wakes::Wakes,
    window::Window,
};
use crate::{
    domain::{ids::MessageId, job::Job},
    retry::Pauses,
};

/// How much of the lines may be under way, in bytes: it is in memory for as long.
const MOST_BYTES: usize = 8 << 20;
/// How long one try of one line may take.
const TRY: Duration = Duration::from_secs(2);
/// The pauses between tries of one line.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One line of a batch, ready to be sent.
#[derive(Clone, Debug)]
pub struct Line {
    id: MessageId,
    queue: Queue,
    subject: String,
    payload: Bytes,
}

impl Line {
    /// The line that `job` is, to stand in `slot` of its lane.
    ///
    /// # Errors
    /// When the job cannot be written as JSON, which is a defect.
    pub fn of(job: &Job, slot: u8) -> serde_json::Result<Self> {
        let payload = serde_json::to_vec(job)?.into();
        let (queue, subject) = (Queue::slot(job.lane, slot), subjects::job(job, Place::Slot(slot)));
        Ok(Self { id: job.id, queue, subject, payload })
    }

    fn message(&self, sending: &Sending) -> PublishMessage {
        let message = message(self.id, sending.traceparent.as_deref(), self.payload.clone());
        if sending.again { message.header(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0") } else { message }
    }
}

/// How the lines of one batch are sent.
struct Sending {
    connection: Connection,
    wakes: Wakes,
    traceparent: Option<String>,
    /// Whether they may be on the queue already: then they are not put there a second time.
    again: bool,
    patience: Duration,
    progress: Mutex<Progress>,
}

struct Progress {
    /// When the queue took a line last.
    at: Instant,
    /// Whether it has refused one since.
    is_stuck: bool,
}

/// A line on its way.
type UnderWay = Pin<Box<dyn Future<Output = Result<Taken, PublishError>> + Send>>;

/// The lines of one batch on their way to the queue. Dropping it gives up those that are under way.
pub struct Lines {
    sending: Arc<Sending>,
    window: Window,
    under_way: FuturesUnordered<UnderWay>,
    bytes: usize,
    new: u64,
}

/// A line that is stored in the stream.
struct Taken {
    size: usize,
    was_known: bool,
    /// How long its last try took; `None` when it needed more than one.
    took: Option<Duration>,
}

impl Lines {
    /// Sends on `connection`, with `traceparent`, and wakes workers. While the queue takes none at all they are tried again for as long as
    /// `patience`. With `again`, equal lines may be on the queue from before.
    pub fn new(
        connection: Connection,
        wakes: Wakes,
        traceparent: Option<String>,
        again: bool,
        patience: Duration,
    ) -> Self {
        let progress = Mutex::new(Progress { at: Instant::now(), is_stuck: false });
        let sending = Arc::new(Sending { connection, wakes, traceparent, again, patience, progress });
        Self { sending, window: Window::new(), under_way: FuturesUnordered::new(), bytes: 0, new: 0 }
    }

    /// Sends `line`, once there is room for it among those that are under way.
    ///
    /// # Errors
    /// When the queue has not taken a line for too long: this one, or any before it.
    pub async fn push(&mut self, line: Line) -> Result<(), PublishError> {
        let size = line.payload.len();
        while self.under_way.len() >= self.window.size() || self.bytes > MOST_BYTES.saturating_sub(size) {
            match self.under_way.next().await {
                Some(taken) => self.take(taken?),
                None => break,
            }
        }
        self.bytes += size;
        self.under_way.push(Box::pin(self.sending.clone().send(line)));
        // Nothing is sent before it is polled.
        while let Some(Some(taken)) = self.under_way.next().now_or_never() {
            self.take(taken?);
        }
        Ok(())
    }

    /// How many lines were stored since the last call that nobody had put there before.
    pub fn take_new(&mut self) -> u64 {
        mem::take(&mut self.new)
    }

    /// Waits until all lines are stored in the stream. How many more of them nobody had put there before.
    ///
    /// # Errors
    /// As for [`Lines::push`].
    pub async fn finish(mut self) -> Result<u64, PublishError> {
        while let Some(taken) = self.under_way.next().await {
            self.take(taken?);
        }
        Ok(self.new)
    }

    fn take(&mut self, taken: Taken) {
        self.bytes -= taken.size;
        self.new += u64::from(!taken.was_known);
        match taken.took {
            Some(took) => self.window.acknowledged(took),
            None => self.window.refused(),
        }
    }
}

impl Sending {
    /// Returns once the line is stored in the stream.
    async fn send(self: Arc<Self>, line: Line) -> Result<Taken, PublishError> {
        let size = line.payload.len();
        let mut pauses: Option<Pauses> = None;
        let mut in_doubt = false;
        loop {
            let tried = Instant::now();
            let fault = match self.send_once(&line).await {
                Ok(was_known) => {
                    self.note_progress();
                    self.wakes.note(line.queue);
                    let took = pauses.is_none().then(|| tried.elapsed());
                    return Ok(Taken { size, was_known: was_known && !in_doubt, took });
                }
                Err(fault) => fault,
            };
            in_doubt |= matches!(fault, Fault::InDoubt(_));
            if matches!(fault, Fault::TooLarge) || self.is_over(&fault) {
                return Err(fault.into_error(in_doubt));
            }
            let pauses = pauses.get_or_insert_with(|| Pauses::new(FIRST_PAUSE, LONGEST_PAUSE, None));
            sleep(pauses.next_pause().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    async fn send_once(&self, line: &Line) -> Result<bool, Fault> {
        if !self.connection.is_up() && !self.connection.wait_until_up(TRY).await {
            return Err(Fault::NotSent("no connection to NATS".to_owned()));
        }
        attempt(&self.connection, &line.subject, line.message(self), Instant::now() + TRY).await
    }

    fn note_progress(&self) {
        *self.progress() = Progress { at: Instant::now(), is_stuck: false };
    }

    /// Whether the queue has taken nothing for too long, now that it did not take one line for this reason.
    fn is_over(&self, fault: &Fault) -> bool {
        let mut progress = self.progress();
        if !mem::replace(&mut progress.is_stuck, true) {
            warn!(fault = fault.reason(), "the queue does not take a line of a batch; trying again");
        }
        progress.at.elapsed() > self.patience
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
