//! What other processes tell this gateway: that something has changed, and what their limits have counted.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use common::{
    domain::ids::GatewayId,
    lifecycle::Lifecycle,
    queue::{
        connection::Connection,
        signals::{ChangeReceiver, Changed, LimitCounts, LimitGossip},
    },
    sabotage::{self, Bug},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{auth::authenticator::Authenticator, directory::Directory, rate_limit::RateLimiter};

/// How often gateways tell each other their counts: at 120 a minute in steady traffic this is under one request.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is remembered of the store, to be forgotten when it changes.
#[derive(Clone)]
pub struct Remembered {
    /// Accounts and keys.
    pub authenticator: Authenticator,
    /// Agents.
    pub directory: Directory,
}

impl Remembered {
    fn forget(&self, changed: Changed) {
        if sabotage::has(Bug::CacheKept) {
            return;
        }
        match changed {
            Changed::Accounts | Changed::Keys => self.authenticator.flush(),
            Changed::Agents => self.directory.flush(),
        }
    }

    fn forget_all(&self) {
        self.authenticator.flush();
        self.directory.flush();
    }
}

/// Subscribes and starts the tasks that listen.
pub async fn start(
    connection: &Connection,
    gateway: GatewayId,
    remembered: Remembered,
    limiter: Arc<RateLimiter>,
    lifecycle: &Lifecycle,
) -> Result<()> {
    let changes = ChangeReceiver::subscribe(connection, gateway).await?;
    let gossip = LimitGossip::subscribe(connection, gateway).await?;
    lifecycle.spawn_background(follow_changes(changes, connection.clone(), remembered, lifecycle.clone()));
    lifecycle.spawn_background(share_counts(gossip, limiter, lifecycle.clone()));
    Ok(())
}

/// Forgets what has changed, then says so. News that came while the connection was down are missed, so that a
/// reconnect forgets everything.
async fn follow_changes(
    mut changes: ChangeReceiver,
    connection: Connection,
    remembered: Remembered,
    lifecycle: Lifecycle,
) {
    let mut link = connection.link();
    loop {
        tokio::select! {
            change = changes.next() => {
                let Some(change) = change else { return };
                remembered.forget(change.kind);
                changes.confirm(change).await;
            }
            Ok(()) = link.changed() => remembered.forget_all(),
            () = lifecycle.aborting() => return,
        }
    }
}

async fn share_counts(mut gossip: LimitGossip, limiter: Arc<RateLimiter>, lifecycle: Lifecycle) {
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => gossip.tell(&LimitCounts { counts: limiter.take_counts() }).await,
            heard = gossip.hear() => match heard {
                Some(heard) => limiter.add_counts(&heard.counts),
                None => return,
            },
            () = lifecycle.aborting() => return,
        }
    }
}
