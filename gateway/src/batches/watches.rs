//! Batches that somebody waits for or follows at this gateway: each is looked at twice a second, however many do.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    domain::{batch::Batch, ids::BatchId},
    lifecycle::Lifecycle,
    store::connection::Store,
};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

/// How often a batch is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is watched. Cheap to clone.
#[derive(Clone)]
pub struct Watches(Arc<Inner>);

struct Inner {
    store: Store,
    lifecycle: Lifecycle,
    watched: Mutex<HashMap<BatchId, watch::Sender<Batch>>>,
}

impl Watches {
    /// Watches batches in `store`.
    pub fn new(store: Store, lifecycle: Lifecycle) -> Self {
        Self(Arc::new(Inner { store, lifecycle, watched: Mutex::default() }))
    }

    /// How `batch` stands from now on. It says no more once the batch has ended.
    pub fn follow(&self, batch: Batch) -> watch::Receiver<Batch> {
        let id = batch.id;
        match self.watched().entry(id) {
            Entry::Occupied(watched) => watched.get().subscribe(),
            Entry::Vacant(place) => {
                let (sender, receiver) = watch::channel(batch);
                place.insert(sender);
                self.0.lifecycle.spawn_background(self.clone().watch(id));
                receiver
            }
        }
    }

    async fn watch(self, id: BatchId) {
        while self.is_watched(id) {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.0.lifecycle.aborting() => break,
            }
            match self.0.store.batch(id).await {
                Ok(Some(batch)) => self.tell(batch),
                Ok(None) => break,
                Err(error) => warn!(batch.id = %id, %error, "could not look at a batch that is followed"),
            }
        }
        self.watched().remove(&id);
    }

    /// Whether somebody still follows the batch, and there is more to say of it.
    fn is_watched(&self, id: BatchId) -> bool {
        let mut watched = self.watched();
        let Entry::Occupied(entry) = watched.entry(id) else { return false };
        let goes_on = entry.get().receiver_count() > 0 && !entry.get().borrow().status.is_terminal();
        if !goes_on {
            entry.remove();
        }
        goes_on
    }

    fn tell(&self, batch: Batch) {
        if let Some(sender) = self.watched().get(&batch.id) {
            sender.send_if_modified(|known| {
                let is_news = *known != batch;
                *known = batch;
                is_news
            });
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<BatchId, watch::Sender<Batch>>> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
