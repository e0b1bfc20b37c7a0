//! An answer as it is made: pieces in order, each once, and no clean end unless it is the whole answer.

use bytes::Bytes;
use common::{
    domain::{
        ids::MessageId,
        message::MessageStatus,
        reply::{Attempt, Outcome},
        time::Millis,
    },
    sabotage::{self, Bug},
};
use tracing::warn;

use super::{
    answer::{Answer, DispatchError},
    frames::{Heard, Source},
};

/// The rest of an answer cannot follow what was sent: the connection has to be aborted.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct StreamBroken(&'static str);

/// What a caller has been sent of an answer.
#[derive(Debug, Default)]
pub struct Sent {
    attempt: Option<Attempt>,
    text: String,
}

/// What a frame means for a caller.
#[derive(Debug, PartialEq)]
pub enum Step {
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
    /// A piece of `attempt`'s answer has come, which begins `at` so many bytes.
    pub fn delta(&mut self, attempt: Attempt, at: usize, text: &str) -> Step {
        let mixes = sabotage::has(Bug::OldDelta);
        if !mixes && self.attempt.is_some_and(|current| attempt < current) {
            return Step::Wait;
        }
        if !mixes && self.attempt.is_some_and(|current| attempt > current) && !self.text.is_empty() {
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
    pub fn end(&mut self, of: Option<Attempt>, outcome: &Outcome) -> Step {
        if sabotage::has(Bug::OldDelta) {
            let rest = outcome.content.as_ref().and_then(|whole| whole.get(self.text.len()..));
            return Step::End(rest.unwrap_or_default().to_owned());
        }
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
    /// Where more comes from, until the end.
    source: Option<Source>,
    sent: Sent,
    first: Option<String>,
}

impl AnswerStream {
    /// Waits for the first piece or for the end.
    pub(super) async fn begin(source: Source, id: MessageId, created_at: Millis) -> Result<Self, DispatchError> {
        let mut stream = Self { id, created_at, source: Some(source), sent: Sent::default(), first: None };
        while let Some(source) = &mut stream.source {
            match source.next().await? {
                Heard::Nothing => {}
                Heard::Delta { attempt, at, text } => {
                    if let Step::Text(text) = stream.sent.delta(attempt, at, &text) {
                        stream.first = Some(text);
                        break;
                    }
                }
                Heard::Ended(outcome, _) => return Self::of(Answer { id, created_at, outcome }),
            }
        }
        Ok(stream)
    }

    /// The stored answer of a message.
    ///
    /// # Errors
    /// When it has ended without one.
    pub fn of(answer: Answer) -> Result<Self, DispatchError> {
        let Answer { id, created_at, outcome } = answer;
        match Sent::default().end(None, &outcome) {
            Step::End(text) => {
                let first = Some(text).filter(|text| !text.is_empty());
                Ok(Self { id, created_at, source: None, sent: Sent::default(), first })
            }
            _ => Err(DispatchError::Ended(Box::new(Answer { id, created_at, outcome }))),
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
        let piece = self.next_piece().await;
        if let Err(broken) = &piece {
            self.source = None;
            warn!(message.id = %self.id, reason = broken.0, "a streamed answer broke off");
        }
        piece.transpose()
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, StreamBroken> {
        while let Some(source) = &mut self.source {
            let step = match source.next().await.map_err(|_| StreamBroken("its end did not come in time"))? {
                Heard::Nothing => Step::Wait,
                Heard::Delta { attempt, at, text } => self.sent.delta(attempt, at, &text),
                Heard::Ended(outcome, of) => self.sent.end(of, &outcome),
            };
            match step {
                Step::Wait => {}
                Step::Text(text) => return Ok(Some(text.into())),
                Step::End(rest) => {
                    self.source = None;
                    return Ok(Some(rest).filter(|rest| !rest.is_empty()).map(Bytes::from));
                }
                Step::Broken(reason) => return Err(StreamBroken(reason)),
            }
        }
        Ok(None)
    }
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
