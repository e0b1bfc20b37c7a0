//! What keeps waiting safe: frames are handed to their waiters, and ends whose frame was lost are found.

use std::sync::Arc;

use common::{
    lifecycle::Lifecycle,
    queue::{connection::Connection, replies::ReplyReceiver},
};
use tokio::time::Instant;

use crate::{
    stored_ends::StoredEnds,
    waiter::{Waiters, Wake},
};

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

/// Finds the ends of those who have waited for a while, and of all after a reconnect.
pub async fn look_after_waiters(ends: StoredEnds, waiters: Arc<Waiters>, connection: Connection, lifecycle: Lifecycle) {
    let waiting = |patience| {
        let before = Instant::now().checked_sub(patience);
        before.map_or_else(Vec::new, |before| waiters.waiting_since(before))
    };
    let tell = |id, outcome| waiters.wake(id, Wake::Stored(Box::new(outcome)));
    ends.look_after(&connection, &lifecycle, waiting, tell).await;
}
