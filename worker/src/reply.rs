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
    begun: Instant,
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
    /// Whether it was said that the run has begun.
    announced: bool,
    /// Whether any text has left.
    spoken: bool,
}

/// The last frame of a run.
#[derive(Clone, Copy, Debug)]
pub struct LastFrame {
    id: MessageId,
    attempt: Attempt,
    n: u32,
}

impl LastFrame {
    /// It tells of this end.
    pub fn telling(self, outcome: Outcome) -> Frame {
        Frame { id: self.id, attempt: self.attempt, n: self.n, body: FrameBody::Terminal { outcome } }
    }
}

impl Gatherer {
    /// Gathers each piece for at most `wait`, for a run that begins now.
    pub fn new(id: MessageId, attempt: Attempt, wait: Duration) -> Self {
        let state = State { attempt, n: 0, at: 0, text: String::new(), since: None, announced: false, spoken: false };
        Self { id, wait, begun: Instant::now(), state: Mutex::new(state), said: Notify::new() }
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
        self.state().spoken
    }

    /// Waits until something is due, and takes it as a frame: first that the run has begun, which an answer that is
    /// complete within the time of gathering never says, then gathered text.
    pub async fn due(&self) -> Frame {
        loop {
            let since = self.oldest();
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

    /// The frame of the end, before the end is known.
    pub fn last(&self) -> LastFrame {
        let state = self.state();
        LastFrame { id: self.id, attempt: state.attempt, n: state.n }
    }

    /// Since when the next frame gathers.
    fn oldest(&self) -> Option<Instant> {
        let state = self.state();
        if state.announced { state.since } else { Some(self.begun) }
    }

    fn take(&self) -> Option<Frame> {
        let mut state = self.state();
        let body = if state.announced {
            state.since.take()?;
            let text = std::mem::take(&mut state.text);
            let at = state.at;
            state.at += text.len();
            state.spoken = true;
            FrameBody::Delta { at, text }
        } else {
            state.announced = true;
            FrameBody::Started {}
        };
        let n = state.n;
        state.n += 1;
        Some(Frame { id: self.id, attempt: state.attempt, n, body })
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

    async fn announced() -> Gatherer {
        let gatherer = gatherer();
        assert_eq!(gatherer.due().await.body, FrameBody::Started {});
        gatherer
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_says_first_that_it_has_begun_but_not_at_once() {
        let gatherer = gatherer();
        gatherer.say("early");
        let begun = Instant::now();
        let frame = gatherer.due().await;
        assert_eq!((frame.body, frame.n), (FrameBody::Started {}, 0));
        assert!(begun.elapsed() >= Duration::from_millis(20) && !gatherer.has_spoken());
        let frame = gatherer.due().await;
        assert_eq!((delta(&frame), frame.n), ((0, "early"), 1));
        assert!(gatherer.has_spoken());
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_that_come_together_leave_together() {
        let gatherer = announced().await;
        gatherer.say("one ");
        gatherer.say("two");
        let frame = gatherer.due().await;
        assert_eq!((delta(&frame), frame.n), ((0, "one two"), 1));
        gatherer.say(" three");
        let frame = gatherer.due().await;
        assert_eq!((delta(&frame), frame.n), ((7, " three"), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_begins_again_at_zero() {
        let gatherer = announced().await;
        gatherer.say("lost");
        gatherer.restart();
        gatherer.say("anew");
        let frame = gatherer.due().await;
        assert_eq!((delta(&frame), frame.attempt.restart), ((0, "anew"), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_said_is_nothing_due() {
        let gatherer = announced().await;
        let due = tokio::time::timeout(Duration::from_secs(60), gatherer.due()).await;
        assert!(due.is_err() && !gatherer.has_spoken());
    }
}
