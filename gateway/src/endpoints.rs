//! What callers do with their webhook endpoints: everything is stored, then told to the other processes.

use std::{collections::BTreeSet, time::Duration};

use common::{
    domain::{
        delivery::{Delivery, Try},
        endpoint::{Endpoint, OLD_SECRET_LIFE, Secrets},
        ids::{AccountId, DeliveryId, EndpointId},
        time::Millis,
    },
    outbound::guard::Guard,
    queue::{
        connection::Connection,
        signals::{self, Changed, wake_deliveries},
    },
    store::{
        connection::Store,
        delivery_log::Replayed,
        endpoints::{EndpointChange, EndpointSpec},
        error::StoreError,
    },
};
use tokio::time::timeout;
use tracing::{error, warn};

use crate::{auth::caller::Caller, error::ApiError};

/// How many endpoints an account may have: each makes a delivery of every message.
pub const MOST_ENDPOINTS: u64 = 50;
/// How long a change waits for the gateways that run to say that they know of it.
const CONFIRM_LIMIT: Duration = Duration::from_secs(1);

/// The webhook endpoints of all accounts.
pub struct Endpoints {
    store: Store,
    guard: Guard,
    connection: Connection,
}

impl Endpoints {
    /// Endpoints in `store`, whose addresses `guard` judges.
    pub fn new(store: Store, guard: Guard, connection: Connection) -> Self {
        Self { store, guard, connection }
    }

    /// Makes one. Messages that any gateway accepts from now on are told to it.
    ///
    /// # Errors
    /// When its address is refused, the account has too many, or the store cannot be asked.
    pub async fn create(&self, caller: &Caller, spec: &EndpointSpec) -> Result<Endpoint, ApiError> {
        let account = owner(caller)?;
        self.check(&spec.url).await?;
        let made = self.store.create_endpoint(account, spec, MOST_ENDPOINTS).await.map_err(|error| match error {
            StoreError::TooMany(_) => ApiError::TooManyEndpoints(MOST_ENDPOINTS),
            other => unavailable(other),
        })?;
        self.announce().await;
        Ok(made)
    }

    /// All of the account, oldest first.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Endpoint>, ApiError> {
        self.store.endpoints(owner(caller)?).await.map_err(unavailable)
    }

    /// One of them.
    pub async fn get(&self, caller: &Caller, id: EndpointId) -> Result<Endpoint, ApiError> {
        let found = self.store.endpoint(owner(caller)?, id).await.map_err(unavailable)?;
        found.ok_or(ApiError::EndpointNotFound)
    }

    /// Changes one; what is absent stays as it is.
    pub async fn change(&self, caller: &Caller, id: EndpointId, change: EndpointChange) -> Result<Endpoint, ApiError> {
        let account = owner(caller)?;
        if let Some(url) = &change.url {
            self.check(url).await?;
        }
        let changed = self.store.update_endpoint(account, id, &change).await.map_err(unavailable)?;
        let changed = changed.ok_or(ApiError::EndpointNotFound)?;
        self.announce().await;
        Ok(changed)
    }

    /// Removes one; what was on its way to it is dropped.
    pub async fn delete(&self, caller: &Caller, id: EndpointId) -> Result<(), ApiError> {
        let was_there = self.store.delete_endpoint(owner(caller)?, id).await.map_err(unavailable)?;
        if !was_there {
            return Err(ApiError::EndpointNotFound);
        }
        self.announce().await;
        Ok(())
    }

    /// Gives one a new secret; the one before signs too for a day.
    pub async fn rotate_secret(&self, caller: &Caller, id: EndpointId) -> Result<Secrets, ApiError> {
        let previous_until = Millis::now().plus(OLD_SECRET_LIFE);
        let rotated = self.store.rotate_endpoint_secret(owner(caller)?, id, previous_until).await;
        rotated.map_err(unavailable)?.ok_or(ApiError::EndpointNotFound)
    }

    /// Sends it a `webhook.test`, be it enabled or not.
    pub async fn test(&self, caller: &Caller, id: EndpointId) -> Result<Delivery, ApiError> {
        let account = owner(caller)?;
        let made = self.store.test_endpoint(account, id, Millis::now()).await.map_err(unavailable)?;
        let made = made.ok_or(ApiError::EndpointNotFound)?;
        wake_deliveries(&self.connection).await;
        let (delivery, _) = self.delivery(account, made).await?;
        Ok(delivery)
    }

    /// The deliveries to one, newest first, with all their tries: at most `limit`, older than `before`.
    pub async fn deliveries(
        &self,
        caller: &Caller,
        id: EndpointId,
        before: Option<DeliveryId>,
        limit: u64,
    ) -> Result<Vec<(Delivery, Vec<Try>)>, ApiError> {
        let endpoint = self.get(caller, id).await?;
        self.store.deliveries(endpoint.account, endpoint.id, before, limit).await.map_err(unavailable)
    }

    /// Sends a delivery again, from the beginning of its schedule; with what has become of it so far.
    pub async fn replay(&self, caller: &Caller, id: DeliveryId) -> Result<(Delivery, Vec<Try>), ApiError> {
        let account = owner(caller)?;
        match self.store.replay_delivery(account, id, Millis::now()).await.map_err(unavailable)? {
            Replayed::Again => {}
            Replayed::Disabled => return Err(ApiError::EndpointDisabled),
            Replayed::Missing => return Err(ApiError::DeliveryNotFound),
        }
        let replayed = self.delivery(account, id).await?;
        wake_deliveries(&self.connection).await;
        Ok(replayed)
    }

    async fn delivery(&self, account: AccountId, id: DeliveryId) -> Result<(Delivery, Vec<Try>), ApiError> {
        self.store.delivery(account, id).await.map_err(unavailable)?.ok_or(ApiError::DeliveryNotFound)
    }

    async fn check(&self, url: &str) -> Result<(), ApiError> {
        self.guard.check(url).await.map_err(|refusal| ApiError::BadRequest(format!("`url` {refusal}")))
    }

    /// Whether an account has endpoints is remembered by every gateway, as long as none is told otherwise.
    async fn announce(&self) {
        if !self.connection.is_up() {
            return warn!("the other gateways cannot be told of a changed endpoint; they notice later");
        }
        let told = async {
            let live = self.store.live_gateways().await.map_err(|error| error.to_string())?;
            let expected: BTreeSet<_> = live.into_iter().map(|gateway| gateway.id).collect();
            let announced = signals::announce(&self.connection, Changed::Accounts, &expected, CONFIRM_LIMIT).await;
            announced.map_err(|error| error.to_string())
        };
        match timeout(CONFIRM_LIMIT * 2, told).await {
            Ok(Ok(_)) => {}
            Ok(Err(reason)) => warn!(reason, "could not tell the other gateways of a changed endpoint"),
            Err(_) => warn!("could not tell the other gateways of a changed endpoint in time"),
        }
    }
}

/// Whose endpoints `caller` may see: an endpoint is told of every agent's messages, and so is not for a key that is
/// limited to some of them.
fn owner(caller: &Caller) -> Result<AccountId, ApiError> {
    match caller.key.agents {
        None => Ok(caller.account.id),
        Some(_) => Err(ApiError::KeyLimited),
    }
}

fn unavailable(error: StoreError) -> ApiError {
    error!(%error, "could not look after webhook endpoints");
    ApiError::StoreUnavailable
}
