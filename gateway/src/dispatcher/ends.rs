//! From a wake-up to the end that it tells of.

use std::time::Duration;

use common::{
    domain::{
        ids::MessageId,
        reply::{Frame, FrameBody, Outcome},
    },
    lifecycle::Lifecycle,
    retry::Pauses,
    store::connection::Store,
};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::answer::DispatchError;
use crate::{
    stored_ends::{HasEnds, StoredEnds},
    waiter::{CallWaiter, Wake},
};

/// How long an answer may take out of the store whose end was told when its caller's time was nearly up.
const LAST_READ: Duration = Duration::from_secs(1);

/// Finds the ends that callers wait for. Cheap to clone.
#[derive(Clone)]
pub struct Ends<S = Store>(StoredEnds<S>);

impl<S: HasEnds> Ends<S> {
    /// Falls back on `stored`.
    pub fn new(stored: StoredEnds<S>) -> Self {
        Self(stored)
    }

    /// Waits until `waiter` is woken or the end of `id` is found, at most until `until`.
    ///
    /// # Errors
    /// [`DispatchError::Timeout`] when there is no more time, here or for this caller.
    pub async fn wake(
        &self,
        waiter: &mut CallWaiter,
        id: MessageId,
        until: Instant,
        lifecycle: &Lifecycle,
    ) -> Result<Wake, DispatchError> {
        tokio::select! {
            wake = waiter.wait() => Ok(wake),
            // Boxed: what is seldom needed takes no room of all who wait.
            () = sleep_until(until) => Box::pin(self.last_look(id)).await,
            () = lifecycle.aborting() => Err(DispatchError::Timeout { id }),
        }
    }

    /// The store has the last word before a time-out.
    pub(super) async fn last_look(&self, id: MessageId) -> Result<Wake, DispatchError> {
        let found = self.0.last_look(id).await;
        found.map(|outcome| Wake::Stored(Box::new(outcome))).ok_or(DispatchError::Timeout { id })
    }

    /// The end that `wake` tells of, with its content; a large one is read from the store.
    ///
    /// # Errors
    /// [`DispatchError::Timeout`] when it could not be read in time.
    pub async fn outcome(&self, id: MessageId, wake: Wake, until: Instant) -> Result<Outcome, DispatchError> {
        let told = match wake {
            Wake::Stored(outcome) => Some(*outcome),
            Wake::Frame(bytes) => match serde_json::from_slice::<Frame>(&bytes) {
                Ok(Frame { body: FrameBody::Terminal { outcome }, .. }) => Some(outcome),
                _ => None,
            },
        };
        match told {
            Some(outcome) if !outcome.content_is_elsewhere() => Ok(outcome),
            _ => Box::pin(self.read_until(id, until)).await,
        }
    }

    /// Reads the end from the store, again and again while the store cannot be reached. Returns by `until`, or 1 s after
    /// its begin when that is later: a single look may take long, where the database is frozen.
    pub(super) async fn read_until(&self, id: MessageId, until: Instant) -> Result<Outcome, DispatchError> {
        let until = until.max(Instant::now() + LAST_READ);
        timeout_at(until, self.read(id)).await.map_err(|_| DispatchError::Timeout { id })
    }

    async fn read(&self, id: MessageId) -> Outcome {
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1), None);
        loop {
            if let Some(outcome) = self.0.find(id).await {
                return outcome;
            }
            sleep(pauses.next_pause().unwrap_or_default()).await;
        }
    }
}
