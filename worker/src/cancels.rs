//! Jobs and batches that their callers have stopped: told to the runs of this worker, and remembered for those still on their way.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    domain::{
        ids::{BatchId, MessageId},
        job::Job,
    },
    lifecycle::Lifecycle,
    queue::{cancel::CancelReceiver, connection::Link},
    store::{connection::Store, error::StoreError},
};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};
use uuid::Uuid;

/// How long a stopped job is remembered that does not run here. One that was handed out before it was taken off the
/// queue, and waits for a slot, has begun by then.
const KEEP: Duration = Duration::from_secs(15 * 60);
/// How many of them, at most.
const MOST: usize = 65_536;

/// What runs on this worker, and what was stopped lately.
#[derive(Default)]
pub struct Cancels(Mutex<State>);

/// Jobs and batches by their ids, of which no two are the same.
#[derive(Default)]
struct State {
    running: HashMap<Uuid, watch::Sender<bool>>,
    recent: HashSet<Uuid>,
    /// The same in the order in which they came.
    order: VecDeque<(Instant, Uuid)>,
}

impl Cancels {
    /// Registers a run of `job` until the returned value is dropped.
    pub fn register(self: &Arc<Self>, job: &Job) -> CancelWatch {
        let mut state = self.state();
        let told = state.listen(job.id.0);
        let told_batch = job.batch.as_ref().map(|line| state.listen(line.batch.0));
        CancelWatch { cancels: self.clone(), told, told_batch }
    }

    /// Stops every run here of the job `id`, or of each line of the batch `id`, now and for a while.
    pub fn stop(&self, id: Uuid) {
        let mut state = self.state();
        if let Some(run) = state.running.get(&id) {
            run.send_replace(true);
        }
        state.remember(id, Instant::now());
    }

