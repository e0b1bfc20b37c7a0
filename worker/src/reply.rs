//! The text of a running job on its way out: pieces are gathered for a moment, then leave as one frame.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use common::domain::{
    ids::MessageId,
    reply::{Attempt, Frame, FrameBody, Outcome},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Gathers what a run says and numbers the frames that carry it.
pub struct Gatherer {
    id: MessageId,
    wait: Duration,
    state: Mutex<State>,
    said: Notify,
}

struct State {
    attempt: Attempt,
    /// The number of the next frame.
    n: u32,
    /// Where in the answer the gathered text begins, in bytes.
    at: usize,
    text: String,
    /// When the oldest gathered piece came.
    since: Option<Instant>,
}

impl Gatherer {
    /// Gathers each piece for at most `wait`.
    pub fn new(id: MessageId, attempt: Attempt, wait: Duration) -> Self {
        let state = State { attempt, n: 0, at: 0, text: String::new(), since: None };
        Self { id, wait, state: Mutex::new(state), said: Notify::new() }
    }

    /// Takes a piece of text. Never blocks.
    pub fn say(&self, piece: &str) {
        let mut state = self.state();
        state.text.push_str(piece);
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.said.notify_one();
        }
    }

    /// The answer begins anew: what was said before no longer counts.
    pub fn restart(&self) {
        let mut state = self.state();
        state.attempt.restart += 1;
        state.at = 0;
        state.text.clear();
        state.since = None;
    }

    /// Whether any text of this run has left.
    pub fn has_spoken(&self) -> bool {
        self.state().n > 0
    }

    /// Waits until gathered text is due, and takes it as a frame.
    pub async fn due(&self) -> Frame {
        loop {
            let since = self.state().since;
            match since {
                None => self.said.notified().await,
                Some(since) => {
                    // Even a sleep that is over takes a turn of the timer.
                    if !self.wait.is_zero() {
                        sleep_until(since + self.wait).await;
                    }
                    if let Some(frame) = self.take() {
                        return frame;
                    }
                }
            }
        }
    }

    /// The frame of the end.
    pub fn terminal(&self, outcome: Outcome) -> Frame {
        let mut state = self.state();
        let frame = Frame { id: self.id, attempt: state.attempt, n: state.n, body: FrameBody::Terminal { outcome } };
        state.n += 1;
        frame
    }

    fn take(&self) -> Option<Frame> {
        let mut state = self.state();
        state.since.take()?;
        let text = std::mem::take(&mut state.text);
        let (at, n) = (state.at, state.n);
        state.at += text.len();
        state.n += 1;
        Some(Frame { id: self.id, attempt: state.attempt, n, body: FrameBody::Delta { at, text } })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gatherer() -> Gatherer {
        let attempt = Attempt { seq: 3, delivery: 1, restart: 0 };
        Gatherer::new(MessageId::new(), attempt, Duration::from_millis(20))
    }

    fn delta(frame: &Frame) -> (usize, &str) {
        match &frame.body {
            FrameBody::Delta { at, text } => (*at, text),
            FrameBody::Started {} | FrameBody::Terminal { .. } => panic!("not a delta"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_that_come_together_leave_together() {
        let gatherer = gatherer();
        gatherer.say("one ");
        gatherer.say("two");
        let frame = gatherer.due().await;
        assert_eq!((delta(&frame), frame.n), ((0, "one two"), 0));
        gatherer.say(" three");
        let frame = gatherer.due().await;
        assert_eq!((delta(&frame), frame.n), ((7, " three"), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_begins_again_at_zero() {
        let gatherer = gatherer();
        gatherer.say("lost");
        gatherer.restart();
        gatherer.say("anew");
        let frame = gatherer.due().await;
        assert_eq!((delta(&frame), frame.attempt.restart), ((0, "anew"), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_said_is_nothing_due() {
        let gatherer = gatherer();
        let due = tokio::time::timeout(Duration::from_secs(60), gatherer.due()).await;
        assert!(due.is_err() && !gatherer.has_spoken());
    }
}
