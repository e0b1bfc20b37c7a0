//! Events that webhooks tell of, and the callback that one message may bring along.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{batch::BatchStatus, message::MessageStatus};

/// What a webhook tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum EventKind {
    /// A message was answered.
    #[serde(rename = "message.completed")]
    MessageCompleted,
    /// A message ended without an answer.
    #[serde(rename = "message.failed")]
    MessageFailed,
    /// A message was stopped by its caller.
    #[serde(rename = "message.cancelled")]
    MessageCancelled,
    /// A message was not begun in time.
    #[serde(rename = "message.expired")]
    MessageExpired,
    /// Every line of a batch has ended.
    #[serde(rename = "batch.completed")]
    BatchCompleted,
    /// A batch was stopped by its caller.
    #[serde(rename = "batch.cancelled")]
    BatchCancelled,
    /// Somebody tries an endpoint out.
    #[serde(rename = "webhook.test")]
    WebhookTest,
}

/// An event's name that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown event `{0}` (known: message.completed, message.failed, message.cancelled, message.expired, \
     batch.completed, batch.cancelled, webhook.test)"
)]
pub struct UnknownEvent(String);

impl EventKind {
    /// Every event.
    pub const ALL: [Self; 7] = [
        Self::MessageCompleted,
        Self::MessageFailed,
        Self::MessageCancelled,
        Self::MessageExpired,
        Self::BatchCompleted,
        Self::BatchCancelled,
        Self::WebhookTest,
    ];

    /// The event of a message that has come to `status`; none while it has not ended.
    pub fn of(status: MessageStatus) -> Option<Self> {
        match status {
            MessageStatus::Queued | MessageStatus::InProgress => None,
            MessageStatus::Completed => Some(Self::MessageCompleted),
            MessageStatus::Failed => Some(Self::MessageFailed),
            MessageStatus::Cancelled => Some(Self::MessageCancelled),
            MessageStatus::Expired => Some(Self::MessageExpired),
        }
    }

    /// The event of a batch that has come to `status`; none while it has not ended.
    pub fn of_batch(status: BatchStatus) -> Option<Self> {
        match status {
            BatchStatus::Enqueuing | BatchStatus::InProgress | BatchStatus::Cancelling => None,
            BatchStatus::Completed => Some(Self::BatchCompleted),
            BatchStatus::Cancelled => Some(Self::BatchCancelled),
        }
    }

    /// Whether it is the end of a message.
    pub fn is_of_message(self) -> bool {
        matches!(self, Self::MessageCompleted | Self::MessageFailed | Self::MessageCancelled | Self::MessageExpired)
    }

    /// Whether it is the end of a batch.
    pub fn is_of_batch(self) -> bool {
        matches!(self, Self::BatchCompleted | Self::BatchCancelled)
    }

    /// The name that bodies and rows use.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageCompleted => "message.completed",
            Self::MessageFailed => "message.failed",
            Self::MessageCancelled => "message.cancelled",
            Self::MessageExpired => "message.expired",
            Self::BatchCompleted => "batch.completed",
            Self::BatchCancelled => "batch.cancelled",
            Self::WebhookTest => "webhook.test",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EventKind {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|event| event.name() == text).ok_or_else(|| UnknownEvent(text.to_owned()))
    }
}

/// Where the end of one message is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// The receiver's address, as the caller gave it.
    pub url: String,
    /// The events that are told; empty: every end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventKind>,
}

impl Callback {
    /// Whether it is told of `event`.
    pub fn wants(&self, event: EventKind) -> bool {
        self.events.is_empty() || self.events.contains(&event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_everywhere() {
        for event in EventKind::ALL {
            assert_eq!(event.name().parse::<EventKind>().expect("own name"), event);
            assert_eq!(serde_json::to_value(event).expect("json"), event.name());
        }
        assert!("message.begun".parse::<EventKind>().is_err());
    }

    #[test]
    fn ends_have_events_and_nothing_else_has() {
        for status in MessageStatus::ALL {
            assert_eq!(EventKind::of(status).is_some(), status.is_terminal(), "{status}");
            assert!(EventKind::of(status).is_none_or(EventKind::is_of_message));
        }
        for status in BatchStatus::ALL {
            assert_eq!(EventKind::of_batch(status).is_some(), status.is_terminal(), "{status}");
            assert!(EventKind::of_batch(status).is_none_or(EventKind::is_of_batch));
        }
    }

    #[test]
    fn a_callback_without_events_wants_every_end() {
        let mut callback = Callback { url: "https://example.com".to_owned(), events: Vec::new() };
        assert!(callback.wants(EventKind::MessageFailed));
        callback.events.push(EventKind::MessageCompleted);
        assert!(callback.wants(EventKind::MessageCompleted) && !callback.wants(EventKind::MessageFailed));
    }
}
