//! Takes batches: has their bodies read, knows those that were sent before, and has them put on the queue.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::body::Body;
use common::{
    domain::{
        batch::{Batch, BatchStatus},
        ids::BatchId,
        job::Lane,
        time::Millis,
    },
    store::{
        batch_results::RetryLine,
        batches::{NewBatch, Opened},
        error::StoreError,
    },
};
use serde::Serialize;
use tokio::{task::spawn_blocking, time::sleep};
use tracing::error;

use super::{
    enqueue::{Enqueuer, Order},
    intake::{self, Received, done},
    judge::{Judge, Judged, Keeper, Standards},
    line::{LineRequest, ReadLine},
    spool::{Spool, Spooled},
    uploads::Uploads,
};
use crate::{
    auth::caller::Caller,
    directory::{Directory, roster::Named},
    error::{ApiError, NotEnqueued},
    idempotency::{key::IdempotencyKey, ticket::Idempotency},
    placement::Placement,
    prices::Prices,
    room::Room,
};

/// Between two looks at a batch that another gateway puts on the queue.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many lines of a batch that is run again are read at once.
const PORTION: usize = 100;

/// Takes batches from the channels.
pub struct BatchDesk {
    /// Whom lines may name.
    pub directory: Directory,
    /// What that costs.
    pub prices: Arc<Prices>,
    /// Which requests were sent before.
    pub idempotency: Idempotency,
    /// Who puts lines on the queue.
    pub enqueuer: Enqueuer,
    /// Who sends bodies at the moment.
    pub uploads: Uploads,
    /// Where lines are put there.
    pub placement: Placement,
    /// How much accounts have on the queue.
    pub room: Arc<Room>,
    /// Where bodies wait until they were read to their end.
    pub spool: PathBuf,
    /// How long a sender may pause within the body.
    pub pause: Duration,
}

/// A batch to be: its lines, and who asks for it.
pub struct Submission {
    /// Who asks for it.
    pub caller: Arc<Caller>,
    /// Its good lines.
    pub spooled: Spooled,
    /// How many bad ones are left out on demand.
    pub skipped: u32,
    /// The batch whose lines without an answer these are.
    pub retry_of: Option<BatchId>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// Under which id a batch is handled.
#[derive(Clone, Copy, Debug)]
pub struct BatchTicket {
    id: BatchId,
    /// Whether there is an idempotency key by which its caller can resume it.
    is_keyed: bool,
    /// Whether an earlier equal request was given the id.
    is_known: bool,
}

/// A batch that is on the queue, or was.
#[derive(Debug)]
pub struct Taken {
    /// As it stands.
    pub batch: Batch,
    /// Whether an earlier equal request put it there.
    pub is_replay: bool,
}

impl BatchDesk {
    /// Reads `body` and judges its lines, which `read` understands.
    ///
    /// # Errors
    /// When it cannot be read to its end; a bad line is no error.
    pub async fn receive(&self, caller: &Arc<Caller>, body: Body, read: ReadLine) -> Result<Received, ApiError> {
        let lifecycle = &self.enqueuer.lifecycle;
        if lifecycle.is_stopping() {
            return Err(ApiError::Draining);
        }
        let _upload = self.uploads.begin(caller.account.id).ok_or(ApiError::TooManyUploads)?;
        let judge = Judge::new(self.keeper(caller).await?, read);
        intake::receive(body, judge, self.pause, lifecycle).await
    }

    /// The ticket of a request to `route` for what was `asked`. Costs one durable write with a key, and nothing without.
    ///
    /// # Errors
    /// 422 when the key came with another request before.
    pub async fn ticket(
        &self,
        route: &str,
        key: Option<&IdempotencyKey>,
        caller: &Caller,
        asked: &impl Serialize,
    ) -> Result<BatchTicket, ApiError> {
        let new = BatchId::new();
        let id = match key {
            None => new,
            Some(key) => self.idempotency.batch_id(route, key, caller.account.id, asked, new).await?,
        };
        Ok(BatchTicket { id, is_keyed: key.is_some(), is_known: id != new })
    }

