//! A reader of one message: steps as they come, and the truth when it cannot keep up.

use std::{sync::Arc, time::Duration};

use common::domain::reply::Outcome;
use tokio::{sync::watch, time::Instant};

use super::{
    cursor::{Cursor, Step},
    position::Position,
    track::Track,
};

/// The most text that may come while a reader is busy with what it was given, in bytes.
const BACKLOG: usize = 64 * 1024;
/// A reader that is busy for less than this is not slow, however much came meanwhile: a model may say much at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A reader did not keep up. It can come back to where it was: nothing of the message is lost.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reader is too slow")]
pub struct TooSlow;

/// One reader. Dropping it is all that it takes to leave.
pub struct Follower {
    track: Arc<Track>,
    news: watch::Receiver<()>,
    cursor: Cursor,
    /// Since when it is busy with what it was given, and how much text there was then.
    busy: Option<(Instant, usize)>,
}

impl Follower {
    pub(super) fn new(track: Arc<Track>, after: Option<Position>) -> Self {
        let news = track.news();
        Self { track, news, cursor: Cursor::new(after), busy: None }
    }

    /// A reader of a message that has ended.
    pub fn of_ended(outcome: Outcome, after: Option<Position>) -> Self {
        Self::new(Track::ended(outcome), after)
    }

    /// Waits for the next step; `None` after the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When it was busy for more than 2 s and more than 64 KiB came meanwhile.
    pub async fn next(&mut self) -> Result<Option<Step>, TooSlow> {
        loop {
            // Before the look, so that what comes after it is not missed.
            self.news.borrow_and_update();
            if let Some(step) = self.next_now()? {
                return Ok(Some(step));
            }
            if self.cursor.is_over() {
                return Ok(None);
            }
            // The sender lives in the track.
            let _ = self.news.changed().await;
        }
    }

    /// The next step if there is one now.
    ///
    /// # Errors
    /// As for [`Follower::next`].
    pub fn next_now(&mut self) -> Result<Option<Step>, TooSlow> {
        let log = self.track.log();
        let length = log.reach();
        if let Some((since, before)) = self.busy.take()
            && length.saturating_sub(before) > BACKLOG
            && since.elapsed() > PATIENCE
        {
            return Err(TooSlow);
        }
        let step = self.cursor.next(&log);
        self.busy = step.is_some().then(|| (Instant::now(), length));
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use common::domain::{
        ids::MessageId,
        reply::{Attempt, Frame, FrameBody},
    };

    use super::*;

    fn say(track: &Track, at: usize, text: String) {
        let attempt = Attempt { seq: 1, delivery: 1, restart: 0 };
        let frame = Frame { id: MessageId::new(), attempt, n: 0, body: FrameBody::Delta { at, text } };
        track.apply(frame);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_told_and_the_others_go_on() {
        let (track, _gone) = Track::new();
        let mut readers = [Follower::new(track.clone(), None), Follower::new(track.clone(), None)];
        say(&track, 0, "first".to_owned());
        for reader in &mut readers {
            while reader.next_now().expect("not slow").is_some() {}
        }
        say(&track, 5, " and second".to_owned());
        for reader in &mut readers {
            assert!(reader.next().await.expect("not slow").is_some());
        }
        let [slow, quick] = &mut readers;
        while quick.next_now().expect("not slow").is_some() {}
        tokio::time::sleep(PATIENCE * 2).await;
        say(&track, 16, "x".repeat(BACKLOG + 1));
        assert_eq!(slow.next().await, Err(TooSlow));
        assert!(matches!(quick.next().await, Ok(Some(Step::Delta { .. }))), "who waits is not slow");
    }

    #[tokio::test(start_paused = true)]
    async fn much_at_once_makes_nobody_slow() {
        let (track, _gone) = Track::new();
        let mut reader = Follower::new(track.clone(), None);
        say(&track, 0, "first".to_owned());
        assert_eq!(reader.next().await, Ok(Some(Step::Queued)));
        say(&track, 5, "x".repeat(BACKLOG * 2));
        while reader.next_now().expect("not slow").is_some() {}
    }
}
