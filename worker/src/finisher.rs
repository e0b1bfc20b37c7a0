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
    task::yield_now,
    time::sleep,
};
use tracing::{error, warn};

/// The most ends in one transaction.
const GROUP: usize = 256;
/// The most ends that wait for the commit before theirs to end.
const WAITING: usize = 512;

/// What came of storing an end.
#[derive(Debug)]
pub enum Stored {
    /// It is the message's end, with what was charged.
    First(Outcome),
    /// Another one had been stored before; this is that one.
    Earlier(Outcome),
}

struct Request {
    finish: Finish,
    done: oneshot::Sender<Stored>,
}

/// Where jobs bring their ends. Cheap to clone.
#[derive(Clone)]
pub struct Finisher(mpsc::Sender<Request>);

impl Finisher {
    /// Starts the one task that commits.
    pub fn start(store: Store, lifecycle: &Lifecycle) -> Self {
        let (tx, rx) = mpsc::channel(WAITING);
        lifecycle.spawn(commit_groups(store, rx));
        Self(tx)
    }

    /// Waits for a place in the queue of ends. Whoever has one needs no slot any more: more jobs can begin, and the
    /// next commit takes more ends. While the database is away there is no place, and no further job begins.
    pub async fn place(&self) -> Option<Place<'_>> {
        self.0.reserve().await.ok().map(Place)
    }
}

/// A place in the queue of ends.
pub struct Place<'a>(mpsc::Permit<'a, Request>);

impl Place<'_> {
    /// Stores the end of a job unless one is stored already: the first one wins. Returns once it is durable, also
    /// when the database is away for a while; dropping the future gives up waiting.
    pub async fn finish(self, job: Arc<Job>, outcome: Outcome) -> Option<Stored> {
        let (done, stored) = oneshot::channel();
        self.0.send(Request { finish: Finish { job, outcome }, done });
        stored.await.ok()
    }
}

async fn commit_groups(store: Store, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(GROUP);
    while requests.recv_many(&mut group, GROUP).await > 0 {
        // No timer: whoever is ready to bring an end brings it now, and a commit costs the same for one and for many.
        yield_now().await;
        while group.len() < GROUP
            && let Ok(request) = requests.try_recv()
        {
            group.push(request);
        }
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
async fn commit(store: &Store, mut group: Vec<Request>) {
    let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(2), None);
    loop {
        // A job whose task is gone was handed back to the queue: its end will come from another run.
        group.retain(|request| !request.done.is_closed());
        let (finishes, waiting): (Vec<_>, Vec<_>) = group.into_iter().map(|r| (r.finish, r.done)).unzip();
        let error = match store.finish(&finishes).await {
            Ok(committed) => return answer(finishes, waiting, committed),
            Err(error) => error,
        };
        group = finishes.into_iter().zip(waiting).map(|(finish, done)| Request { finish, done }).collect();
        if error.is_transient() {
            warn!(%error, jobs = group.len(), "could not store the ends of jobs; trying again");
            sleep(pauses.next_pause().unwrap_or_default()).await;
        } else if let [only] = group.as_slice() {
            return error!(%error, message.id = %only.finish.job.id, "the end of a job cannot be stored");
        } else {
            warn!(%error, jobs = group.len(), "could not store a group of ends; storing them one by one");
            for request in group {
                Box::pin(commit(store, vec![request])).await;
            }
            return;
        }
    }
}

fn answer(finishes: Vec<Finish>, waiting: Vec<oneshot::Sender<Stored>>, committed: Vec<Committed>) {
    for ((finish, done), committed) in finishes.into_iter().zip(waiting).zip(committed) {
        let stored = match committed {
            Committed::Won { credits_charged } => Stored::First(Outcome { credits_charged, ..finish.outcome }),
            Committed::Lost(earlier) => Stored::Earlier(earlier),
        };
        // Whoever is gone by now finds the end in the store.
        let _ = done.send(stored);
    }
}