    /// The batch of a ticket, when an earlier equal request has put all of it on the queue.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn taken_before(&self, ticket: BatchTicket) -> Result<Option<Taken>, ApiError> {
        if !ticket.is_known {
            return Ok(None);
        }
        let found = self.look(ticket.id).await?.filter(|batch| batch.status != BatchStatus::Enqueuing);
        Ok(found.map(|batch| Taken { batch, is_replay: true }))
    }

    /// Makes the batch, unless it is there, and returns once all of its lines are on the queue. Goes on when its caller
    /// hangs up.
    ///
    /// # Errors
    /// When it is not made, or its lines are not known to be all on the queue.
    pub async fn submit(self: &Arc<Self>, submission: Submission, ticket: BatchTicket) -> Result<Taken, ApiError> {
        let taking = self.enqueuer.lifecycle.spawn(self.clone().take(submission, ticket));
        taking.await.map_err(|error| {
            error!(batch.id = %ticket.id, %error, "could not take a batch");
            ApiError::Internal
        })?
    }

    async fn take(self: Arc<Self>, submission: Submission, ticket: BatchTicket) -> Result<Taken, ApiError> {
        let mut is_known = ticket.is_known;
        loop {
            let found = if is_known { self.look(ticket.id).await? } else { None };
            let is_replay = found.is_some();
            let (batch, slot) = match found {
                None => match self.open(&submission, ticket).await? {
                    Some(opened) => opened,
                    None => {
                        is_known = true;
                        continue;
                    }
                },
                Some(batch) if batch.status == BatchStatus::Enqueuing => match self.take_over(batch.id).await? {
                    Some(slot) => (batch, slot),
                    None => continue,
                },
                Some(batch) => return Ok(Taken { batch, is_replay: true }),
            };
            if let Some(batch) = self.enqueue(&submission, batch, slot, is_replay).await? {
                return Ok(Taken { batch, is_replay: false });
            }
            is_known = true;
        }
    }

    async fn look(&self, id: BatchId) -> Result<Option<Batch>, ApiError> {
        self.enqueuer.store.batch(id).await.map_err(|error| lost_sight(id, &error))
    }

    /// Makes the batch; `None` when it is there.
    async fn open(&self, submission: &Submission, ticket: BatchTicket) -> Result<Option<(Batch, u8)>, ApiError> {
        let Submission { caller, spooled, skipped, retry_of, .. } = submission;
        let account = &caller.account;
        if self.enqueuer.lifecycle.is_stopping() {
            return Err(ApiError::Draining);
        }
        if spooled.costs && account.balance <= 0 {
            return Err(ApiError::InsufficientCredits(None));
        }
        let slot = self.placement.slot(account.id, Lane::Batch).await;
        let new = NewBatch {
            id: ticket.id,
            account: account.id,
            key: caller.key.id,
            total: spooled.lines,
            skipped: *skipped,
            slot,
            keyed: ticket.is_keyed,
            retry_of: *retry_of,
            notifies: account.has_endpoints,
            created_at: Millis::now(),
        };
        let (Enqueuer { gateway, store, .. }, limit) = (&self.enqueuer, self.room.limit());
        let opened = store.open_batch(&new, *gateway, Enqueuer::lease_end(), limit).await;
        match opened.map_err(|error| unavailable(&error))? {
            Opened::New(batch) => {
                self.room.add(account.id, spooled.lines.into());
                Ok(Some((batch, slot)))
            }
            Opened::Known(_) => Ok(None),
            Opened::QueueFull { .. } => Err(ApiError::AccountQueueFull(limit)),
        }
    }

    /// Takes a batch that its gateway has left; waits a little when that one goes on with it.
    async fn take_over(&self, id: BatchId) -> Result<Option<u8>, ApiError> {
        let Enqueuer { gateway, store, lifecycle, .. } = &self.enqueuer;
        if lifecycle.is_stopping() {
            return Err(ApiError::NotEnqueued(id, NotEnqueued::Draining));
        }
        let taken = store.take_batch_over(id, *gateway, Millis::now(), Enqueuer::lease_end()).await;
        let taken = taken.map_err(|error| lost_sight(id, &error))?;
        if taken.is_none() {
            sleep(LOOK_EVERY).await;
        }
        Ok(taken)
    }

