//! When what a job has said is read back again.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Reading back walks through a stream that all share: at most this often for each followed message.
const PAUSE: Duration = Duration::from_secs(1);

/// The next reading, if one is wanted.
#[derive(Debug)]
pub(super) struct Reread {
    last: Instant,
    is_wanted: bool,
    /// Whether a gap was seen since the last reading.
    fills_gap: bool,
}

impl Reread {
    /// It was read at `last`, and nothing is wanted since.
    pub(super) fn done_at(last: Instant) -> Self {
        Self { last, is_wanted: false, fills_gap: false }
    }

    /// Frames are missing.
    pub(super) fn for_gap(&mut self) {
        (self.is_wanted, self.fills_gap) = (true, true);
    }

    /// Frames may be missing.
    pub(super) fn for_reconnect(&mut self) {
        self.is_wanted = true;
    }

    /// Resolves when it is time to read; never while nothing is wanted.
    pub(super) async fn due(&self) {
        if self.is_wanted { sleep_until(self.last + PAUSE).await } else { pending().await }
    }

    /// It was read at `now`. Whether that was to fill a gap: what is still missing then is gone.
    pub(super) fn done(&mut self, now: Instant) -> bool {
        std::mem::replace(self, Self::done_at(now)).fills_gap
    }

    /// It could not be read at `now`, and is wanted as before.
    pub(super) fn failed(&mut self, now: Instant) {
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_too_soon_is_put_off_and_not_dropped() {
        let began = Instant::now();
        let mut reread = Reread::done_at(began);
        assert!(timeout(PAUSE * 100, reread.due()).await.is_err(), "nothing is wanted");
        reread = Reread::done_at(Instant::now());
        let since = Instant::now();
        reread.for_gap();
        reread.due().await;
        assert_eq!(since.elapsed(), PAUSE);
        reread.failed(Instant::now());
        reread.due().await;
        assert_eq!(since.elapsed(), PAUSE * 2, "it is tried again");
        assert!(reread.done(Instant::now()), "what is still missing is gone");
        reread.for_reconnect();
        reread.due().await;
        assert_eq!(since.elapsed(), PAUSE * 3);
        assert!(!reread.done(Instant::now()));
        assert!(timeout(PAUSE * 100, reread.due()).await.is_err(), "nothing is wanted");
    }
}
