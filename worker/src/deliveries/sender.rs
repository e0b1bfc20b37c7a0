//! Finds deliveries that are due, and sends couriers to their receivers.
//!
//! Each class of receivers has couriers of its own, so that those that never took anything are in nobody's way: not in
//! that of one that works, nor in that of one that has just stumbled. Those whose last try failed have fewer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    domain::time::Millis,
    queue::{connection::Connection, signals::DeliveryWakes},
    store::{
        claims::{Claim, ClaimLimits, Class},
        error::StoreError,
    },
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{info, warn};

use super::{courier::Courier, round::LEASE, schedule::PATIENCE};

/// How often a worker looks by itself: for what is due only now, and for wake-ups that were lost.
const SWEEP: Duration = Duration::from_secs(1);
/// The most receivers that are taken in one transaction.
const GROUP: usize = 64;
/// How many deliveries one visit has at most. Of a receiver that failed, one tells whether it does so still.
const VISIT: u64 = 32;

/// Sends couriers.
pub struct Sender {
    courier: Arc<Courier>,
    connection: Connection,
    rooms: [Room; 4],
    /// Somebody is back: there may be more for the same receiver, and there is room for another.
    back: Arc<Notify>,
}

/// The couriers for one class of receivers.
struct Room {
    class: Class,
    places: Arc<Semaphore>,
    /// How many deliveries one visit has at most.
    visit: u64,
}

impl Room {
    fn new(class: Class, places: usize, visit: u64) -> Self {
        Self { class, places: Arc::new(Semaphore::new(places.max(1))), visit }
    }
}

impl Sender {
    /// A sender for up to `receivers` receivers at a time, half of them never tried before, and a quarter as many that
    /// failed, half of them such as never took anything.
    pub fn new(courier: Courier, connection: Connection, receivers: usize) -> Self {
        Self {
            courier: Arc::new(courier),
            connection,
            rooms: [
                Room::new(Class::Healthy, receivers.div_ceil(2), VISIT),
                Room::new(Class::Untried, receivers / 2, VISIT),
                Room::new(Class::Shaken, receivers / 8, 1),
                Room::new(Class::Failing, receivers / 8, 1),
            ],
            back: Arc::new(Notify::new()),
        }
    }

    /// Sends until the lifecycle says stop.
    pub async fn run(self) {
        let lifecycle = self.courier.lifecycle.clone();
        let mut wakes = DeliveryWakes::subscribe(&self.connection)
            .await
            .inspect_err(|error| warn!(%error, "webhooks are sent up to a second late: no wake-ups"))
            .ok();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = lifecycle.stopping() => break,
                () = woken(&mut wakes) => {}
                () = self.back.notified() => {}
                _ = sweep.tick() => {}
            }
            if let Err(error) = self.send_out_all().await {
                warn!(%error, "could not look for webhooks that are due");
                tokio::select! { () = lifecycle.stopping() => break, () = sleep(SWEEP) => {} }
            }
        }
        info!("sending no more webhooks");
    }

    async fn send_out_all(&self) -> Result<(), StoreError> {
        for room in &self.rooms {
            self.send_out(room).await?;
        }
        Ok(())
    }

    /// Sends a courier to each receiver of a class for which something is due, as far as there is room.
    async fn send_out(&self, room: &Room) -> Result<(), StoreError> {
        loop {
            let most = room.places.available_permits().min(GROUP);
            if most == 0 || self.courier.lifecycle.is_stopping() {
                return Ok(());
            }
            let limits = ClaimLimits { targets: most as u64, each: room.visit, lease: LEASE, patience: PATIENCE };
            let before = Instant::now();
            let claims = self.courier.store.claim_targets(room.class, &limits, Millis::now()).await?;
            let found = claims.len();
            for claim in claims {
                self.send_to(claim, before, &room.places);
            }
            if found < most {
                return Ok(());
            }
        }
    }

    fn send_to(&self, claim: Claim, claimed: Instant, places: &Arc<Semaphore>) {
        // Only this task takes places, and it has counted them.
        let Ok(place) = places.clone().try_acquire_owned() else { return };
        let (courier, back) = (self.courier.clone(), self.back.clone());
        self.courier.lifecycle.spawn(async move {
            tokio::select! {
                () = courier.visit(claim, claimed) => {}
                // The lease ends by itself, and another worker tries again.
                () = courier.lifecycle.aborting() => {}
            }
            drop(place);
            back.notify_one();
        });
    }
}

/// Waits for a wake-up; for ever when there are none.
async fn woken(wakes: &mut Option<DeliveryWakes>) {
    let heard = match wakes {
        Some(wakes) => wakes.next().await,
        None => std::future::pending().await,
    };
    match wakes {
        // One look is enough for all that have come meanwhile.
        Some(wakes) if heard.is_some() => wakes.drain(),
        _ => *wakes = None,
    }
}