    /// Puts the lines on the queue; `None` when another gateway has taken that over.
    async fn enqueue(
        &self,
        submission: &Submission,
        batch: Batch,
        slot: u8,
        again: bool,
    ) -> Result<Option<Batch>, ApiError> {
        let id = batch.id;
        if batch.counts.total != submission.spooled.lines {
            self.enqueuer.release(id).await;
            return Err(ApiError::NotEnqueued(id, NotEnqueued::Changed));
        }
        let account = &submission.caller.account;
        let reader = submission.spooled.reader().map_err(|error| lost_sight(id, &error))?;
        let order = Order {
            batch,
            slot,
            again,
            balance: account.balance,
            notifies: account.has_endpoints,
            traceparent: submission.traceparent.clone(),
            reader,
        };
        self.enqueuer.enqueue(order).await.map_err(|reason| ApiError::NotEnqueued(id, reason))
    }

    /// The lines of `original` that ended without an answer, judged by what its caller may do now.
    ///
    /// # Errors
    /// 409 when it has not ended, or there are none.
    pub async fn collect(&self, caller: &Arc<Caller>, original: &Batch) -> Result<Judged, ApiError> {
        if !original.status.is_terminal() {
            return Err(ApiError::BatchNotEnded(original.id, original.status));
        }
        self.require_all_ends(original).await?;
        let mut keeper = self.keeper(caller).await?;
        let (mut last, mut is_empty) = (0, true);
        loop {
            let lines = self.enqueuer.store.retryable_lines(original.id, last, PORTION).await;
            let lines = lines.map_err(|error| unavailable(&error))?;
            let Some(line) = lines.last() else { break };
            (last, is_empty) = (line.line, false);
            let keeping = spawn_blocking(move || {
                for line in lines {
                    let agent = Named::Id(line.agent);
                    let RetryLine { turns, new_chat, metadata, .. } = line;
                    let request = LineRequest { agent, turns, new_chat, metadata };
                    keeper.keep(line.line, line.custom_id, request)?;
                }
                Ok(keeper)
            });
            keeper = done(keeping).await?;
        }
        if is_empty {
            return Err(ApiError::NothingToRetry(original.id));
        }
        done(spawn_blocking(move || keeper.finish())).await
    }

    /// Lines of a batch that was cancelled a moment ago are noted as their turn on the queue comes. Those that never came
    /// there are not missed.
    async fn require_all_ends(&self, batch: &Batch) -> Result<(), ApiError> {
        if batch.status != BatchStatus::Cancelled || batch.enqueued_at.is_none() {
            return Ok(());
        }
        let noted = self.enqueuer.store.count_results(batch.id).await.map_err(|error| unavailable(&error))?;
        if noted < batch.counts.total { Err(ApiError::BatchUnsettled(batch.id)) } else { Ok(()) }
    }

    /// Keeps what the account's agents can be asked, in a spool of its own.
    async fn keeper(&self, caller: &Arc<Caller>) -> Result<Keeper, ApiError> {
        let roster = self.directory.roster(caller.account.id).await?;
        let standards = Standards { caller: caller.clone(), roster, prices: self.prices.clone() };
        let folder = self.spool.clone();
        let spool = done(spawn_blocking(move || Ok(Spool::create(&folder)?))).await?;
        Ok(Keeper::new(standards, spool))
    }
}

/// Nothing was accepted.
fn unavailable(error: &StoreError) -> ApiError {
    error!(%error, "could not look into the store for a batch");
    ApiError::StoreUnavailable
}

/// An earlier request may have been accepted.
fn lost_sight(id: BatchId, error: &dyn std::error::Error) -> ApiError {
    error!(batch.id = %id, %error, "could not go on with a batch");
    ApiError::NotEnqueued(id, NotEnqueued::Unreachable)
}
