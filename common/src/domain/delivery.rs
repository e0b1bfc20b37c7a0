//! Deliveries: one event on its way to one receiver, with every try.

use std::{fmt, str::FromStr};

use super::{
    event::EventKind,
    ids::{AccountId, BatchId, DeliveryId, EndpointId, MessageId},
    time::Millis,
};

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    /// To be tried, now or later.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Every try failed.
    Failed,
    /// Given up untried or between tries: its endpoint was switched off or removed.
    Dropped,
}

/// A status that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("unknown delivery status `{0}`")]
pub struct UnknownDeliveryStatus(String);

impl DeliveryStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Failed, Self::Dropped];

    /// The name that bodies and rows use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for DeliveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DeliveryStatus {
    type Err = UnknownDeliveryStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.name() == text).ok_or_else(|| UnknownDeliveryStatus(text.to_owned()))
    }
}

/// One event for one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its identifier.
    pub id: DeliveryId,
    /// Whose it is.
    pub account: AccountId,
    /// The message that the event is of.
    pub message: Option<MessageId>,
    /// The batch that the event is of; a test is of neither.
    pub batch: Option<BatchId>,
    /// What is told.
    pub event: EventKind,
    /// The endpoint that is told; none for the callback of the message.
    pub endpoint: Option<EndpointId>,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// How often it was tried, since it was made.
    pub tries: u32,
    /// How many tries of the schedule have failed: 0 for a new one and for one that is sent again by hand.
    pub step: u32,
    /// When it is tried next, while it is pending.
    pub next_at: Millis,
    /// When the event happened.
    pub created_at: Millis,
}

/// One try of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Counts from 1.
    pub n: u32,
    /// When it began.
    pub at: Millis,
    /// The status that the receiver answered with, if it did.
    pub status: Option<u16>,
    /// What went wrong, in a few words for the endpoint's owner.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_name() {
        for status in DeliveryStatus::ALL {
            assert_eq!(status.name().parse::<DeliveryStatus>().expect("own name"), status);
        }
        assert!("lost".parse::<DeliveryStatus>().is_err());
    }
}
