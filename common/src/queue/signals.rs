//! Wake-ups between processes: whatever they announce is already stored.

use std::{collections::BTreeSet, time::Duration};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    connection::Connection,
    error::{QueueError, within},
    subjects,
};
use crate::domain::ids::GatewayId;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Accounts, their channels or their credits.
    Accounts,
    /// Keys.
    Keys,
    /// Agents.
    Agents,
}

impl Changed {
    const ALL: [Self; 3] = [Self::Accounts, Self::Keys, Self::Agents];

    fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Keys => "keys",
            Self::Agents => "agents",
        }
    }

    fn subject(self) -> String {
        subjects::invalidate(self.name())
    }

    fn of(subject: &str) -> Option<Self> {
        let name = subject.rsplit('.').next()?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A gateway's ear for changes.
pub struct ChangeReceiver {
    connection: Connection,
    subscriber: Subscriber,
    gateway: GatewayId,
}

/// One change, to be confirmed once it is acted on.
pub struct Change {
    /// What has changed.
    pub kind: Changed,
    reply: Option<async_nats::Subject>,
}

impl ChangeReceiver {
    /// Subscribes in the name of `gateway`.
    pub async fn subscribe(connection: &Connection, gateway: GatewayId) -> Result<Self, QueueError> {
        let subscriber = subscribe(connection, subjects::INVALIDATE.to_owned()).await?;
        Ok(Self { connection: connection.clone(), subscriber, gateway })
    }

    /// The next change; `None` when the connection was closed.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let message = self.subscriber.next().await?;
            if let Some(kind) = Changed::of(&message.subject) {
                return Some(Change { kind, reply: message.reply });
            }
        }
    }

    /// Tells whoever announced `change` that this gateway has acted on it.
    pub async fn confirm(&self, change: Change) {
        if let Some(reply) = change.reply {
            let name = self.gateway.to_string();
            let _ = timeout(Duration::from_secs(1), self.connection.client.publish(reply, name.into())).await;
        }
    }
}

/// Tells every running gateway that something of `kind` has changed, and waits for at most `wait` until all of
/// `expected` have confirmed. Returns those that have.
///
/// # Errors
/// When they cannot be told.
pub async fn announce(
    connection: &Connection,
    kind: Changed,
    expected: &BTreeSet<GatewayId>,
    wait: Duration,
) -> Result<BTreeSet<GatewayId>, QueueError> {
    let doing = "telling the gateways";
    let client = &connection.client;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|e| QueueError::refused(doing)(e.into()))?;
    client
        .publish_with_reply(kind.subject(), inbox, Bytes::new())
        .await
        .map_err(|e| QueueError::refused(doing)(e.into()))?;
    let until = Instant::now() + wait;
    let mut confirmed = BTreeSet::new();
    while !expected.is_subset(&confirmed)
        && let Ok(Some(answer)) = timeout_at(until, answers.next()).await
    {
        confirmed.extend(std::str::from_utf8(&answer.payload).ok().and_then(|id| id.parse::<GatewayId>().ok()));
    }
    Ok(confirmed)
}

/// What one gateway's limits have counted since it last told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LimitCounts {
    /// Bucket and count.
    pub counts: Vec<(String, u32)>,
}

/// Tells the other gateways what this one has counted, and hears what they have.
pub struct LimitGossip {
    connection: Connection,
    subscriber: Subscriber,
    gateway: GatewayId,
}

impl LimitGossip {
    /// Subscribes in the name of `gateway`.
    pub async fn subscribe(connection: &Connection, gateway: GatewayId) -> Result<Self, QueueError> {
        let subscriber = subscribe(connection, subjects::LIMITS.to_owned()).await?;
        Ok(Self { connection: connection.clone(), subscriber, gateway })
    }

    /// Tells the others. Best effort; nothing is said while the connection is down.
    pub async fn tell(&self, counts: &LimitCounts) {
        if counts.counts.is_empty() || !self.connection.is_up() {
            return;
        }
        let Ok(payload) = serde_json::to_vec(counts) else { return };
        let subject = subjects::limits(self.gateway);
        let _ = timeout(Duration::from_secs(1), self.connection.client.publish(subject, payload.into())).await;
    }

    /// What another gateway has counted; `None` when the connection was closed.
    pub async fn hear(&mut self) -> Option<LimitCounts> {
        let own = subjects::limits(self.gateway);
        loop {
            let message = self.subscriber.next().await?;
            if message.subject.as_str() != own
                && let Ok(counts) = serde_json::from_slice(&message.payload)
            {
                return Some(counts);
            }
        }
    }
}

/// A worker's ear for webhook deliveries that have become due.
pub struct DeliveryWakes(Subscriber);

impl DeliveryWakes {
    /// Subscribes.
    pub async fn subscribe(connection: &Connection) -> Result<Self, QueueError> {
        Ok(Self(subscribe(connection, subjects::DELIVERIES_WAKE.to_owned()).await?))
    }

    /// Waits until some have; `None` when the connection was closed.
    pub async fn next(&mut self) -> Option<()> {
        self.0.next().await.map(|_| ())
    }

    /// Forgets the wake-ups that are here already.
    pub fn drain(&mut self) {
        while let Some(Some(_)) = self.0.next().now_or_never() {}
    }
}

/// Tells the workers that webhook deliveries have become due. Best effort: they look by themselves as well.
pub async fn wake_deliveries(connection: &Connection) {
    let sent = connection.client.publish(subjects::DELIVERIES_WAKE, Bytes::new());
    let _ = timeout(Duration::from_secs(1), sent).await;
}

/// Hears `subject`.
pub(super) async fn subscribe(connection: &Connection, subject: String) -> Result<Subscriber, QueueError> {
    within(Duration::from_secs(10), "subscribing for signals", async {
        Ok(connection.client.subscribe(subject).await?)
    })
    .await
}
