//! What keeps waiting safe: frames are handed to their waiters, and ends whose frame was lost are found.

use std::sync::Arc;

use common::{
    lifecycle::Lifecycle,
    queue::{connection::Link, replies::ReplyReceiver},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    stored_ends::{HasEnds, StoredEnds},
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
pub async fn look_after_waiters<S: HasEnds>(
    ends: StoredEnds<S>,
    waiters: Arc<Waiters>,
    link: watch::Receiver<Link>,
    lifecycle: Lifecycle,
) {
    let waiting = |patience| {
        let before = Instant::now().checked_sub(patience);
        before.map_or_else(Vec::new, |before| waiters.waiting_since(before))
    };
    let tell = |id, outcome| waiters.wake(id, Wake::Stored(Box::new(outcome)));
    ends.look_after(link, &lifecycle, waiting, tell).await;
}
