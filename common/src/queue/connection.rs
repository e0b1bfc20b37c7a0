//! One connection to NATS, and whether it is up.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, jetstream};
use rand::RngExt as _;
use tokio::{sync::watch, time::timeout};
use tracing::{error, info, warn};

use super::{config::QueueConfig, error::QueueError};

/// How long one request to the server may take. A frozen server still looks connected: only this tells.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// The write buffer of the client takes this many commands while disconnected, and then blocks.
const CLIENT_CAPACITY: usize = 4096;

/// The state of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up now.
    pub up: bool,
    /// How often it has come up: a change means that replies may have been missed.
    pub epoch: u64,
    /// Whether it was closed by [`Connection::close`].
    pub closed: bool,
}

/// A connection that comes back by itself. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    link: watch::Receiver<Link>,
}

impl Connection {
    /// Begins to connect and returns at once; [`Connection::wait_until_up`] waits for it.
    ///
    /// # Errors
    /// [`QueueError::Connect`] for an address that cannot be one.
    pub async fn open(config: &QueueConfig) -> Result<Self, QueueError> {
        let (link_tx, link) = watch::channel(Link::default());
        let client = options(config, link_tx)
            .connect(config.url.as_str())
            .await
            .map_err(|source| QueueError::Connect { url: without_credentials(&config.url), source })?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(REQUEST_TIMEOUT)
            .max_ack_inflight(100_000)
            .backpressure_on_inflight(false)
            .build(client.clone());
        Ok(Self { client, jetstream, link })
    }

    /// The state of the connection, to look at and to wait for.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Whether it is up now.
    pub fn is_up(&self) -> bool {
        self.link.borrow().up
    }

    /// Waits until it is up, for at most `limit`. Whether it is.
    pub async fn wait_until_up(&self, limit: Duration) -> bool {
        let mut link = self.link.clone();
        let up = async { link.wait_for(|link| link.up).await.is_ok() };
        timeout(limit, up).await.unwrap_or(false)
    }

    /// Fails when the server that we are connected to is older than 2.11.
    pub fn require_version(&self) -> Result<(), QueueError> {
        if self.client.is_server_compatible(2, 11, 0) {
            return Ok(());
        }
        Err(QueueError::TooOld { found: self.client.server_info().version })
    }

    /// Sends everything that is still buffered, then closes. Acks that are not followed by this are lost.
    pub async fn close(&self, limit: Duration) {
        let mut link = self.link.clone();
        let closed = async {
            if self.client.drain().await.is_ok() {
                let _ = link.wait_for(|link| link.closed).await;
            }
        };
        if timeout(limit, closed).await.is_err() {
            warn!("the connection to NATS could not be drained in time");
        }
    }
}

fn options(config: &QueueConfig, link: watch::Sender<Link>) -> ConnectOptions {
    let link = Arc::new(link);
    let role = config.role.name();
    let options = ConnectOptions::new()
        .name(format!("frontdesk-{role}"))
        .custom_inbox_prefix(format!("_INBOX.{role}"))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(Duration::from_secs(3))
        .request_timeout(Some(REQUEST_TIMEOUT))
        .client_capacity(CLIENT_CAPACITY)
        .retry_on_initial_connect()
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            note(&link, &event);
            std::future::ready(())
        });
    match &config.credentials {
        Some((user, password)) => options.user_and_password(user.clone(), password.clone()),
        None => options,
    }
}

/// At once, then a little longer each time up to a second, spread so that clients do not come back in step.
fn reconnect_delay(tries: usize) -> Duration {
    if tries <= 1 {
        return Duration::ZERO;
    }
    let longest = 1_000.min(10 << tries.min(7));
    Duration::from_millis(rand::rng().random_range(longest / 2..=longest))
}

fn note(link: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            link.send_modify(|link| *link = Link { up: true, epoch: link.epoch + 1, closed: false });
            info!("connected to NATS");
        }
        Event::Disconnected => {
            link.send_modify(|link| link.up = false);
            warn!("lost the connection to NATS; trying again");
        }
        Event::Closed => link.send_modify(|link| *link = Link { up: false, closed: true, ..*link }),
        Event::SlowConsumer(_) | Event::ServerError(_) => error!(%event, "NATS reports a fault"),
        Event::ClientError(_) => warn!(%event, "could not reach NATS"),
        Event::LameDuckMode | Event::Draining => info!(%event, "NATS connection"),
    }
}

/// An address as it may stand in logs and errors.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show_in_addresses() {
        assert_eq!(without_credentials("nats://user:secret@host:4222"), "nats://host:4222");
        assert_eq!(without_credentials("host:4222"), "host:4222");
    }

    #[test]
    fn reconnecting_waits_at_most_a_second() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        for tries in 2..100 {
            assert!(reconnect_delay(tries) <= Duration::from_secs(1));
        }
    }
}
