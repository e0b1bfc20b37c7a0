//! Jobs that their callers have stopped: told to the runs of this worker, and remembered for those still on their way.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    domain::ids::MessageId,
    lifecycle::Lifecycle,
    queue::{cancel::CancelReceiver, connection::Link},
    store::connection::Store,
};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

/// How long a stopped job is remembered that does not run here. One that was handed out before it was taken off the
/// queue, and waits for a slot, has begun by then.
const KEEP: Duration = Duration::from_secs(15 * 60);
/// How many of them, at most.
const MOST: usize = 65_536;

/// What runs on this worker, and what was stopped lately.
#[derive(Default)]
pub struct Cancels(Mutex<State>);

#[derive(Default)]
struct State {
    running: HashMap<MessageId, watch::Sender<bool>>,
    recent: HashSet<MessageId>,
    /// The same in the order in which they came.
    order: VecDeque<(Instant, MessageId)>,
}

impl Cancels {
    /// Registers a run of `id` until the returned value is dropped.
    pub fn register(self: &Arc<Self>, id: MessageId) -> CancelWatch {
        let mut state = self.state();
        let stopped = state.recent.contains(&id);
        // A job may run twice here: its queue took this worker for dead.
        let told = state.running.entry(id).or_insert_with(|| watch::Sender::new(stopped)).subscribe();
        CancelWatch { cancels: self.clone(), id, told: Some(told) }
    }

    /// Stops every run of `id` here, now and for a while.
    pub fn stop(&self, id: MessageId) {
        let mut state = self.state();
        if let Some(run) = state.running.get(&id) {
            run.send_replace(true);
        }
        state.remember(id, Instant::now());
    }

    /// What runs here.
    fn running(&self) -> Vec<MessageId> {
        self.state().running.keys().copied().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, id: MessageId, now: Instant) {
        while let Some((since, oldest)) = self.order.front().copied()
            && (now.duration_since(since) > KEEP || self.order.len() >= MOST)
        {
            self.order.pop_front();
            self.recent.remove(&oldest);
        }
        if self.recent.insert(id) {
            self.order.push_back((now, id));
        }
    }
}

/// One registered run.
pub struct CancelWatch {
    cancels: Arc<Cancels>,
    id: MessageId,
    /// Present until this is dropped.
    told: Option<watch::Receiver<bool>>,
}

impl CancelWatch {
    /// Waits until the job is stopped.
    pub async fn stopped(&mut self) {
        let Some(told) = &mut self.told else { return };
        if told.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for CancelWatch {
    fn drop(&mut self) {
        let mut state = self.cancels.state();
        // Within the lock: of two runs that end at once, one has to be the last.
        self.told = None;
        if state.running.get(&self.id).is_some_and(|run| run.receiver_count() == 0) {
            state.running.remove(&self.id);
        }
    }
}

/// Passes on what `receiver` hears, until there is nothing left to stop.
pub async fn listen(
    cancels: Arc<Cancels>,
    mut receiver: CancelReceiver,
    mut link: watch::Receiver<Link>,
    store: Store,
    lifecycle: Lifecycle,
) {
    loop {
        tokio::select! {
            () = lifecycle.aborting() => return,
            heard = receiver.next() => match heard {
                Some(id) => cancels.stop(id),
                None => return,
            },
            // While the connection was down, nothing was heard.
            changed = link.changed() => match changed {
                Ok(()) if link.borrow_and_update().up => stop_the_ended(&cancels, &store).await,
                Ok(()) => {}
                Err(_) => return,
            },
        }
    }
}

/// Stops what runs here although it has an end already.
async fn stop_the_ended(cancels: &Cancels, store: &Store) {
    match store.outcomes(&cancels.running()).await {
        Ok(ended) => {
            for (id, outcome) in ended {
                info!(message.id = %id, status = %outcome.status, "stopping a run whose job has ended");
                cancels.stop(id);
            }
        }
        Err(error) => warn!(%error, "could not look for runs that were stopped meanwhile"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    async fn is_stopped(run: &mut CancelWatch) -> bool {
        timeout(Duration::ZERO, run.stopped()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn every_run_of_a_stopped_job_is_told_and_no_other() {
        let cancels = Arc::new(Cancels::default());
        let (one, other) = (MessageId::new(), MessageId::new());
        let (mut first, mut second, mut stranger) =
            (cancels.register(one), cancels.register(one), cancels.register(other));
        assert!(!is_stopped(&mut first).await);
        cancels.stop(one);
        assert!(is_stopped(&mut first).await && is_stopped(&mut second).await);
        assert!(!is_stopped(&mut stranger).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_comes_after_its_stop_is_told_at_once_for_a_while() {
        let cancels = Arc::new(Cancels::default());
        let id = MessageId::new();
        cancels.stop(id);
        assert!(is_stopped(&mut cancels.register(id)).await);
        advance(KEEP + Duration::from_secs(1)).await;
        cancels.stop(MessageId::new());
        assert!(!is_stopped(&mut cancels.register(id)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_runs_that_are_over_and_little_of_stops() {
        let cancels = Arc::new(Cancels::default());
        let id = MessageId::new();
        let (first, second) = (cancels.register(id), cancels.register(id));
        drop(first);
        assert_eq!(cancels.running(), [id]);
        drop(second);
        assert!(cancels.running().is_empty());
        for _ in 0..MOST + 10 {
            cancels.stop(MessageId::new());
        }
        let state = cancels.state();
        assert_eq!((state.order.len(), state.recent.len()), (MOST, MOST));
    }
}
