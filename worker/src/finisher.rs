//! Stores the ends of jobs: all that wait at a moment in one transaction, with no timer.

use std::{collections::HashSet, sync::Arc, time::Duration};

use common::{
    domain::{job::Job, reply::Outcome},
    lifecycle::Lifecycle,
    retry::Pauses,
    store::{
        connection::Store,
        messages::{Committed, Finish},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{error, warn};

/// The most ends in one transaction.
const GROUP: usize = 256;

struct Request {
    finish: Finish,
    done: oneshot::Sender<Committed>,
}

/// Where jobs bring their ends. Cheap to clone.
#[derive(Clone)]
pub struct Finisher(mpsc::Sender<Request>);

impl Finisher {
    /// Starts the one task that commits.
    pub fn start(store: Store, lifecycle: &Lifecycle) -> Self {
        let (tx, rx) = mpsc::channel(GROUP * 4);
        lifecycle.spawn(commit_groups(store, rx));
        Self(tx)
    }

    /// Stores the end of a job unless one is stored already: the first one wins. Returns once it is durable, also
    /// when the database is away for a while; dropping the future gives up waiting.
    pub async fn finish(&self, job: Arc<Job>, outcome: Outcome) -> Option<Committed> {
        let (done, committed) = oneshot::channel();
        self.0.send(Request { finish: Finish { job, outcome }, done }).await.ok()?;
        committed.await.ok()
    }
}

async fn commit_groups(store: Store, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(GROUP);
    while requests.recv_many(&mut group, GROUP).await > 0 {
        while !group.is_empty() {
            let rest = take_doubles(&mut group);
            commit(&store, std::mem::replace(&mut group, rest)).await;
        }
    }
}

/// Leaves each job once in `group`; a job that was handed out twice has its second end in the returned rest.
fn take_doubles(group: &mut Vec<Request>) -> Vec<Request> {
    let mut seen = HashSet::with_capacity(group.len());
    group.extract_if(.., |request| !seen.insert(request.finish.job.id)).collect()
}

/// Commits all, or, when that fails, each by itself, so that one bad row does not hold up the others.
async fn commit(store: &Store, group: Vec<Request>) {
    let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(2), None);
    let mut waiting = group;
    loop {
        // A job whose task is gone was handed back to the queue: its end will come from another run.
        waiting.retain(|request| !request.done.is_closed());
        let finishes: Vec<Finish> = waiting.iter().map(|request| request.finish.clone()).collect();
        if finishes.is_empty() {
            return;
        }
        match store.finish(&finishes).await {
            Ok(committed) => return answer(waiting, committed),
            Err(error) if error.is_transient() => {
                warn!(%error, jobs = waiting.len(), "could not store the ends of jobs; trying again");
                sleep(pauses.next_pause().unwrap_or_default()).await;
            }
            Err(error) if waiting.len() == 1 => {
                error!(%error, message.id = %waiting[0].finish.job.id, "the end of a job cannot be stored");
                return;
            }
            Err(error) => {
                warn!(%error, jobs = waiting.len(), "could not store a group of ends; storing them one by one");
                for request in waiting {
                    Box::pin(commit(store, vec![request])).await;
                }
                return;
            }
        }
    }
}

fn answer(group: Vec<Request>, committed: Vec<Committed>) {
    for (request, committed) in group.into_iter().zip(committed) {
        let _ = request.done.send(committed);
    }
}
