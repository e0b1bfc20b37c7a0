//! What is known of a running message on this gateway: its frames in order and each once, however they came.

use std::sync::Arc;

use common::domain::reply::{Attempt, Frame, FrameBody, Outcome};

/// What a frame changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that readers would see.
    None,
    /// There is more to read.
    More,
    /// Something before this frame is missing, and may be read back.
    Gap,
    /// It is the end, but its answer was too large to come along.
    EndWithoutContent,
}

/// Where one frame's text ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// The frame's number.
    pub(super) n: u32,
    /// The length of the run's text with it, in bytes.
    pub(super) end: usize,
}

/// The newest run's text so far, and the end.
#[derive(Debug, Default)]
pub struct Log {
    attempt: Option<Attempt>,
    /// Where `text` begins in the run's text, in bytes; above 0 when what was said before is gone.
    from: usize,
    text: String,
    /// How far into this run's text the last frame began that has come, whether or not it could be taken in.
    seen: usize,
    /// Where something is missing that reading back has not brought: it is gone.
    gone_at: Option<usize>,
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
            FrameBody::Terminal { outcome } if outcome.content_is_elsewhere() => Change::EndWithoutContent,
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

    /// How much the newest run has said, as far as is known without a gap, in bytes.
    pub(super) fn reach(&self) -> usize {
        self.from + self.text.len()
    }

    /// The bytes from `at` to `end` of the newest run's text; `None` where they are not known.
    pub(super) fn text(&self, at: usize, end: usize) -> Option<&str> {
        self.text.get(at.checked_sub(self.from)?..end.checked_sub(self.from)?)
    }

    /// What the newest run has said and is missing, if anything is, cannot be read back: readers who have seen it go on,
    /// the others get it with the end. What is missing elsewhere may be.
    pub fn give_up_gap(&mut self) {
        if self.seen > self.reach() {
            self.gone_at = Some(self.reach());
        }
    }

    /// What is missing may be read back after all.
    pub fn hope(&mut self) {
        self.gone_at = None;
    }

    /// The piece that goes on after the first `at` bytes.
    pub(super) fn piece_after(&self, at: usize) -> Option<Piece> {
        let index = self.pieces.partition_point(|piece| piece.end <= at);
        self.pieces.get(index).copied()
    }

    fn delta(&mut self, attempt: Attempt, n: u32, at: usize, text: &str) -> Change {
        let Some(is_new) = self.turn_to(attempt) else { return Change::None };
        self.seen = self.seen.max(at);
        let is_gone = self.gone_at == Some(self.reach());
        if is_gone && self.text.is_empty() {
            self.from = at;
        }
        let Some(known) = self.reach().checked_sub(at) else {
            return if is_gone { Change::None } else { Change::Gap };
        };
        match text.get(known..) {
            Some(new) if !new.is_empty() => {
                self.text.push_str(new);
                self.pieces.push(Piece { n, end: self.reach() });
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
            (self.attempt, self.from, self.seen, self.gone_at) = (Some(attempt), 0, 0, None);
            self.text.clear();
            self.pieces.clear();
        }
        Some(is_new)
    }
}
