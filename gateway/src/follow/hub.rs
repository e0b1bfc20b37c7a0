//! Follows messages of any gateway: one attachment to the queue for each, however many read it.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use common::{
    domain::{
        ids::{AccountId, MessageId},
        reply::Outcome,
    },
    lifecycle::Lifecycle,
    queue::{attach::Attachment, connection::Connection},
    retry::Pauses,
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use super::{
    follower::Follower,
    log::{Change, Log},
    position::Position,
    reread::Reread,
    track::Track,
};
use crate::stored_ends::StoredEnds;

/// All followed messages of this gateway. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    tracks: Mutex<HashMap<MessageId, Weak<Track>>>,
    connection: Connection,
    ends: StoredEnds,
    lifecycle: Lifecycle,
}

impl Hub {
    /// Nobody follows anything yet. [`super::upkeep::look_after`] has to run beside it.
    pub fn new(connection: Connection, ends: StoredEnds, lifecycle: Lifecycle) -> Self {
        Self(Arc::new(Inner { tracks: Mutex::default(), connection, ends, lifecycle }))
    }

    /// Reads an account's message from its beginning, or from `after` on. It has to exist: what is neither on the
    /// queue nor in the store has no end.
    pub fn follow(&self, account: AccountId, id: MessageId, after: Option<Position>) -> Follower {
        let track = self.track(account, id);
        track.want_text();
        Follower::new(track, after)
    }

    /// Waits for the end of an account's message, at most until `until`; then looks into the store once more.
    pub async fn end(&self, account: AccountId, id: MessageId, until: Instant) -> Option<Outcome> {
        let track = self.track(account, id);
        let mut news = track.news();
        let wait = async {
            loop {
                news.borrow_and_update();
                if let Some(outcome) = track.end() {
                    return outcome;
                }
                // The sender lives in the track.
                let _ = news.changed().await;
            }
        };
        tokio::select! {
            outcome = wait => Some(Arc::unwrap_or_clone(outcome)),
            () = sleep_until(until) => self.0.ends.last_look(id).await,
            () = self.0.lifecycle.aborting() => None,
        }
    }

    /// Tells this gateway's readers of an end that is stored.
    pub fn tell(&self, id: MessageId, outcome: Outcome) {
        let track = self.0.tracks().get(&id).and_then(Weak::upgrade);
        if let Some(track) = track {
            track.finish(outcome);
        }
    }

    /// The messages that somebody reads.
    pub(super) fn followed(&self) -> Vec<MessageId> {
        let tracks = self.0.tracks();
        tracks.iter().filter(|(_, track)| track.strong_count() > 0).map(|(id, _)| *id).collect()
    }

    fn track(&self, account: AccountId, id: MessageId) -> Arc<Track> {
        let mut tracks = self.0.tracks();
        if let Some(track) = tracks.get(&id).and_then(Weak::upgrade) {
            return track;
        }
        let (track, gone) = Track::new();
        tracks.insert(id, Arc::downgrade(&track));
        let feed = Feed { hub: self.0.clone(), track: Arc::downgrade(&track), account, id };
        self.0.lifecycle.spawn_background(feed.run(gone));
        track
    }
}

impl Inner {
    fn tracks(&self) -> MutexGuard<'_, HashMap<MessageId, Weak<Track>>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What feeds one track.
struct Feed {
    hub: Arc<Inner>,
    track: Weak<Track>,
    account: AccountId,
    id: MessageId,
}

impl Feed {
    /// Until the end, or until nobody reads any more.
    async fn run(self, gone: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.feed() => {}
            _ = gone => {}
            () = self.hub.lifecycle.aborting() => {}
        }
        let mut tracks = self.hub.tracks();
        // Another may stand there by now: whoever came between the last reader and this line.
        if tracks.get(&self.id).is_some_and(|track| Weak::ptr_eq(track, &self.track)) {
            tracks.remove(&self.id);
        }
    }

    async fn feed(&self) {
        let Some(mut is_read) = self.track.upgrade().map(|track| track.is_read()) else { return };
        let mut hears_text = *is_read.borrow_and_update();
        let mut attachment = self.attach(hears_text).await;
        // An end from before the attachment is in the store; a later one comes as a frame.
        self.look().await;
        let mut link = self.hub.connection.link();
        let mut reread = Reread::done_at(Instant::now());
        while !self.is_over() {
            tokio::select! {
                frame = attachment.next() => {
                    let (Some(frame), Some(track)) = (frame, self.track.upgrade()) else { return };
                    match track.apply(frame) {
                        Change::None | Change::More => {}
                        Change::EndWithoutContent => self.read_end().await,
                        Change::Gap => reread.for_gap(),
                    }
                }
                () = becomes_true(&mut is_read), if !hears_text => {
                    self.hear_text(&mut attachment).await;
                    hears_text = true;
                    reread = Reread::done_at(Instant::now());
                }
                Ok(()) = link.changed() => if link.borrow_and_update().up {
                    self.on_log(Log::hope);
                    reread.for_reconnect();
                },
                () = reread.due(), if hears_text => self.read_back(&mut attachment, &mut reread).await,
            }
        }
    }

    async fn read_back(&self, attachment: &mut Attachment, reread: &mut Reread) {
        match attachment.replay().await {
            Ok(()) if reread.done(Instant::now()) => self.on_log(Log::give_up_gap),
            Ok(()) => {}
            Err(error) => {
                warn!(message.id = %self.id, %error, "could not read back what a job has said; trying again");
                reread.failed(Instant::now());
            }
        }
    }

    fn on_log(&self, act: impl FnOnce(&mut Log)) {
        if let Some(track) = self.track.upgrade() {
            act(&mut track.log());
        }
    }

    async fn attach(&self, hears_text: bool) -> Attachment {
        let mut pauses = Pauses::new(Duration::from_millis(250), Duration::from_secs(3), None);
        let (connection, account, id) = (&self.hub.connection, self.account, self.id);
        loop {
            let attachment = match hears_text {
                true => Attachment::open(connection, account, id).await,
                false => Attachment::open_for_end(connection, account, id).await,
            };
            match attachment {
                Ok(attachment) => return attachment,
                Err(error) => warn!(message.id = %id, %error, "could not attach to a job; trying again"),
            }
            sleep(pauses.next_pause().unwrap_or_default()).await;
        }
    }

    /// A reader has come to what was waited for.
    async fn hear_text(&self, attachment: &mut Attachment) {
        let mut pauses = Pauses::new(Duration::from_millis(250), Duration::from_secs(3), None);
        while let Err(error) = attachment.hear_text().await {
            warn!(message.id = %self.id, %error, "could not attach to a job's text; trying again");
            sleep(pauses.next_pause().unwrap_or_default()).await;
        }
    }

    async fn look(&self) {
        if let Some(outcome) = self.hub.ends.find(self.id).await
            && let Some(track) = self.track.upgrade()
        {
            track.finish(outcome);
        }
    }

    /// The answer was too large for its frame: it is in the store.
    async fn read_end(&self) {
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1), None);
        loop {
            self.look().await;
            if self.is_over() {
                return;
            }
            sleep(pauses.next_pause().unwrap_or_default()).await;
        }
    }

    fn is_over(&self) -> bool {
        self.track.upgrade().is_none_or(|track| track.end().is_some())
    }
}

/// Resolves once it is true; never when nobody is left who could make it so.
async fn becomes_true(value: &mut watch::Receiver<bool>) {
    if value.wait_for(|value| *value).await.is_err() {
        pending::<()>().await;
    }
}
