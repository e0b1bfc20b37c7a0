//! A message as it was found: in the database, or on the queue before it has a row.

use common::{
    domain::{ids::AgentId, job::Job, message::MessageStatus, object::MessageObject, reply::Outcome},
    store::stored::StoredMessage,
};

use crate::auth::caller::Caller;

/// A message as it was found.
pub enum Found {
    /// It has a row.
    Stored(Box<StoredMessage>),
    /// It is on the queue, and has no row yet.
    OnQueue(Box<Job>),
}

impl Found {
    /// Where it stands.
    pub fn status(&self) -> MessageStatus {
        match self {
            Self::Stored(message) => message.status,
            Self::OnQueue(_) => MessageStatus::Queued,
        }
    }

    /// The message as its caller sees it.
    pub fn object(self) -> MessageObject {
        match self {
            Self::Stored(message) => message.object(),
            Self::OnQueue(job) => MessageObject::queued(&job),
        }
    }

    /// Who is to answer it.
    pub fn agent(&self) -> AgentId {
        match self {
            Self::Stored(message) => message.agent,
            Self::OnQueue(job) => job.agent,
        }
    }

    /// Whether its texts are gone.
    pub(super) fn is_purged(&self) -> bool {
        matches!(self, Self::Stored(message) if message.purged_at.is_some())
    }

    /// How it ended, taken out of it.
    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        match self {
            Self::Stored(message) => message.outcome.take(),
            Self::OnQueue(_) => None,
        }
    }

    /// Whether it is of `caller`'s account.
    pub(super) fn belongs_to(&self, caller: &Caller) -> bool {
        match self {
            Self::Stored(message) => message.account == caller.account.id,
            Self::OnQueue(job) => job.account == caller.account.id,
        }
    }
}
