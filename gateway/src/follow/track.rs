//! One followed message on this gateway, however many readers it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::domain::reply::{Frame, Outcome};
use tokio::sync::{oneshot, watch};

use super::log::{Change, Log};

/// A message's log, and a bell for its readers. It is fed as long as somebody holds it.
pub(super) struct Track {
    log: Mutex<Log>,
    news: watch::Sender<()>,
    /// Whether somebody reads the text, not only the end.
    is_read: watch::Sender<bool>,
    /// Whoever feeds it holds the other end.
    _open: Option<oneshot::Sender<()>>,
}

impl Track {
    /// A message of which nothing is known yet. The receiver resolves when nobody reads it any more.
    pub(super) fn new() -> (Arc<Self>, oneshot::Receiver<()>) {
        let (open, gone) = oneshot::channel();
        (Arc::new(Self::of(Log::default(), Some(open))), gone)
    }

    /// A message that has ended: there is nothing to feed it with.
    pub(super) fn ended(outcome: Outcome) -> Arc<Self> {
        Arc::new(Self::of(Log::ended(outcome), None))
    }

    fn of(log: Log, open: Option<oneshot::Sender<()>>) -> Self {
        Self { log: Mutex::new(log), news: watch::Sender::new(()), is_read: watch::Sender::new(false), _open: open }
    }

    /// Somebody reads the text.
    pub(super) fn want_text(&self) {
        self.is_read.send_replace(true);
    }

    /// Becomes true when somebody reads the text.
    pub(super) fn is_read(&self) -> watch::Receiver<bool> {
        self.is_read.subscribe()
    }

    /// What is known.
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever there is more to read.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Takes a frame in and tells the readers.
    pub(super) fn apply(&self, frame: Frame) -> Change {
        let change = self.log().apply(frame);
        self.tell(change)
    }

    /// Takes the end in and tells the readers.
    pub(super) fn finish(&self, outcome: Outcome) {
        let change = self.log().finish(outcome);
        self.tell(change);
    }

    /// How it ended.
    pub(super) fn end(&self) -> Option<Arc<Outcome>> {
        self.log().end().cloned()
    }

    fn tell(&self, change: Change) -> Change {
        if change != Change::None {
            self.news.send_replace(());
        }
        change
    }
}
