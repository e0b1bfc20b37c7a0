//! What the commands work with: the store, the output, and the line to running gateways.

use std::{collections::BTreeSet, time::Duration};

use common::{
    domain::{account::Account, ids::GatewayId},
    env::EnvError,
    queue::{
        config::{QueueConfig, QueueRole},
        control::Control,
        signals::Changed,
    },
    store::{
        connection::{Store, StoreConfig},
        gateways::LiveGateway,
    },
};

use super::{
    error::AdminError,
    output::{Output, with_causes},
};

/// An operator at work on the database.
pub struct Admin {
    /// The database: the truth about accounts, keys and agents.
    pub store: Store,
    /// Where results go.
    pub output: Output,
    queue: QueueConfig,
}

impl Admin {
    /// Opens the database that the environment names and brings its tables up to date: whichever of gateway and
    /// operator comes first makes them.
    pub async fn connect(output: &Output) -> Result<Self, AdminError> {
        let queue = queue_config()?;
        let store = Store::connect(&StoreConfig::from_environment()?).await?;
        store.migrate().await?;
        Ok(Self { store, output: output.clone(), queue })
    }

    /// The account of that name or id.
    pub async fn account(&self, name_or_id: &str) -> Result<Account, AdminError> {
        self.store.account_named(name_or_id).await?.ok_or_else(|| AdminError::no_such("account", name_or_id))
    }

    /// Tells running gateways of a change. It is already made: when they cannot be told, they notice later.
    pub async fn announce(&self, changed: Changed) {
        if let Err(error) = self.announce_and_wait(changed, Duration::ZERO).await {
            self.output.warn(&format!("the change is made, but {}; {NOTICE_LATER}", with_causes(&error)));
        }
    }

    /// Like [`Admin::announce`], and waits up to `wait` until every gateway that runs has confirmed.
    ///
    /// # Errors
    /// When they cannot be told.
    pub async fn announce_and_wait(&self, changed: Changed, wait: Duration) -> Result<Confirmations, AdminError> {
        let live = self.store.live_gateways().await?;
        let expected: BTreeSet<GatewayId> = live.iter().map(|gateway| gateway.id).collect();
        let control = Control::connect(&self.queue).await?;
        let confirmed = control.announce(changed, &expected, wait).await;
        control.close().await;
        let confirmed = confirmed?;
        let missing = live.into_iter().filter(|gateway| !confirmed.contains(&gateway.id)).collect();
        Ok(Confirmations { confirmed, missing })
    }
}

/// What running gateways said to an announcement.
#[derive(Debug)]
pub struct Confirmations {
    /// Those that act on the change.
    pub confirmed: BTreeSet<GatewayId>,
    /// Those that run, or did some seconds ago, and did not say so in time.
    pub missing: Vec<LiveGateway>,
}

/// What a change that could not be announced means.
pub const NOTICE_LATER: &str = "running gateways notice within 5 s (their FRONTDESK_CACHE_TTL)";

/// How the operator reaches NATS.
pub fn queue_config() -> Result<QueueConfig, EnvError> {
    QueueConfig::from_environment(QueueRole::Admin)
}
