//! Stores what came of tries: all that wait at a moment in one transaction, with no timer.

use std::time::Duration;

use common::{
    domain::time::Millis,
    lifecycle::Lifecycle,
    retry::Pauses,
    store::{
        connection::Store,
        settlements::{Settled, Settlement},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{error, warn};

/// The most tries in one transaction.
const GROUP: usize = 128;

struct Request {
    settlement: Settlement,
    done: oneshot::Sender<Settled>,
}

/// Where tries are brought when they are over. Cheap to clone.
#[derive(Clone)]
pub struct Settler(mpsc::Sender<Request>);

impl Settler {
    /// Starts the one task that commits.
    pub fn start(store: Store, lifecycle: &Lifecycle) -> Self {
        let (tx, rx) = mpsc::channel(GROUP * 4);
        lifecycle.spawn(commit_groups(store, rx, lifecycle.clone()));
        Self(tx)
    }

    /// Stores what came of a try, also when the database is away for a while. `None` when it could not be stored.
    pub async fn settle(&self, settlement: Settlement) -> Option<Settled> {
        let (done, stored) = oneshot::channel();
        self.0.send(Request { settlement, done }).await.ok()?;
        stored.await.ok()
    }
}

async fn commit_groups(store: Store, mut requests: mpsc::Receiver<Request>, lifecycle: Lifecycle) {
    let mut group = Vec::with_capacity(GROUP);
    while requests.recv_many(&mut group, GROUP).await > 0 {
        tokio::select! {
            () = commit(&store, std::mem::take(&mut group)) => {}
            // What is not stored is tried again, by whoever has the receiver when the lease is over.
            () = lifecycle.aborting() => return,
        }
    }
}

/// Commits all, or, when that fails, each by itself, so that one bad row does not hold up the others.
async fn commit(store: &Store, group: Vec<Request>) {
    let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(2), None);
    let (settlements, waiting): (Vec<_>, Vec<_>) =
        group.into_iter().map(|request| (request.settlement, request.done)).unzip();
    loop {
        match store.settle(&settlements, Millis::now()).await {
            Ok(settled) => {
                for (done, settled) in waiting.into_iter().zip(settled) {
                    // Whoever is gone has been told to stop.
                    let _ = done.send(settled);
                }
                return;
            }
            Err(error) if error.is_transient() => {
                warn!(%error, tries = settlements.len(), "could not store what came of webhooks; trying again");
                sleep(pauses.next_pause().unwrap_or_default()).await;
            }
            Err(error) if settlements.len() == 1 => {
                let delivery = settlements[0].delivery;
                return error!(%error, delivery.id = %delivery, "what came of a webhook cannot be stored");
            }
            Err(error) => {
                warn!(%error, tries = settlements.len(), "could not store a group of tries; storing them one by one");
                for (settlement, done) in settlements.into_iter().zip(waiting) {
                    Box::pin(commit(store, vec![Request { settlement, done }])).await;
                }
                return;
            }
        }
    }
}
