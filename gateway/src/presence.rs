//! Tells the store that this gateway runs, so that an operator's command knows whom to expect an answer from.

use std::net::SocketAddr;

use common::{
    domain::ids::GatewayId,
    lifecycle::Lifecycle,
    store::{connection::Store, gateways::GATEWAY_BEAT},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// Says so from time to time, and says goodbye when the last request has ended.
pub async fn tell(store: Store, gateway: GatewayId, address: SocketAddr, lifecycle: Lifecycle) {
    let address = address.to_string();
    let mut beats = interval(GATEWAY_BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beats.tick() => {
                if let Err(error) = store.gateway_lives(gateway, &address).await {
                    warn!(%error, "could not note that this gateway runs");
                }
            }
            () = lifecycle.aborting() => break,
        }
    }
    if let Err(error) = store.gateway_stops(gateway).await {
        warn!(%error, "could not note that this gateway has stopped");
    }
}
