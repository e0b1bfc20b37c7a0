//! What a worker says about a job that others have put on the queue, here or elsewhere.

use common::{
    domain::ids::{AccountId, MessageId},
    lifecycle::Lifecycle,
};
use tokio::time::{Instant, sleep_until};

use super::{answer::DispatchError, frames::Heard};
use crate::follow::{
    cursor::Step,
    follower::{Follower, TooSlow},
    hub::Hub,
};

/// A job that is followed.
pub(super) struct Followed {
    /// Whose it is.
    pub(super) account: AccountId,
    /// The job.
    pub(super) id: MessageId,
    /// What it says.
    pub(super) follower: Follower,
    /// Where its end is.
    pub(super) hub: Hub,
    /// Until when that is of use.
    pub(super) until: Instant,
    /// Whether this process goes on.
    pub(super) lifecycle: Lifecycle,
}

impl Followed {
    /// The next thing that is said.
    ///
    /// # Errors
    /// When there is no time left.
    pub(super) async fn next(&mut self) -> Result<Heard, DispatchError> {
        let step = tokio::select! {
            step = self.follower.next() => step,
            () = sleep_until(self.until) => return self.end(Instant::now()).await,
            () = self.lifecycle.aborting() => return Err(DispatchError::Timeout { id: self.id }),
        };
        match step {
            Ok(Some(Step::Queued | Step::Started { .. })) => Ok(Heard::Nothing),
            Ok(Some(Step::Delta { position, text })) => {
                Ok(Heard::Delta { attempt: position.attempt, at: position.at - text.len(), text })
            }
            Ok(Some(Step::Restarted { position })) => {
                Ok(Heard::Delta { attempt: position.attempt, at: 0, text: String::new() })
            }
            Ok(Some(Step::End { outcome, .. })) => Ok(Heard::Ended((*outcome).clone(), None)),
            // The rest is in the end.
            Ok(None) | Err(TooSlow) => self.end(self.until).await,
        }
    }

    async fn end(&self, until: Instant) -> Result<Heard, DispatchError> {
        match self.hub.end(self.account, self.id, until).await {
            Some(outcome) => Ok(Heard::Ended(outcome, None)),
            None => Err(DispatchError::Timeout { id: self.id }),
        }
    }
}
