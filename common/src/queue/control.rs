//! What an operator's command tells the running gateways.

use std::{collections::BTreeSet, time::Duration};

use super::{
    config::{QueueConfig, QueueRole, StreamLimits},
    connection::Connection,
    dead::{self, DeadLetter},
    error::QueueError,
    signals::{self, Changed},
    streams,
};
use crate::domain::ids::GatewayId;

/// How long a command waits for NATS.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A command's way to the queue.
pub struct Control {
    connection: Connection,
}

impl Control {
    /// Connects as the admin.
    ///
    /// # Errors
    /// When NATS cannot be reached within 3 s.
    pub async fn connect(config: &QueueConfig) -> Result<Self, QueueError> {
        debug_assert_eq!(config.role, QueueRole::Admin);
        let connection = Connection::open(config).await?;
        if connection.wait_until_up(CONNECT_LIMIT).await {
            return Ok(Self { connection });
        }
        Err(QueueError::TimedOut { doing: "connecting", seconds: CONNECT_LIMIT.as_secs() })
    }

    /// Tells every running gateway that something of `kind` has changed, and waits for at most `wait` until
    /// all of `expected` have confirmed. Returns those that have.
    pub async fn announce(
        &self,
        kind: Changed,
        expected: &BTreeSet<GatewayId>,
        wait: Duration,
    ) -> Result<BTreeSet<GatewayId>, QueueError> {
        signals::announce(&self.connection, kind, expected, wait).await
    }

    /// The dead letters, oldest first, at most `limit`.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        dead::list(&self.connection, limit).await
    }

    /// Makes or alters the streams and consumers.
    pub async fn migrate(&self, limits: &StreamLimits) -> Result<(), QueueError> {
        streams::migrate(&self.connection, limits).await
    }

    /// Sends what is buffered and closes.
    pub async fn close(self) {
        self.connection.close(Duration::from_secs(1)).await;
    }
}