    /// Stops lines that run here although their batch was stopped.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn stop_lines(&self, store: &Store) -> Result<(), StoreError> {
        let running: Vec<_> = self.running().into_iter().map(BatchId).collect();
        for batch in store.stopped_batches(&running).await? {
            self.stop(batch.0);
        }
        Ok(())
    }

    /// Which jobs run here, and of which batches.
    fn running(&self) -> Vec<Uuid> {
        self.state().running.keys().copied().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn listen(&mut self, id: Uuid) -> Ear {
        let stopped = self.recent.contains(&id);
        // A job may run twice here: its queue took this worker for dead.
        let told = self.running.entry(id).or_insert_with(|| watch::Sender::new(stopped)).subscribe();
        Ear { id, told: Some(told) }
    }

    /// Within the lock: of two runs that end at once, one has to be the last.
    fn forget(&mut self, ear: &mut Ear) {
        ear.told = None;
        if self.running.get(&ear.id).is_some_and(|run| run.receiver_count() == 0) {
            self.running.remove(&ear.id);
        }
    }

    fn remember(&mut self, id: Uuid, now: Instant) {
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
    told: Ear,
    told_batch: Option<Ear>,
}

/// Hears that a job or batch is stopped.
struct Ear {
    id: Uuid,
    /// Present until the run is over.
    told: Option<watch::Receiver<bool>>,
}

impl CancelWatch {
    /// Waits until the job or its batch is stopped.
    pub async fn stopped(&mut self) {
        let batch = async {
            match &mut self.told_batch {
                Some(ear) => ear.stopped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.told.stopped() => {}
            () = batch => {}
        }
    }
}

impl Ear {
    async fn stopped(&mut self) {
        let Some(told) = &mut self.told else { return };
        if told.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for CancelWatch {
    fn drop(&mut self) {
        let mut state = self.cancels.state();
        state.forget(&mut self.told);
        self.told_batch.iter_mut().for_each(|ear| state.forget(ear));
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

/// Stops what runs here although it has an end already, or its batch was stopped.
async fn stop_the_ended(cancels: &Cancels, store: &Store) {
    let jobs: Vec<_> = cancels.running().into_iter().map(MessageId).collect();
    let ended = store.outcomes(&jobs).await.inspect(|ended| {
        for (id, outcome) in ended {
            info!(message.id = %id, status = %outcome.status, "stopping a run whose job has ended");
            cancels.stop(id.0);
        }
    });
    if let Err(error) = ended.and(cancels.stop_lines(store).await) {
        warn!(%error, "could not look for runs that were stopped meanwhile");
    }
}

#[cfg(test)]
mod tests {
    use common::domain::batch::BatchLine;
    use serde_json::json;
    use tokio::time::{advance, timeout};

    use super::*;

    fn job(batch: Option<BatchId>) -> Job {
        let id = MessageId::new();
        let envelope = json!({
            "v": 1, "id": id, "account": id, "key": id, "agent": id, "agent_version": 1, "channel": "api",
            "lane": "batch", "turns": [], "created_at": 1, "publish_by": 2, "start_by": 3,
        });
        let job: Job = serde_json::from_value(envelope).expect("a job");
        Job { batch: batch.map(|batch| BatchLine { batch, line: 1, custom_id: String::new() }), ..job }
    }

    async fn is_stopped(run: &mut CancelWatch) -> bool {
        timeout(Duration::ZERO, run.stopped()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn every_run_of_a_stopped_job_is_told_and_no_other() {
        let cancels = Arc::new(Cancels::default());
        let (one, other) = (job(None), job(None));
        let (mut first, mut second, mut stranger) =
            (cancels.register(&one), cancels.register(&one), cancels.register(&other));
        assert!(!is_stopped(&mut first).await);
        cancels.stop(one.id.0);
        assert!(is_stopped(&mut first).await && is_stopped(&mut second).await);
        assert!(!is_stopped(&mut stranger).await);
    }

    #[tokio::test(start_paused = true)]
    async fn every_line_of_a_stopped_batch_is_told_and_no_other() {
        let cancels = Arc::new(Cancels::default());
        let (stopped, other) = (Some(BatchId::new()), Some(BatchId::new()));
        let [mut first, mut second] = [stopped; 2].map(|batch| cancels.register(&job(batch)));
        let alone = job(stopped);
        let mut alone_run = cancels.register(&alone);
        let [mut stranger, mut of_none] = [other, None].map(|batch| cancels.register(&job(batch)));
        cancels.stop(alone.id.0);
        assert!(is_stopped(&mut alone_run).await && !is_stopped(&mut first).await);
        cancels.stop(stopped.expect("a batch").0);
        assert!(is_stopped(&mut first).await && is_stopped(&mut second).await);
        assert!(!is_stopped(&mut stranger).await && !is_stopped(&mut of_none).await);
        assert!(is_stopped(&mut cancels.register(&job(stopped))).await, "also one that comes later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_comes_after_its_stop_is_told_at_once_for_a_while() {
        let cancels = Arc::new(Cancels::default());
        let late = job(None);
        cancels.stop(late.id.0);
        assert!(is_stopped(&mut cancels.register(&late)).await);
        advance(KEEP + Duration::from_secs(1)).await;
        cancels.stop(MessageId::new().0);
        assert!(!is_stopped(&mut cancels.register(&late)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_runs_that_are_over_and_little_of_stops() {
        let cancels = Arc::new(Cancels::default());
        let batch = BatchId::new();
        let (one, other) = (job(Some(batch)), job(Some(batch)));
        let (first, second, third) = (cancels.register(&one), cancels.register(&one), cancels.register(&other));
        drop((first, third));
        let running: HashSet<_> = cancels.running().into_iter().collect();
        assert_eq!(running, HashSet::from([one.id.0, batch.0]));
        drop(second);
        assert!(cancels.running().is_empty());
        for _ in 0..MOST + 10 {
            cancels.stop(MessageId::new().0);
        }
        let state = cancels.state();
        assert_eq!((state.order.len(), state.recent.len()), (MOST, MOST));
    }
}
