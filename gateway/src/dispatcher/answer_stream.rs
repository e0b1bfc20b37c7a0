//! An answer as it is made: pieces in order, each once, and no clean end unless it is the whole answer.

use std::time::Duration;

use bytes::Bytes;
use common::{
    domain::{
        ids::MessageId,
        message::MessageStatus,
        reply::{Attempt, Frame, FrameBody, Outcome},
        time::Millis,
    },
    lifecycle::Lifecycle,
};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{
    answer::{Answer, DispatchError},
    ends::{Ends, content_is_missing},
};
use crate::waiter::{StreamWaiter, Wake};

/// The rest of an answer cannot follow what was sent: the connection has to be aborted.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct StreamBroken(&'static str);

/// What a caller has been sent of an answer.
#[derive(Debug, Default)]
struct Sent {
    attempt: Option<Attempt>,
    text: String,
}

/// What a frame means for a caller.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing yet.
    Wait,
    /// More text.
    Text(String),
    /// The rest of the text, which is now whole.
    End(String),
    /// It cannot go on.
    Broken(&'static str),
}

impl Sent {
    fn delta(&mut self, attempt: Attempt, at: usize, text: &str) -> Step {
        if self.attempt.is_some_and(|current| attempt < current) {
            return Step::Wait;
        }
        if self.attempt.is_some_and(|current| attempt > current) && !self.text.is_empty() {
            return Step::Broken("its worker died, and another began anew");
        }
        self.attempt = Some(attempt);
        // A gap waits for the terminal frame, which has the whole text; what was sent before is skipped.
        match self.text.len().checked_sub(at).and_then(|known| text.get(known..)) {
            Some(new) if !new.is_empty() => {
                self.text.push_str(new);
                Step::Text(new.to_owned())
            }
            _ => Step::Wait,
        }
    }

    /// An end that comes from another run than what was sent breaks the stream even where the texts agree: its worker
    /// is dead, and its caller is told so. `of` is unknown for an end that was found in the store.
    fn end(&mut self, of: Option<Attempt>, outcome: &Outcome) -> Step {
        if let Some(current) = self.attempt.filter(|_| !self.text.is_empty())
            && (of.is_some_and(|other| other != current) || outcome.attempts > current.delivery)
        {
            return Step::Broken("its worker died, and another ended it");
        }
        let whole = match (outcome.status, &outcome.content) {
            (MessageStatus::Completed, Some(content)) => content,
            _ => return Step::Broken("it failed after its first piece"),
        };
        match whole.strip_prefix(self.text.as_str()) {
            Some(rest) => Step::End(rest.to_owned()),
            None => Step::Broken("another run of it was stored"),
        }
    }
}

/// The pieces of one answer.
pub struct AnswerStream {
    /// The message.
    pub id: MessageId,
    /// When it was accepted.
    pub created_at: Millis,
    ends: Ends,
    lifecycle: Lifecycle,
    waiter: StreamWaiter,
    until: Instant,
    sent: Sent,
    first: Option<String>,
    ended: bool,
}

impl AnswerStream {
    /// Waits for the first piece or for the end.
    pub(super) async fn begin(
        ends: Ends,
        lifecycle: Lifecycle,
        waiter: StreamWaiter,
        id: MessageId,
        created_at: Millis,
        until: Instant,
    ) -> Result<Self, DispatchError> {
        let mut stream =
            Self { id, created_at, ends, lifecycle, waiter, until, sent: Sent::default(), first: None, ended: false };
        loop {
            let wake = stream.wake().await?;
            match stream.read(wake).await? {
                Read::Delta(Step::Text(text)) => {
                    stream.first = Some(text);
                    return Ok(stream);
                }
                Read::Delta(_) => {}
                Read::Ended(of, outcome) => return stream.ended_at_once(of, outcome),
            }
        }
    }

    fn ended_at_once(mut self, of: Option<Attempt>, outcome: Outcome) -> Result<Self, DispatchError> {
        match self.sent.end(of, &outcome) {
            Step::End(text) => {
                self.ended = true;
                self.first = Some(text).filter(|text| !text.is_empty());
                Ok(self)
            }
            _ => Err(DispatchError::Ended(Box::new(Answer { id: self.id, created_at: self.created_at, outcome }))),
        }
    }

