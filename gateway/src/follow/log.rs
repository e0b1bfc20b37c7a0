//! What is known of a running message on this gateway: its frames in order and each once, however they came.

use std::sync::Arc;

use common::domain::{
    message::MessageStatus,
    reply::{Attempt, Frame, FrameBody, Outcome},
};

use super::position::TextMark;

/// What a frame changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that readers would see.
    None,
    /// There is more to read.
    More,
    /// Something before this frame is missing.
    Gap,
    /// It is the end, but its answer was too large to come along.
    EndWithoutContent,
}

/// Where one frame's text ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// The frame's number.
    pub(super) n: u32,
    /// The length of the text with it.
    pub(super) end: usize,
    /// The mark of the text with it.
    pub(super) mark: TextMark,
}

/// The newest run's text so far, and the end.
#[derive(Debug, Default)]
pub struct Log {
    attempt: Option<Attempt>,
    text: String,
    pieces: Vec<Piece>,
    end: Option<Arc<Outcome>>,
}

impl Log {
    /// The log of a message that has ended.
    pub fn ended(outcome: Outcome) -> Self {
        Self { end: Some(Arc::new(outcome)), ..Self::default() }
    }

    /// Takes a frame in: live or read back, in any order, any number of times.
    pub fn apply(&mut self, frame: Frame) -> Change {
        if self.end.is_some() {
            return Change::None;
        }
        match frame.body {
            FrameBody::Started {} => match self.turn_to(frame.attempt) {
                Some(true) => Change::More,
                _ => Change::None,
            },
            FrameBody::Delta { at, text } => self.delta(frame.attempt, frame.n, at, &text),
            // Every end that is told is the stored one, whichever run tells it.
            FrameBody::Terminal { outcome } if content_is_missing(&outcome) => Change::EndWithoutContent,
            FrameBody::Terminal { outcome } => self.finish(outcome),
        }
    }

    /// Takes in how the message ended. The first end stays.
    pub fn finish(&mut self, outcome: Outcome) -> Change {
        if self.end.is_some() {
            return Change::None;
        }
        self.end = Some(Arc::new(outcome));
        Change::More
    }

    /// The newest run, once it has said something.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        self.attempt
    }

    /// How the message ended.
    pub fn end(&self) -> Option<&Arc<Outcome>> {
        self.end.as_ref()
    }

    /// The newest run's text so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The piece that goes on after the first `at` bytes.
    pub(super) fn piece_after(&self, at: usize) -> Option<Piece> {
        let index = self.pieces.partition_point(|piece| piece.end <= at);
        self.pieces.get(index).copied()
    }

    fn delta(&mut self, attempt: Attempt, n: u32, at: usize, text: &str) -> Change {
        let Some(is_new) = self.turn_to(attempt) else { return Change::None };
        let Some(known) = self.text.len().checked_sub(at) else { return Change::Gap };
        match text.get(known..) {
            Some(new) if !new.is_empty() => {
                self.text.push_str(new);
                let before = self.pieces.last().map_or_else(TextMark::default, |piece| piece.mark);
                self.pieces.push(Piece { n, end: self.text.len(), mark: before.and(new.as_bytes()) });
                Change::More
            }
            _ if is_new => Change::More,
            _ => Change::None,
        }
    }

    /// Begins anew for a newer run. Whether it is one; `None` for an older one, which no longer counts.
    fn turn_to(&mut self, attempt: Attempt) -> Option<bool> {
        if self.attempt.is_some_and(|current| attempt < current) {
            return None;
        }
        let is_new = self.attempt != Some(attempt);
        if is_new {
            self.attempt = Some(attempt);
            self.text.clear();
            self.pieces.clear();
        }
        Some(is_new)
    }
}

fn content_is_missing(outcome: &Outcome) -> bool {
    outcome.status == MessageStatus::Completed && outcome.content.is_none()
}
