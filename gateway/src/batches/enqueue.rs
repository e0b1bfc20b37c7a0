//! Puts the lines of a batch on the queue, and keeps the batch for this gateway meanwhile.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{
        account::MicroCredits,
        batch::{Batch, BatchLine},
        channel::Channel,
        ids::{BatchId, GatewayId},
        job::{JOB_VERSION, Job, Lane},
        time::Millis,
    },
    lifecycle::Lifecycle,
    metrics::Metrics,
    queue::{
        connection::Connection,
        error::PublishError,
        lines::{Line, Lines},
        wakes::Wakes,
    },
    retry::Pauses,
    sabotage::{self, Point},
    store::{batch_leases::Lease, connection::Store},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::spool::{Reader, SpooledLine};
use crate::error::NotEnqueued;

/// For how long a batch is this gateway's when it says nothing more: then another one may go on with it.
pub const LEASE: Duration = Duration::from_secs(20);
/// How often this gateway says so, and learns that the batch was stopped.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long a queue that takes no line, or a store that does not answer, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of the spool is made ready at once, in bytes.
const PORTION: usize = 128 * 1024;

/// What putting batches on the queue needs. Cheap to clone.
#[derive(Clone)]
pub struct Enqueuer {
    /// Who we are.
    pub gateway: GatewayId,
    /// Where batches are stored.
    pub store: Store,
    /// The queue.
    pub connection: Connection,
    /// Who runs what is on it.
    pub wakes: Wakes,
    /// How long after its acceptance a worker may begin a line.
    pub start_within: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub lifecycle: Lifecycle,
}

/// A batch that is this gateway's to put on the queue.
pub struct Order {
    /// As it stands.
    pub batch: Batch,
    /// Where in the queue.
    pub slot: u8,
    /// Whether lines of it may be there already.
    pub again: bool,
    /// What its account had left when last looked at.
    pub balance: MicroCredits,
    /// Whether its account has endpoints that are told of events.
    pub notifies: bool,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// Its lines.
    pub reader: Reader,
}

/// Why a batch was left.
enum Left {
    /// It was stopped.
    Stopped,
    /// It is another gateway's, or on the queue already.
    Lost,
    /// There is no more time or patience for it here.
    GivenUp(NotEnqueued),
}

impl Enqueuer {
    /// When the lease of a batch ends that begins now.
    pub fn lease_end() -> Millis {
        Millis::now().plus(LEASE)
    }

    /// Puts the lines of `order` on the queue. The batch as it stands afterwards; `None` when it has become another
    /// gateway's.
    ///
    /// # Errors
    /// When they are not all there; whoever sends the same again goes on from here.
    pub async fn enqueue(&self, order: Order) -> Result<Option<Batch>, NotEnqueued> {
        let (id, total) = (order.batch.id, order.batch.counts.total);
        let begun = Instant::now();
        let published = tokio::select! {
            published = self.publish(order) => published.map_err(Left::GivenUp),
            left = self.hold(id) => Err(left),
            () = self.lifecycle.aborting() => Err(Left::GivenUp(NotEnqueued::Draining)),
        };
        sabotage::reach(Point::AfterPortion);
        match published {
            Ok(()) => info!(batch.id = %id, lines = total, took_ms = millis(begun), "a batch is on the queue"),
            Err(Left::Stopped) => info!(batch.id = %id, "a batch was stopped before it was all on the queue"),
            Err(Left::Lost) => return Ok(None),
            Err(Left::GivenUp(reason)) => {
                self.release(id).await;
                return Err(reason);
            }
        }
        self.close(id).await
    }

    /// Keeps the batch until it is not this gateway's any more.
    async fn hold(&self, id: BatchId) -> Left {
        loop {
            sleep(RENEW_EVERY).await;
            match self.store.renew_batch(id, self.gateway, Self::lease_end()).await {
                Ok(Lease::Held) => {}
                Ok(Lease::Stopped) => return Left::Stopped,
                Ok(Lease::Lost) => {
                    warn!(batch.id = %id, "another gateway has taken a batch over");
                    return Left::Lost;
                }
                // Nobody else can take it over without the store.
                Err(error) => warn!(batch.id = %id, %error, "could not say that a batch is being put on the queue"),
            }
        }
    }

