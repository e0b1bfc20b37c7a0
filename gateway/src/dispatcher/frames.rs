//! What a worker says about a job to the caller on this gateway who waits for it.

use common::{
    domain::{
        ids::MessageId,
        reply::{Attempt, Frame, FrameBody, Outcome},
    },
    lifecycle::Lifecycle,
};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{answer::DispatchError, ends::Ends, followed::Followed};
use crate::{
    placement::UnderWay,
    waiter::{StreamWaiter, Wake},
};

/// One thing that was said.
pub(super) enum Heard {
    /// Nothing of use.
    Nothing,
    /// A piece of the answer.
    Delta {
        /// Of which run.
        attempt: Attempt,
        /// Its place in the answer of that run, in bytes.
        at: usize,
        /// The piece.
        text: String,
    },
    /// The end, with its content; of which run, unless it was found in the store.
    Ended(Outcome, Option<Attempt>),
}

/// Where it is heard.
pub(super) enum Source {
    /// As the caller who put the job on the queue.
    Own(Frames),
    /// As one of any number who follow it.
    Others(Followed),
}

impl Source {
    /// The next thing that is said.
    ///
    /// # Errors
    /// When there is no time left.
    pub(super) async fn next(&mut self) -> Result<Heard, DispatchError> {
        match self {
            Self::Own(frames) => frames.next().await,
            Self::Others(followed) => followed.next().await,
        }
    }
}

/// The frames of one job that come to this gateway.
pub(super) struct Frames {
    /// The job.
    pub(super) id: MessageId,
    /// Where they come.
    pub(super) waiter: StreamWaiter,
    /// The call that they are for.
    pub(super) under_way: UnderWay,
    /// Where its end is when its frame was lost.
    pub(super) ends: Ends,
    /// Until when they are of use.
    pub(super) until: Instant,
    /// Whether this process goes on.
    pub(super) lifecycle: Lifecycle,
}

impl Frames {
    async fn next(&mut self) -> Result<Heard, DispatchError> {
        let (outcome, of) = match self.wake().await? {
            Wake::Stored(outcome) => (*outcome, None),
            Wake::Frame(bytes) => match serde_json::from_slice::<Frame>(&bytes) {
                Ok(Frame { attempt, body: FrameBody::Delta { at, text }, .. }) => {
                    return Ok(Heard::Delta { attempt, at, text });
                }
                Ok(Frame { body: FrameBody::Started {}, .. }) => return Ok(Heard::Nothing),
                Ok(Frame { attempt, body: FrameBody::Terminal { outcome }, .. }) => (outcome, Some(attempt)),
                Err(error) => {
                    warn!(message.id = %self.id, %error, "a frame could not be read");
                    return Ok(Heard::Nothing);
                }
            },
        };
        if outcome.content_is_elsewhere() {
            return self.ends.read_until(self.id, self.until).await.map(|outcome| Heard::Ended(outcome, of));
        }
        Ok(Heard::Ended(outcome, of))
    }

    async fn wake(&mut self) -> Result<Wake, DispatchError> {
        let id = self.id;
        tokio::select! {
            wake = self.waiter.next() => match wake {
                Some(wake) => {
                    self.under_way.heard();
                    Ok(wake)
                }
                // Too slow for the live frames: the store has the whole answer once it is there.
                None => self.ends.read_until(id, self.until).await.map(|end| Wake::Stored(Box::new(end))),
            },
            () = sleep_until(self.until) => self.ends.last_look(id).await,
            () = self.lifecycle.aborting() => Err(DispatchError::Timeout { id }),
        }
    }
}
