//! What becomes of a message whose caller hangs up: by default it goes on, with `on_disconnect: "cancel"` it is cancelled.

use std::{sync::Arc, time::Duration};

use common::domain::ids::MessageId;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    archive::Archive,
    auth::caller::Caller,
    error::ApiError,
    idempotency::ticket::{Manner, Ticket},
};

/// A request that was dropped while its job was being published may have left one that shows only later.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// Cancels a message when it is dropped before [`HangUp::disarm`]: nobody is left who would hear the
/// answer.
pub struct HangUp(Option<Watched>);

struct Watched {
    archive: Arc<Archive>,
    caller: Arc<Caller>,
    id: MessageId,
}

impl HangUp {
    /// What the `manner` of the request with this `ticket` asks for. Only the request that puts the message on the queue
    /// cancels it: of those who join it, one who hangs up takes nothing from the others.
    pub fn of(manner: Manner, ticket: &Ticket, archive: &Arc<Archive>, caller: &Arc<Caller>) -> Self {
        let cancels = manner.cancel_on_disconnect && ticket.needs_job();
        Self(cancels.then(|| Watched { archive: archive.clone(), caller: caller.clone(), id: ticket.id() }))
    }

    /// The caller was answered, or joins a message that another request put on the queue.
    pub fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(watched) = self.0.take() {
            let lifecycle = watched.archive.lifecycle().clone();
            lifecycle.spawn(watched.cancel());
        }
    }
}

impl Watched {
    async fn cancel(self) {
        let id = self.id;
        for _ in 0..TRIES {
            match self.archive.cancel(&self.caller, id).await {
                Ok(_) => {
                    info!(message.id = %id, "cancelled a message whose caller hung up");
                    return;
                }
                Err(ApiError::AlreadyEnded(..)) => return,
                Err(error) => info!(message.id = %id, ?error, "could not cancel a message whose caller hung up, yet"),
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = self.archive.lifecycle().aborting() => return,
            }
        }
        warn!(message.id = %id, "a message whose caller hung up was not cancelled");
    }
}