    async fn publish(&self, order: Order) -> Result<(), NotEnqueued> {
        let Order { batch, slot, again, balance, notifies, traceparent, reader } = order;
        let id = batch.id;
        let start_by = batch.created_at.plus(self.start_within);
        let form = Arc::new(Form { batch, slot, again, balance, notifies, start_by });
        let mut lines = Lines::new(self.connection.clone(), self.wakes.clone(), traceparent, again, PATIENCE);
        let mut reading = spawn_blocking({
            let form = form.clone();
            move || portion(reader, &form)
        });
        loop {
            let (reader, ready) = match reading.await {
                Ok(Ok(read)) => read,
                Ok(Err(error)) => return Err(unreadable(id, &error)),
                Err(error) => return Err(unreadable(id, &error)),
            };
            if ready.is_empty() {
                break;
            }
            // Made ready while the portion before is sent.
            reading = spawn_blocking({
                let form = form.clone();
                move || portion(reader, &form)
            });
            sabotage::reach(Point::BeforePortion);
            for line in ready {
                lines.push(line).await.map_err(|error| refusal(id, &error))?;
            }
            self.metrics.jobs_accepted(Channel::Api, lines.take_new());
        }
        let new = lines.finish().await.map_err(|error| refusal(id, &error))?;
        self.metrics.jobs_accepted(Channel::Api, new);
        Ok(())
    }

    /// Lets another gateway go on with the batch at once.
    pub async fn release(&self, id: BatchId) {
        if let Err(error) = self.store.renew_batch(id, self.gateway, Millis::now()).await {
            warn!(batch.id = %id, %error, "could not leave a batch to other gateways");
        }
    }

    /// Notes that no more of the batch is put on the queue.
    async fn close(&self, id: BatchId) -> Result<Option<Batch>, NotEnqueued> {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(2), Some(PATIENCE));
        loop {
            let error = match self.store.batch_enqueued(id, self.gateway, Millis::now()).await {
                Ok(batch) => return Ok(batch.inspect(|_| self.metrics.batch_accepted())),
                Err(error) => error,
            };
            warn!(batch.id = %id, %error, "could not note that a batch is on the queue");
            let pause = pauses.next_pause().filter(|_| error.is_transient() && !self.lifecycle.is_aborting());
            match pause {
                None => return Err(NotEnqueued::Unreachable),
                Some(pause) => sleep(pause).await,
            }
        }
    }
}

/// What all lines of a batch have in common.
struct Form {
    batch: Batch,
    slot: u8,
    again: bool,
    balance: MicroCredits,
    notifies: bool,
    start_by: Millis,
}

impl Form {
    fn job(&self, line: SpooledLine) -> Job {
        let batch = BatchLine { batch: self.batch.id, line: line.number, custom_id: line.custom_id };
        Job {
            v: JOB_VERSION,
            id: batch.message(),
            account: self.batch.account,
            key: self.batch.key,
            agent: line.agent,
            agent_version: line.agent_version,
            channel: Channel::Api,
            lane: Lane::Batch,
            turns: line.turns,
            new_chat: line.new_chat,
            created_at: self.batch.created_at,
            // Nobody is told of a single line that it was not taken.
            publish_by: self.start_by,
            start_by: self.start_by,
            wait_until: None,
            reply_to: None,
            stream: false,
            price: line.price,
            balance: self.balance,
            callback: None,
            notifies: self.notifies,
            metadata: line.metadata,
            retry_of: None,
            batch: Some(batch),
            again: self.again,
        }
    }
}

/// The next lines, ready to be sent.
fn portion(mut reader: Reader, form: &Form) -> std::io::Result<(Reader, Vec<Line>)> {
    let read = reader.next_portion(PORTION)?;
    let ready = read.into_iter().map(|line| Ok(Line::of(&form.job(line), form.slot)?));
    let ready = ready.collect::<std::io::Result<_>>()?;
    Ok((reader, ready))
}

fn unreadable(id: BatchId, error: &dyn std::error::Error) -> NotEnqueued {
    warn!(batch.id = %id, %error, "could not read the spooled lines of a batch");
    NotEnqueued::Unreachable
}

fn refusal(id: BatchId, error: &PublishError) -> NotEnqueued {
    warn!(batch.id = %id, %error, "a batch could not be put on the queue");
    match error {
        PublishError::Full => NotEnqueued::Full,
        _ => NotEnqueued::Unreachable,
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
