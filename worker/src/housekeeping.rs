//! Forgets what nobody will ask for any more.

use std::time::Duration;

use common::{domain::time::Millis, lifecycle::Lifecycle, store::connection::Store};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

/// How often a worker looks.
const EVERY: Duration = Duration::from_hours(1);
/// How long idempotency keys are kept: the contract's 24 hours.
const KEYS_LIFE: Duration = Duration::from_hours(24);
/// How long deliveries are kept that are over.
const DELIVERIES_LIFE: Duration = Duration::from_hours(30 * 24);

/// Looks once an hour until the lifecycle says stop. Workers that do so at once do not disturb each other.
pub async fn run(store: Store, lifecycle: Lifecycle) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = lifecycle.stopping() => return,
            _ = ticks.tick() => forget(&store).await,
        }
    }
}

async fn forget(store: &Store) {
    let before = |life: Duration| Millis(Millis::now().0 - i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
    match store.forget_old_keys(before(KEYS_LIFE)).await {
        Ok(0) => {}
        Ok(keys) => info!(keys, "forgot old idempotency keys"),
        Err(error) => warn!(%error, "could not forget old idempotency keys"),
    }
    match store.forget_old_deliveries(before(DELIVERIES_LIFE)).await {
        Ok(0) => {}
        Ok(deliveries) => info!(deliveries, "forgot old webhook deliveries"),
        Err(error) => warn!(%error, "could not forget old webhook deliveries"),
    }
}
