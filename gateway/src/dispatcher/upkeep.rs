//! What keeps waiting safe: frames are handed to their waiters, and ends whose frame was lost are found.

use std::{sync::Arc, time::Duration};

use common::{
    lifecycle::Lifecycle,
    queue::{connection::Connection, replies::ReplyReceiver},
    store::connection::Store,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::waiter::{Waiters, Wake};

/// How often, and after how much waiting, the store is asked for ends whose frame was lost.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Hands every frame to its waiter. Never blocks on one of them.
pub async fn route_replies(mut replies: ReplyReceiver, waiters: Arc<Waiters>, lifecycle: Lifecycle) {
    loop {
        tokio::select! {
            frame = replies.next() => match frame {
                Some((id, bytes)) => waiters.wake(id, Wake::Frame(bytes)),
                None => return,
            },
            () = lifecycle.aborting() => return,
        }
    }
}

/// Looks into the store for those who have waited for a while, and for all after a reconnect: a core message that
/// was sent while the connection was down is gone.
pub async fn look_after_waiters(store: Store, waiters: Arc<Waiters>, connection: Connection, lifecycle: Lifecycle) {
    let mut link = connection.link();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let patience = tokio::select! {
            _ = ticks.tick() => LOOK_EVERY,
            Ok(()) = link.changed() => {
                if !link.borrow_and_update().up { continue }
                Duration::ZERO
            }
            () = lifecycle.aborting() => return,
        };
        let Some(before) = Instant::now().checked_sub(patience) else { continue };
        let waiting = waiters.waiting_since(before);
        if waiting.is_empty() {
            continue;
        }
        match store.outcomes(&waiting).await {
            Ok(found) => {
                for (id, outcome) in found {
                    info!(message.id = %id, "found an answer whose reply was missed");
                    waiters.wake(id, Wake::Stored(Box::new(outcome)));
                }
            }
            Err(error) => warn!(%error, waiting = waiting.len(), "could not look for answers in the store"),
        }
    }
}
