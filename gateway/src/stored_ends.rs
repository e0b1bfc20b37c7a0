//! The ends of messages as the store has them: what every wake-up can fall back on.

use std::{future::Future, time::Duration};

use common::{
    domain::{ids::MessageId, reply::Outcome},
    lifecycle::Lifecycle,
    queue::connection::Link,
    sabotage::{self, Bug},
    store::{connection::Store, error::StoreError},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

/// How long the last look before a time-out may take.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How often, and after how much waiting, the store is asked for ends whose frame was lost.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What has the ends of messages.
pub trait HasEnds: Send + Sync {
    /// The ends of those of `ids` that have ended.
    fn outcomes(&self, ids: &[MessageId])
    -> impl Future<Output = Result<Vec<(MessageId, Outcome)>, StoreError>> + Send;
}

impl HasEnds for Store {
    async fn outcomes(&self, ids: &[MessageId]) -> Result<Vec<(MessageId, Outcome)>, StoreError> {
        Self::outcomes(self, ids).await
    }
}

/// Finds ends in the store. Cheap to clone.
#[derive(Clone)]
pub struct StoredEnds<S = Store> {
    store: S,
}

impl<S: HasEnds> StoredEnds<S> {
    /// Looks into `store`.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// The end of a message, if the store has it and can be asked.
    pub async fn find(&self, id: MessageId) -> Option<Outcome> {
        match self.store.outcomes(&[id]).await {
            Ok(found) => found.into_iter().next().map(|(_, outcome)| outcome),
            Err(error) => {
                warn!(message.id = %id, %error, "could not look for an answer in the store");
                None
            }
        }
    }

    /// The same within 1 s: a reply may have been lost on its way, and the store has the last word before a time-out.
    pub async fn last_look(&self, id: MessageId) -> Option<Outcome> {
        if sabotage::has(Bug::NoReread) {
            return None;
        }
        let found = timeout(LAST_LOOK, self.find(id)).await.ok().flatten();
        found.inspect(|_| info!(message.id = %id, "found an answer at the deadline whose reply was missed"))
    }

    /// Looks now and then for those who wait for a while, and for all when `link` is up again: a core message that was
    /// sent while it was down is gone. `waiting` names those who wait for at least so long, `tell` is given each end
    /// that is there. Runs until the lifecycle aborts.
    pub async fn look_after(
        &self,
        mut link: watch::Receiver<Link>,
        lifecycle: &Lifecycle,
        waiting: impl Fn(Duration) -> Vec<MessageId>,
        tell: impl Fn(MessageId, Outcome),
    ) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let patience = tokio::select! {
                _ = ticks.tick() => LOOK_EVERY,
                Ok(()) = link.changed() => {
                    if !link.borrow_and_update().up { continue }
                    Duration::ZERO
                }
                () = lifecycle.aborting() => return,
            };
            let waiting = waiting(patience);
            if waiting.is_empty() || sabotage::has(Bug::NoReread) {
                continue;
            }
            match self.store.outcomes(&waiting).await {
                Ok(found) => {
                    for (id, outcome) in found {
                        info!(message.id = %id, "found an answer whose reply was missed");
                        tell(id, outcome);
                    }
                }
                Err(error) => warn!(%error, waiting = waiting.len(), "could not look for answers in the store"),
            }
        }
    }
}
