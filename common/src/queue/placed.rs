//! What gateways tell each other about accounts and slot queues, so that two accounts are not given the same one.

use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{connection::Connection, error::QueueError, signals::subscribe, subjects};
use crate::domain::{
    ids::{AccountId, GatewayId},
    job::Lane,
};

/// An account was given a slot queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The account.
    pub account: AccountId,
    /// In which lane.
    pub lane: Lane,
    /// Which of the lane's queues.
    pub slot: u8,
}

/// A gateway's ear for what others have given.
pub struct PlacedReceiver {
    subscriber: Subscriber,
    own: String,
}

impl PlacedReceiver {
    /// Subscribes in the name of `gateway`.
    ///
    /// # Errors
    /// When the client does not take the subscription in time.
    pub async fn subscribe(connection: &Connection, gateway: GatewayId) -> Result<Self, QueueError> {
        let subscriber = subscribe(connection, subjects::SLOTS_PLACED.to_owned()).await?;
        Ok(Self { subscriber, own: subjects::slots_placed(gateway) })
    }

    /// The next thing that another gateway has given; `None` when the connection was closed.
    pub async fn next(&mut self) -> Option<Placed> {
        loop {
            let message = self.subscriber.next().await?;
            if message.subject.as_str() != self.own
                && let Ok(placed) = serde_json::from_slice(&message.payload)
            {
                return Some(placed);
            }
        }
    }
}

/// Tells the other gateways in the name of `gateway`. Best effort: who does not hear it may choose the same queue.
pub async fn tell(connection: &Connection, gateway: GatewayId, placed: Placed) {
    let Ok(payload) = serde_json::to_vec(&placed) else { return };
    let sent = connection.client.publish(subjects::slots_placed(gateway), payload.into());
    let _ = timeout(Duration::from_secs(1), sent).await;
}
