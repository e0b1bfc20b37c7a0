//! Batches that went wrong: those that nobody puts on the queue any more, and lines that did not hear of a stop.

use std::{sync::Arc, time::Duration};

use common::{
    domain::time::Millis,
    lifecycle::Lifecycle,
    queue::{connection::Connection, signals::wake_deliveries},
    store::{connection::Store, error::StoreError},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::cancels::Cancels;

/// How often a worker looks.
const EVERY: Duration = Duration::from_secs(5);

/// Looks every few seconds until the lifecycle says abort. Workers that do so at once do not disturb each other, and
/// need not tell each other what they found.
pub async fn run(store: Store, connection: Connection, cancels: Arc<Cancels>, lifecycle: Lifecycle) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = lifecycle.aborting() => return,
            _ = ticks.tick() => {
                if let Err(error) = sweep(&store, &connection, &cancels).await {
                    warn!(%error, "could not look for batches that are given up");
                }
            }
        }
    }
}

async fn sweep(store: &Store, connection: &Connection, cancels: &Cancels) -> Result<(), StoreError> {
    let abandoned = store.abandon_batches(Millis::now()).await?;
    for id in &abandoned {
        info!(batch.id = %id, "cancelled a batch that nobody puts on the queue any more");
    }
    if !abandoned.is_empty() {
        wake_deliveries(connection).await;
    }
    cancels.stop_lines(store).await
}
