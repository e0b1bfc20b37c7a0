//! The ends of messages as the store has them: what every wake-up can fall back on.

use std::time::Duration;

use common::{
    domain::{
        ids::MessageId,
        message::MessageStatus,
        reply::{Frame, FrameBody, Outcome},
    },
    retry::Pauses,
    store::connection::Store,
};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::answer::DispatchError;
use crate::waiter::Wake;

/// How long the last look before a time-out may take.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Finds ends in the store.
#[derive(Clone)]
pub struct Ends {
    store: Store,
}

impl Ends {
    /// Looks into `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// A reply may have been lost on its way: the store has the last word before a time-out.
    pub(super) async fn last_look(&self, id: MessageId) -> Result<Wake, DispatchError> {
        let looked = timeout(LAST_LOOK, self.stored(id)).await;
        match looked.ok().flatten() {
            Some(outcome) => {
                info!(message.id = %id, "found an answer at the deadline whose reply was missed");
                Ok(Wake::Stored(Box::new(outcome)))
            }
            None => Err(DispatchError::Timeout { id }),
        }
    }

    /// The end that `wake` tells of, with its content; a large one is read from the store.
    pub(super) async fn outcome(&self, id: MessageId, wake: Wake, until: Instant) -> Result<Outcome, DispatchError> {
        let told = match wake {
            Wake::Stored(outcome) => Some(*outcome),
            Wake::Frame(bytes) => match serde_json::from_slice::<Frame>(&bytes) {
                Ok(Frame { body: FrameBody::Terminal { outcome }, .. }) => Some(outcome),
                _ => None,
            },
        };
        match told {
            Some(outcome) if !content_is_missing(&outcome) => Ok(outcome),
            _ => self.read_until(id, until).await,
        }
    }

    /// Reads the end from the store, again and again while the store cannot be reached.
    pub(super) async fn read_until(&self, id: MessageId, until: Instant) -> Result<Outcome, DispatchError> {
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1), None);
        loop {
            if let Some(outcome) = self.stored(id).await {
                return Ok(outcome);
            }
            let pause = pauses.next_pause().unwrap_or_default();
            if Instant::now() + pause >= until {
                return Err(DispatchError::Timeout { id });
            }
            sleep(pause).await;
        }
    }

    async fn stored(&self, id: MessageId) -> Option<Outcome> {
        match self.store.outcomes(&[id]).await {
            Ok(found) => found.into_iter().next().map(|(_, outcome)| outcome),
            Err(error) => {
                warn!(message.id = %id, %error, "could not look for an answer in the store");
                None
            }
        }
    }
}

/// Whether a completed answer was too large for its frame.
pub(super) fn content_is_missing(outcome: &Outcome) -> bool {
    outcome.status == MessageStatus::Completed && outcome.content.is_none()
}
