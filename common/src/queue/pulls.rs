//! What a worker has asked its queues for and has not got yet.

use std::time::Duration;

use tokio::time::Instant;

use super::place::Queue;
use crate::domain::job::Lane;

/// A pull without a sign of life for this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// One request for jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    /// Names it in its inbox.
    pub(super) number: u64,
    /// Which queue was asked.
    pub(super) queue: Queue,
    /// What is still to come of it, as far as one can tell: a job does not say which pull brought it.
    left: usize,
    /// Its last sign of life.
    seen: Instant,
    /// What the asker knew then.
    pub(super) asked_at: u64,
}

/// All pulls that are open.
#[derive(Debug)]
pub(super) struct Pulls {
    next: u64,
    open: Vec<Pull>,
    /// What is still to come, by [`Queue::index`].
    credits: Box<[usize; Queue::COUNT]>,
    /// The same of all slot queues of a lane.
    of_lanes: [usize; Lane::ALL.len()],
}

impl Default for Pulls {
    fn default() -> Self {
        Self { next: 0, open: Vec::new(), credits: Box::new([0; Queue::COUNT]), of_lanes: Default::default() }
    }
}

impl Pulls {
    /// Notes that `queue` is asked for `batch` jobs, by one who knew all until `asked_at`. Returns the pull's number.
    pub(super) fn open(&mut self, queue: Queue, batch: usize, asked_at: u64, now: Instant) -> u64 {
        self.next += 1;
        self.open.push(Pull { number: self.next, queue, left: batch, seen: now, asked_at });
        self.count(queue, |credits| credits + batch);
        self.next
    }

    /// How many jobs of `queue` are still to come.
    pub(super) fn credits(&self, queue: Queue) -> usize {
        self.credits[queue.index()]
    }

    /// How many of the slot queues of `lane`.
    pub(super) fn credits_of(&self, lane: Lane) -> usize {
        self.of_lanes[lane.index()]
    }

    /// A job of `queue` has come: by the oldest pull, as far as one can tell. What its asker knew; `None` when nobody
    /// has asked, as far as one remembers.
    pub(super) fn came(&mut self, queue: Queue, now: Instant) -> Option<u64> {
        let oldest = self.open.iter().position(|pull| pull.queue == queue)?;
        for pull in self.open.iter_mut().filter(|pull| pull.queue == queue) {
            pull.seen = now;
        }
        self.count(queue, |credits| credits - 1);
        let pull = &mut self.open[oldest];
        pull.left -= 1;
        let asked_at = pull.asked_at;
        if pull.left == 0 {
            self.open.remove(oldest);
        }
        Some(asked_at)
    }

    /// The pull `number` still waits.
    pub(super) fn lives(&mut self, number: u64, now: Instant) {
        for pull in self.open.iter_mut().filter(|pull| pull.number == number) {
            pull.seen = now;
        }
    }

    /// The pull `number` has ended: what it had left does not come.
    pub(super) fn close(&mut self, number: u64) -> Option<Pull> {
        let at = self.open.iter().position(|pull| pull.number == number)?;
        let pull = self.open.remove(at);
        self.count(pull.queue, |credits| credits - pull.left);
        Some(pull)
    }

    /// Whether the server has forgotten one of them.
    pub(super) fn is_one_lost(&self, now: Instant) -> bool {
        self.open.iter().any(|pull| now.saturating_duration_since(pull.seen) > LOST_AFTER)
    }

    /// Forgets them all. Their numbers are not given again.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.credits.fill(0);
        self.of_lanes.fill(0);
    }

    fn count(&mut self, queue: Queue, change: impl Fn(usize) -> usize) {
        let credits = &mut self.credits[queue.index()];
        *credits = change(*credits);
        if queue != Queue::FRONT {
            let of_lane = &mut self.of_lanes[queue.lane.index()];
            *of_lane = change(*of_lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::place::Place, *};

    const BATCH: Queue = Queue { lane: Lane::Batch, place: Place::Slot(3) };

    #[tokio::test(start_paused = true)]
    async fn credits_are_what_is_asked_for_and_has_not_come() {
        let (mut pulls, now) = (Pulls::default(), Instant::now());
        let first = pulls.open(BATCH, 2, 0, now);
        let second = pulls.open(BATCH, 3, 0, now);
        pulls.open(Queue::FRONT, 1, 0, now);
        assert_eq!((pulls.credits(BATCH), pulls.credits(Queue::FRONT)), (5, 1));
        assert_eq!((pulls.credits_of(Lane::Batch), pulls.credits_of(Lane::Interactive)), (5, 0));
        pulls.came(BATCH, now);
        assert_eq!(pulls.credits(BATCH), 4);
        pulls.close(first);
        assert_eq!(pulls.credits(BATCH), 3);
        for _ in 0..5 {
            pulls.came(BATCH, now);
        }
        assert_eq!((pulls.credits(BATCH), pulls.close(second).is_none()), (0, true));
        pulls.clear();
        assert_eq!(pulls.credits(Queue::FRONT), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_that_says_nothing_is_lost() {
        let (mut pulls, now) = (Pulls::default(), Instant::now());
        let pull = pulls.open(BATCH, 2, 0, now);
        assert!(!pulls.is_one_lost(now + LOST_AFTER));
        pulls.lives(pull, now + LOST_AFTER);
        assert!(!pulls.is_one_lost(now + 2 * LOST_AFTER));
        pulls.came(BATCH, now + 2 * LOST_AFTER);
        assert!(!pulls.is_one_lost(now + 3 * LOST_AFTER));
        assert!(pulls.is_one_lost(now + 4 * LOST_AFTER));
    }
}
