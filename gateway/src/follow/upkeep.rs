//! What keeps following safe: ends whose frame was lost are found in the store.

use std::time::Duration;

use common::{lifecycle::Lifecycle, queue::connection::Connection, store::connection::Store};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::hub::Hub;

/// How often the store is asked for ends whose frame was lost.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Looks into the store for all that are followed, now and then and after each reconnect: a core message that was sent
/// while the connection was down is gone.
pub async fn look_after(hub: Hub, store: Store, connection: Connection, lifecycle: Lifecycle) {
    let mut link = connection.link();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = link.changed() => if !link.borrow_and_update().up { continue },
            () = lifecycle.aborting() => return,
        }
        let followed = hub.followed();
        if followed.is_empty() {
            continue;
        }
        match store.outcomes(&followed).await {
            Ok(found) => {
                for (id, outcome) in found {
                    info!(message.id = %id, "found an end whose frame was missed");
                    hub.tell(id, outcome);
                }
            }
            Err(error) => warn!(%error, followed = followed.len(), "could not look for ends in the store"),
        }
    }
}
