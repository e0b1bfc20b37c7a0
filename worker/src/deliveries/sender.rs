//! Finds deliveries that are due, and sends couriers to their receivers.
//!
//! Receivers whose last try failed have couriers of their own, fewer, so that none of them is ever in the way of one
//! that works.

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

use super::{courier::Courier, round::LEASE};

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
    fresh: Arc<Semaphore>,
    retry: Arc<Semaphore>,
    /// Somebody is back: there may be more for the same receiver, and there is room for another.
    back: Arc<Notify>,
}

impl Sender {
    /// A sender for up to `receivers` receivers at a time, and a quarter as many that failed.
    pub fn new(courier: Courier, connection: Connection, receivers: usize) -> Self {
        Self {
            courier: Arc::new(courier),
            connection,
            fresh: Arc::new(Semaphore::new(receivers)),
            retry: Arc::new(Semaphore::new((receivers / 4).max(1))),
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
        self.send_out(Class::Fresh, &self.fresh, VISIT).await?;
        self.send_out(Class::Retry, &self.retry, 1).await
    }

    /// Sends a courier to each receiver of `class` for which something is due, as far as there is room.
    async fn send_out(&self, class: Class, room: &Arc<Semaphore>, each: u64) -> Result<(), StoreError> {
        loop {
            let most = room.available_permits().min(GROUP);
            if most == 0 || self.courier.lifecycle.is_stopping() {
                return Ok(());
            }
            let limits = ClaimLimits { targets: most as u64, each, lease: LEASE };
            let before = Instant::now();
            let claims = self.courier.store.claim_targets(class, &limits, Millis::now()).await?;
            let found = claims.len();
            for claim in claims {
                self.send_to(claim, before, room);
            }
            if found < most {
                return Ok(());
            }
        }
    }

    fn send_to(&self, claim: Claim, claimed: Instant, room: &Arc<Semaphore>) {
        // Only this task takes places, and it has counted them.
        let Ok(place) = room.clone().try_acquire_owned() else { return };
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
