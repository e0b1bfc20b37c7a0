//! Stores the ends of jobs: all that wait at a moment in one transaction, with no timer; then has each concluded.
//!
//! A job's own task ends when its end has its place here. One task keeps all that wait alive on the queue: with a task
//! and a timer for each, waiting took longer than storing.

use std::{collections::HashSet, future::Future, mem, pin::pin, sync::Arc, time::Duration};

use common::{
    domain::{job::Job, reply::Outcome},
    retry::Pauses,
    sabotage::{self, Bug, Point},
    store::{
        error::StoreError,
        messages::{Committed, Finish},
    },
};
use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::yield_now,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout},
};
use tracing::{Instrument as _, error, warn};

use crate::conclusion::{Conclusion, Rest, STORE_DELAY};

/// The most ends in one transaction.
const GROUP: usize = 256;
/// The most ends that wait, those included that are being stored.
const WAITING: usize = 768;
/// A commit that has begun may take this long when everything has to be dropped: its answers need not be made again.
const LAST_COMMIT: Duration = Duration::from_secs(1);

/// An end on its way to the store.
struct Ending {
    finish: Finish,
    left: Left,
}

/// What is left of its job meanwhile.
struct Left {
    rest: Rest,
    /// Given back when the end is stored.
    place: OwnedSemaphorePermit,
}

/// Where jobs bring their ends. Cheap to clone.
#[derive(Clone)]
pub struct Finisher {
    places: Arc<Semaphore>,
    endings: mpsc::UnboundedSender<Ending>,
}

/// A place among the ends that wait.
pub struct Place<'a> {
    finisher: &'a Finisher,
    permit: OwnedSemaphorePermit,
}

/// The ends that jobs bring.
pub struct Endings {
    endings: mpsc::UnboundedReceiver<Ending>,
}

impl Finisher {
    /// Both sides. Nothing is stored before [`Endings::store`].
    pub fn new() -> (Self, Endings) {
        let (tx, endings) = mpsc::unbounded_channel();
        (Self { places: Arc::new(Semaphore::new(WAITING)), endings: tx }, Endings { endings })
    }

    /// Waits for a place among the ends that wait. Whoever has one needs no slot any more: more jobs can begin, and the
    /// next commit takes more ends. While the database is away there is no place, and no further job begins.
    pub async fn place(&self) -> Option<Place<'_>> {
        let permit = self.places.clone().acquire_owned().await.ok()?;
        Some(Place { finisher: self, permit })
    }
}

impl Place<'_> {
    /// Leaves the end of a job, to be stored unless one is stored already: the first one wins. The job is kept alive,
    /// concluded or handed back from here. It comes back when nobody stores ends any more.
    pub fn leave(self, job: Arc<Job>, outcome: Outcome, rest: Rest) -> Result<(), Box<Rest>> {
        let ending = Ending { finish: Finish { job, outcome }, left: Left { rest, place: self.permit } };
        self.finisher.endings.send(ending).map_err(|refused| Box::new(refused.0.left.rest))
    }
}

impl Endings {
    /// Stores what is brought until nobody brings anything, or all has to be dropped. A job that waits says that it is
    /// alive every `heartbeat`.
    pub async fn store(self, conclusion: Arc<Conclusion>, heartbeat: Duration) {
        let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut committer = Committer { conclusion, endings: self.endings, waiting: Vec::new(), beat };
        while committer.gather().await {
            let group = committer.next_group();
            committer.commit(group, &[]).await;
        }
    }
}

struct Committer {
    conclusion: Arc<Conclusion>,
    endings: mpsc::UnboundedReceiver<Ending>,
    /// What came while a group was stored.
    waiting: Vec<Ending>,
    beat: Interval,
}

impl Committer {
    /// Takes all that is there, and waits for the first. Whether there is one.
    async fn gather(&mut self) -> bool {
        if self.waiting.is_empty() && self.endings.recv_many(&mut self.waiting, GROUP).await == 0 {
            return false;
        }
        // No timer: whoever is ready to bring an end brings it now, and a commit costs the same for one and for many.
        yield_now().await;
        self.take_in();
        true
    }

    fn take_in(&mut self) {
        while let Ok(ending) = self.endings.try_recv() {
            self.waiting.push(ending);
        }
    }

    /// The next ends to be stored together, each job once: one that was handed out twice has its second end later.
    fn next_group(&mut self) -> Vec<Ending> {
        let mut taken = HashSet::with_capacity(self.waiting.len().min(GROUP));
        let fits = |ending: &mut Ending| taken.len() < GROUP && taken.insert(ending.finish.job.id);
        self.waiting.extract_if(.., fits).collect()
    }

