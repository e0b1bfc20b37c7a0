//! Rows of submitted jobs, written behind for listings: a read finds a job without its row on the queue.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{domain::job::Job, lifecycle::Lifecycle, store::connection::Store};
use tokio::{sync::Notify, time::sleep};
use tracing::warn;

/// How long jobs are gathered before their rows are written in one go.
const GATHER: Duration = Duration::from_millis(500);
/// How much text may wait for its rows, in bytes. What comes on top has no row until a worker begins it.
const MOST_TEXT: usize = 32 << 20;
/// What a job takes beside its text, in bytes, about.
const ENVELOPE: usize = 512;

/// Takes note of submitted jobs.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Arc<Job>>,
    text: usize,
}

impl Notes {
    /// Notes whose rows are written to `store` until the process drops what is left, and once more then.
    pub(super) fn start(store: Store, lifecycle: &Lifecycle) -> Self {
        let notes = Self::default();
        lifecycle.spawn_background(notes.clone().write_behind(store, lifecycle.clone()));
        notes
    }

    /// Notes that `job` is on the queue. Never blocks; when the store does not keep up, the row is left out.
    pub(super) fn queued(&self, job: Arc<Job>) {
        let text = ENVELOPE + job.turns.iter().map(|turn| turn.content.len()).sum::<usize>();
        let mut waiting = self.waiting();
        if waiting.text + text > MOST_TEXT {
            return;
        }
        waiting.text += text;
        waiting.jobs.push(job);
        if waiting.jobs.len() == 1 {
            self.0.some.notify_one();
        }
    }

    async fn write_behind(self, store: Store, lifecycle: Lifecycle) {
        loop {
            let gathered = async {
                self.0.some.notified().await;
                sleep(GATHER).await;
            };
            let is_last = tokio::select! {
                () = gathered => false,
                () = lifecycle.aborting() => true,
            };
            let Waiting { jobs, .. } = mem::take(&mut *self.waiting());
            if !jobs.is_empty()
                && let Err(error) = store.mark_queued(&jobs).await
            {
                warn!(%error, jobs = jobs.len(), "could not write the rows of queued jobs");
            }
            if is_last {
                return;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
