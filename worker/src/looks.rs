//! Looks at what may keep a job from being run: that its batch was stopped, or that an equal one has ended. All that
//! come while one look is under way share the next one; none is answered by a look that began before it came.

use std::collections::{BTreeSet, HashMap, HashSet};

use common::{
    domain::{
        ids::{BatchId, MessageId},
        job::Job,
        reply::Outcome,
    },
    lifecycle::Lifecycle,
    store::{connection::Store, error::StoreError},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

/// The most jobs of one look.
const GROUP: usize = 256;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Nothing: it may run.
    Free,
    /// Its batch was stopped.
    Stopped,
    /// It is over, and this is how it ended.
    Ended(Outcome),
}

struct Request {
    batch: Option<BatchId>,
    /// The job whose end is looked for.
    job: Option<MessageId>,
    seen: oneshot::Sender<Result<Seen, StoreError>>,
}

/// Where jobs ask. Cheap to clone.
#[derive(Clone)]
pub struct Looks(mpsc::Sender<Request>);

impl Looks {
    /// Starts the one task that looks.
    pub fn start(store: Store, lifecycle: &Lifecycle) -> Self {
        let (tx, rx) = mpsc::channel(GROUP);
        lifecycle.spawn(look_for_groups(store, rx));
        Self(tx)
    }

    /// Whether `job` may run, as its batch stands now; `again`: and whether it has ended. `None` when nobody looks any
    /// more.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn look(&self, job: &Job, again: bool) -> Option<Result<Seen, StoreError>> {
        let (seen, answer) = oneshot::channel();
        let batch = job.batch.as_ref().map(|line| line.batch);
        self.0.send(Request { batch, job: again.then_some(job.id), seen }).await.ok()?;
        answer.await.ok()
    }
}

async fn look_for_groups(store: Store, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(GROUP);
    while requests.recv_many(&mut group, GROUP).await > 0 {
        // No timer: whoever is ready to ask asks now, and a look costs the same for one and for many.
        yield_now().await;
        while group.len() < GROUP
            && let Ok(request) = requests.try_recv()
        {
            group.push(request);
        }
        // Whoever is gone by now looks again when its job comes back.
        group.retain(|request: &Request| !request.seen.is_closed());
        let found = look(&store, &group).await;
        for Request { batch, job, seen } in group.drain(..) {
            let _ = seen.send(found.as_ref().map(|found| found.of(batch, job)).map_err(Clone::clone));
        }
    }
}

/// What a group's look has found.
struct Found {
    stopped: HashSet<BatchId>,
    ended: HashMap<MessageId, Outcome>,
}

async fn look(store: &Store, group: &[Request]) -> Result<Found, StoreError> {
    let batches: BTreeSet<_> = group.iter().filter_map(|request| request.batch).collect();
    let jobs: Vec<_> = group.iter().filter_map(|request| request.job).collect();
    Ok(Found {
        stopped: store.stopped_batches(&batches.into_iter().collect::<Vec<_>>()).await?,
        ended: store.outcomes(&jobs).await?.into_iter().collect(),
    })
}

impl Found {
    fn of(&self, batch: Option<BatchId>, job: Option<MessageId>) -> Seen {
        if let Some(outcome) = job.and_then(|job| self.ended.get(&job)) {
            return Seen::Ended(outcome.clone());
        }
        if batch.is_some_and(|batch| self.stopped.contains(&batch)) { Seen::Stopped } else { Seen::Free }
    }
}