    /// Stores all, or, when that fails, each by itself, so that one bad row does not hold up the others. `others` wait
    /// for their turn.
    async fn commit(&mut self, group: Vec<Ending>, others: &[Ending]) {
        let store = self.conclusion.store.clone();
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(2), None);
        let (finishes, left): (Vec<_>, Vec<_>) = group.into_iter().map(|ending| (ending.finish, ending.left)).unzip();
        self.sabotage(&finishes, &left).await;
        let error = loop {
            let error = match self.meanwhile(&left, others, store.finish(&finishes), LAST_COMMIT).await {
                Some(Ok(committed)) => return self.conclude(finishes, left, committed),
                Some(Err(error)) => error,
                None => return self.hand_back(finishes, left),
            };
            if !error.is_transient() {
                break error;
            }
            warn!(%error, jobs = left.len(), "could not store the ends of jobs; trying again");
            let pause = sleep(pauses.next_pause().unwrap_or_default());
            if self.meanwhile(&left, others, pause, Duration::ZERO).await.is_none() {
                return self.hand_back(finishes, left);
            }
        };
        if let ([finish], [left]) = (finishes.as_slice(), left.as_slice()) {
            return refuse(&finish.job, left, &error).await;
        }
        warn!(%error, jobs = left.len(), "could not store a group of ends; storing them one by one");
        self.commit_each(finishes.into_iter().zip(left).map(|(finish, left)| Ending { finish, left }).collect()).await;
    }

    /// What must not happen before the commit, where that was planted.
    async fn sabotage(&self, finishes: &[Finish], left: &[Left]) {
        for (Finish { job, outcome }, Left { rest, .. }) in finishes.iter().zip(left) {
            if sabotage::has(Bug::ReplyBeforeCommit) {
                self.conclusion.replies.terminal(job.reply_to, rest.last.telling(outcome.clone())).await;
            }
            if sabotage::has(Bug::AckBeforeCommit) {
                rest.delivery.ack().await;
            }
        }
        if sabotage::has(Bug::ReplyBeforeCommit) || sabotage::has(Bug::AckBeforeCommit) {
            // Until what was said has left.
            sleep(Duration::from_millis(50)).await;
        }
        sabotage::reach(Point::BeforeCommit);
    }

    async fn commit_each(&mut self, mut group: Vec<Ending>) {
        while let Some(ending) = group.pop() {
            Box::pin(self.commit(vec![ending], &group)).await;
        }
    }

    /// What `work` gives. Until then all that waits is kept alive. `None` when everything has to be dropped, and `work`
    /// takes longer than `rest` from then on.
    async fn meanwhile<T>(
        &mut self,
        left: &[Left],
        others: &[Ending],
        work: impl Future<Output = T>,
        rest: Duration,
    ) -> Option<T> {
        let mut work = pin!(work);
        let conclusion = self.conclusion.clone();
        loop {
            tokio::select! {
                biased;
                done = work.as_mut() => return Some(done),
                _ = self.beat.tick() => {
                    self.take_in();
                    let waiting = others.iter().chain(&self.waiting).map(|ending| &ending.left);
                    join_all(left.iter().chain(waiting).map(|left| left.rest.delivery.in_progress())).await;
                }
                () = conclusion.lifecycle.aborting() => return timeout(rest, work).await.ok(),
            }
        }
    }

    /// In a task of their own: the next group need not wait until all are told.
    fn conclude(&self, finishes: Vec<Finish>, left: Vec<Left>, committed: Vec<Committed>) {
        let conclusion = self.conclusion.clone();
        let conclude = async move {
            let each =
                left.into_iter().zip(finishes).zip(committed).map(|((Left { rest, place }, finish), committed)| {
                    drop(place);
                    let (conclusion, span) = (&conclusion, rest.span.clone());
                    async move { conclusion.conclude(&rest, finish, committed).await }.instrument(span)
                });
            join_all(each).await;
        };
        self.conclusion.lifecycle.spawn(conclude);
    }

    /// Hands back what is not stored, and all that waits.
    fn hand_back(&mut self, finishes: Vec<Finish>, left: Vec<Left>) {
        self.take_in();
        let waiting = mem::take(&mut self.waiting).into_iter().map(|ending| (ending.finish, ending.left));
        for (finish, Left { rest, .. }) in finishes.into_iter().zip(left).chain(waiting) {
            let (conclusion, span) = (self.conclusion.clone(), rest.span.clone());
            let hand_back = async move { conclusion.hand_back(&rest.delivery, &finish.job, None).await };
            self.conclusion.lifecycle.spawn(hand_back.instrument(span));
        }
    }
}

/// It counts as a start: an end that can never be stored must not be run for ever.
async fn refuse(job: &Job, left: &Left, error: &StoreError) {
    error!(%error, message.id = %job.id, "the end of a job cannot be stored");
    left.rest.delivery.retry_after(Some(STORE_DELAY)).await;
}
