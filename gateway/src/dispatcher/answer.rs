//! How waiting for a message can come out.

use common::domain::{ids::MessageId, reply::Outcome, time::Millis};

/// How a message ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The message.
    pub id: MessageId,
    /// When it was accepted.
    pub created_at: Millis,
    /// Its end; a completed one has its content.
    pub outcome: Outcome,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The account has nothing left to spend. Nothing was accepted.
    #[error("the account has no credits left")]
    InsufficientCredits,
    /// This gateway is stopping. Nothing was accepted.
    #[error("the gateway is stopping")]
    Draining,
    /// The account has as many unfinished jobs as it may have, so many. Nothing was accepted.
    #[error("the account has {0} unfinished jobs, as many as it may have")]
    AccountQueueFull(u64),
    /// The job stream is full. Nothing was accepted.
    #[error("the queue is full")]
    QueueFull,
    /// The job is larger than the queue takes. Nothing was accepted.
    #[error("the request is too large for the queue")]
    TooLarge,
    /// The queue cannot be reached.
    #[error("message {id} could not be handed to the queue")]
    Unreachable {
        /// The message.
        id: MessageId,
        /// `Some(false)`: certainly not taken. `None`: the queue did not say.
        accepted: Option<bool>,
    },
    /// The job goes on, but nobody waits for it any more.
    #[error("message {id} was not answered in time")]
    Timeout {
        /// The message.
        id: MessageId,
    },
    /// A stream that ended without an answer before its first piece of text.
    #[error("message {} ended as {}", .0.id, .0.outcome.status)]
    Ended(Box<Answer>),
}

impl DispatchError {
    /// What it says of an id that an earlier request took: that one may have been accepted.
    pub fn of_repeat(self) -> Self {
        match self {
            Self::Unreachable { id, .. } => Self::Unreachable { id, accepted: None },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_knows_of_a_repeat_that_nothing_was_accepted() {
        let id = MessageId::new();
        let refused = DispatchError::Unreachable { id, accepted: Some(false) };
        assert!(matches!(refused.of_repeat(), DispatchError::Unreachable { accepted: None, .. }));
        assert!(matches!(DispatchError::QueueFull.of_repeat(), DispatchError::QueueFull));
    }
}
