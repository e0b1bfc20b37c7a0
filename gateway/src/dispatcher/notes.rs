//! Rows of jobs that no worker has begun, written behind for listings: a read finds a job without its row on the queue.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    domain::{
        ids::{AccountId, MessageId},
        job::Job,
    },
    lifecycle::Lifecycle,
    queue::{connection::Connection, jobs},
    store::connection::Store,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::sleep,
};
use tracing::warn;

/// How long jobs are gathered before their rows are written in one go.
const GATHER: Duration = Duration::from_millis(500);
/// How much text may wait for its rows, in bytes. What comes on top has no row until a worker begins it.
const MOST_TEXT: usize = 32 << 20;
/// What a job takes beside its text, in bytes, about.
const ENVELOPE: usize = 512;
/// How many jobs are looked for at a time when many callers leave at once.
const SOUGHT_AT_ONCE: usize = 16;

/// Takes note of jobs.
#[derive(Clone)]
pub(super) struct Notes(Arc<Inner>);

struct Inner {
    connection: Connection,
    lifecycle: Lifecycle,
    sought: Semaphore,
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
    pub(super) fn start(store: Store, connection: Connection, lifecycle: &Lifecycle) -> Self {
        let notes = Self(Arc::new(Inner {
            connection,
            lifecycle: lifecycle.clone(),
            sought: Semaphore::new(SOUGHT_AT_ONCE),
            waiting: Mutex::default(),
            some: Notify::new(),
        }));
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

    /// A job that is on the queue, and whose caller waits. The job itself is not kept: its text is on the queue.
    pub(super) fn awaited(&self, account: AccountId, id: MessageId) -> Awaited<'_> {
        Awaited { notes: self, account, id, is_heard: false }
    }

    /// Notes a job whose caller is gone, unless a worker has finished it.
    async fn seek(self, account: AccountId, id: MessageId) {
        let found = async {
            let _turn = self.0.sought.acquire().await;
            jobs::find(&self.0.connection, account, id).await
        };
        let found = tokio::select! {
            found = found => found,
            () = self.0.lifecycle.aborting() => return,
        };
        match found {
            Ok(Some((job, _))) => self.queued(Arc::new(job)),
            Ok(None) => {}
            Err(error) => warn!(message.id = %id, %error, "could not look for the job of a caller who is gone"),
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

/// A job whose caller waits. When it is dropped before [`Awaited::heard`], its caller is gone: it is noted, so that lists
/// have it even when no worker has begun it.
pub(super) struct Awaited<'a> {
    notes: &'a Notes,
    account: AccountId,
    id: MessageId,
    is_heard: bool,
}

impl Awaited<'_> {
    /// A worker has begun it: there is a row.
    pub(super) fn heard(mut self) {
        self.is_heard = true;
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if !self.is_heard {
            self.notes.0.lifecycle.spawn_background(self.notes.clone().seek(self.account, self.id));
        }
    }
}