    /// The next piece; `None` after the whole answer.
    ///
    /// # Errors
    /// When the rest cannot be had: abort the connection, so that nobody takes a part for the whole.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamBroken>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first.into()));
        }
        if self.ended {
            return None;
        }
        let piece = self.next_piece().await;
        if let Err(broken) = &piece {
            self.ended = true;
            warn!(message.id = %self.id, reason = broken.0, "a streamed answer broke off");
        }
        piece.transpose()
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, StreamBroken> {
        loop {
            let wake = self.wake().await.map_err(|_| StreamBroken("its time was up"))?;
            let step = match self.read(wake).await.map_err(|_| StreamBroken("its end could not be read"))? {
                Read::Delta(step) => step,
                Read::Ended(of, outcome) => self.sent.end(of, &outcome),
            };
            match step {
                Step::Wait => {}
                Step::Text(text) => return Ok(Some(text.into())),
                Step::End(rest) => {
                    self.ended = true;
                    return Ok(Some(rest).filter(|rest| !rest.is_empty()).map(Bytes::from));
                }
                Step::Broken(reason) => return Err(StreamBroken(reason)),
            }
        }
    }

    async fn wake(&mut self) -> Result<Wake, DispatchError> {
        let id = self.id;
        tokio::select! {
            wake = self.waiter.next() => match wake {
                Some(wake) => Ok(wake),
                // Too slow for the live frames: the store has the whole answer once it is there.
                None => self.ends.read_until(id, self.until).await.map(|end| Wake::Stored(Box::new(end))),
            },
            () = sleep_until(self.until) => self.ends.last_look(id).await,
            () = self.lifecycle.aborting() => Err(DispatchError::Timeout { id }),
        }
    }

    async fn read(&mut self, wake: Wake) -> Result<Read, DispatchError> {
        let (of, outcome) = match wake {
            Wake::Stored(outcome) => (None, *outcome),
            Wake::Frame(bytes) => match serde_json::from_slice::<Frame>(&bytes) {
                Ok(Frame { attempt, body: FrameBody::Delta { at, text }, .. }) => {
                    return Ok(Read::Delta(self.sent.delta(attempt, at, &text)));
                }
                Ok(Frame { body: FrameBody::Started {}, .. }) => return Ok(Read::Delta(Step::Wait)),
                Ok(Frame { attempt, body: FrameBody::Terminal { outcome }, .. }) => (Some(attempt), outcome),
                Err(error) => {
                    warn!(message.id = %self.id, %error, "a frame could not be read");
                    return Ok(Read::Delta(Step::Wait));
                }
            },
        };
        if content_is_missing(&outcome) {
            let until = self.until.max(Instant::now() + Duration::from_secs(2));
            return self.ends.read_until(self.id, until).await.map(|outcome| Read::Ended(of, outcome));
        }
        Ok(Read::Ended(of, outcome))
    }
}

enum Read {
    Delta(Step),
    Ended(Option<Attempt>, Outcome),
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Attempt = Attempt { seq: 7, delivery: 1, restart: 0 };
    const SECOND: Attempt = Attempt { seq: 7, delivery: 2, restart: 0 };

    fn completed(content: &str) -> Outcome {
        Outcome {
            status: MessageStatus::Completed,
            content: Some(content.to_owned()),
            model: None,
            usage: Default::default(),
            credits_charged: 0,
            failure: None,
            attempts: 1,
            started_at: None,
            completed_at: Millis(0),
        }
    }

    #[test]
    fn pieces_go_out_in_order_and_once() {
        let mut sent = Sent::default();
        assert_eq!(sent.delta(FIRST, 0, "ab"), Step::Text("ab".into()));
        assert_eq!(sent.delta(FIRST, 0, "ab"), Step::Wait);
        assert_eq!(sent.delta(FIRST, 1, "bcd"), Step::Text("cd".into()));
        assert_eq!(sent.end(Some(FIRST), &completed("abcdef")), Step::End("ef".into()));
    }

    #[test]
    fn a_gap_is_filled_from_the_end() {
        let mut sent = Sent::default();
        assert_eq!(sent.delta(FIRST, 0, "ab"), Step::Text("ab".into()));
        assert_eq!(sent.delta(FIRST, 4, "ef"), Step::Wait);
        assert_eq!(sent.end(Some(FIRST), &completed("abcdef")), Step::End("cdef".into()));
    }

    #[test]
    fn a_new_run_goes_on_only_when_nothing_was_sent() {
        let mut sent = Sent::default();
        assert_eq!(sent.delta(FIRST, 3, "lost"), Step::Wait);
        assert_eq!(sent.delta(SECOND, 0, "anew"), Step::Text("anew".into()));
        assert_eq!(sent.delta(FIRST, 0, "late"), Step::Wait);
        let third = Attempt { seq: 7, delivery: 3, restart: 0 };
        assert!(matches!(sent.delta(third, 0, "again"), Step::Broken(_)));
    }

    #[test]
    fn the_end_of_another_run_breaks_the_stream_even_where_the_texts_agree() {
        let spoken = || {
            let mut sent = Sent::default();
            sent.delta(FIRST, 0, "ab");
            sent
        };
        let restarted = Attempt { restart: 1, ..FIRST };
        let again = Outcome { attempts: 2, ..completed("abcd") };
        assert!(matches!(spoken().end(Some(SECOND), &again), Step::Broken(_)));
        assert!(matches!(spoken().end(Some(restarted), &completed("abcd")), Step::Broken(_)));
        assert!(matches!(spoken().end(None, &again), Step::Broken(_)));
        assert_eq!(spoken().end(None, &completed("abcd")), Step::End("cd".into()));
        assert_eq!(Sent::default().end(Some(SECOND), &again), Step::End("abcd".into()));
    }

    #[test]
    fn a_stored_end_that_is_not_what_was_sent_breaks_the_stream() {
        let mut sent = Sent::default();
        sent.delta(FIRST, 0, "one answer");
        assert!(matches!(sent.end(None, &completed("another answer")), Step::Broken(_)));
        let failed = Outcome { status: MessageStatus::Failed, content: None, ..completed("") };
        assert!(matches!(sent.end(Some(FIRST), &failed), Step::Broken(_)));
    }
}
