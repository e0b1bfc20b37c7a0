//! What every way of asking for a batch does: finds it, lists it, waits for it, follows it, reads its results, stops it.

use std::time::Duration;

use common::{
    domain::{batch::Batch, ids::BatchId, message::MessageStatus, time::Millis},
    lifecycle::Lifecycle,
    queue::{cancel::CancelSender, connection::Connection, signals},
    store::{batch_results::BatchResult, batches::BatchFilter, connection::Store, error::StoreError},
};
use tokio::{sync::watch, time::timeout};
use tracing::error;

use super::watches::Watches;
use crate::{archive::PageCursor, auth::caller::Caller, error::ApiError};

/// Knows what batches there are. Cheap to clone.
#[derive(Clone)]
pub struct BatchArchive {
    store: Store,
    connection: Connection,
    cancels: CancelSender,
    watches: Watches,
    lifecycle: Lifecycle,
}

/// A page of a list.
pub struct BatchPage {
    /// Newest first.
    pub batches: Vec<Batch>,
    /// Where the next page begins, if there is one.
    pub next: Option<PageCursor>,
}

impl BatchArchive {
    /// An archive of what is in `store`; workers are told on `connection` of what is stopped.
    pub fn new(store: Store, connection: Connection, lifecycle: Lifecycle) -> Self {
        let watches = Watches::new(store.clone(), lifecycle.clone());
        Self { store, cancels: CancelSender::new(connection.clone()), connection, watches, lifecycle }
    }

    /// The batch `id`, if `caller` may see it: a key that is limited to agents sees those that it has made.
    ///
    /// # Errors
    /// [`ApiError::BatchNotFound`] for whatever is not there or not the caller's; the two cannot be told apart.
    pub async fn find(&self, caller: &Caller, id: BatchId) -> Result<Batch, ApiError> {
        let found = self.store.batch(id).await.map_err(|error| unavailable(&error))?;
        let own = found.filter(|batch| batch.account == caller.account.id);
        own.filter(|batch| caller.key.agents.is_none() || batch.key == caller.key.id).ok_or(ApiError::BatchNotFound)
    }

    /// The batch `id` once it has ended, or as it stands after `wait`.
    ///
    /// # Errors
    /// As for [`BatchArchive::find`].
    pub async fn wait(&self, caller: &Caller, id: BatchId, wait: Duration) -> Result<Batch, ApiError> {
        let batch = self.find(caller, id).await?;
        if batch.status.is_terminal() || wait.is_zero() {
            return Ok(batch);
        }
        let mut followed = self.watches.follow(batch);
        let ended = async {
            let ended = followed.wait_for(|batch| batch.status.is_terminal()).await;
            ended.ok().map(|batch| batch.clone())
        };
        let ended = tokio::select! {
            ended = timeout(wait, ended) => ended.ok().flatten(),
            // Whoever waits here asks another gateway.
            () = self.lifecycle.stopping() => None,
        };
        match ended {
            Some(batch) => Ok(batch),
            None => self.find(caller, id).await,
        }
    }

    /// How the batch `id` stands from now on.
    ///
    /// # Errors
    /// As for [`BatchArchive::find`].
    pub async fn follow(&self, caller: &Caller, id: BatchId) -> Result<watch::Receiver<Batch>, ApiError> {
        Ok(self.watches.follow(self.find(caller, id).await?))
    }

    /// The newest batches that pass `filter` and that `caller` may see.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn list(&self, caller: &Caller, filter: BatchFilter, limit: usize) -> Result<BatchPage, ApiError> {
        let own = caller.key.agents.as_ref().map(|_| caller.key.id);
        let listed = self.store.batches(caller.account.id, &BatchFilter { key: own, ..filter }, limit).await;
        let (batches, has_more) = listed.map_err(|error| unavailable(&error))?;
        let next = batches.last().filter(|_| has_more).map(|last| PageCursor(last.id.0));
        Ok(BatchPage { batches, next })
    }

    /// The next lines of the batch `id` that ended after the one with the place `after`, and came to `status`.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn results(
        &self,
        id: BatchId,
        after: u64,
        status: Option<MessageStatus>,
        limit: usize,
    ) -> Result<Vec<BatchResult>, ApiError> {
        self.store.batch_results(id, after, status, limit).await.map_err(|error| unavailable(&error))
    }

    /// Stops the batch `id`: when this returns, none of its lines that has not ended will count as anything else than
    /// cancelled.
    ///
    /// # Errors
    /// As for [`BatchArchive::find`]; 409 when it has ended.
    pub async fn cancel(&self, caller: &Caller, id: BatchId) -> Result<Batch, ApiError> {
        self.find(caller, id).await?;
        // Not in the request's own task: a caller who hangs up in between must not leave it half done.
        let stopping = self.lifecycle.spawn(self.clone().stop(id));
        let stopped = stopping.await.map_err(|_| ApiError::Internal)?;
        match stopped.map_err(|error| unavailable(&error))? {
            Some(batch) => Ok(batch),
            None => Err(ApiError::BatchEnded(id, self.find(caller, id).await?.status)),
        }
    }

    /// Stops it and tells everybody; `None` when it had ended.
    async fn stop(self, id: BatchId) -> Result<Option<Batch>, StoreError> {
        let stopped = self.store.cancel_batch(id, Millis::now()).await?;
        if stopped.is_some() {
            self.cancels.tell_batch(id).await;
            signals::wake_deliveries(&self.connection).await;
        }
        Ok(stopped)
    }
}

fn unavailable(error: &StoreError) -> ApiError {
    error!(%error, "could not look into the store for batches");
    ApiError::StoreUnavailable
}
