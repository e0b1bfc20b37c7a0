//! Which queues a worker asks next, and for how many jobs: who has the fewest here comes first.

use tokio::time::Instant;

use super::{depths::Depth, place::Queue, pulls::Pulls, queues::MAX_ACK_PENDING, slots::Slots, wakes::SlotSet};
use crate::domain::job::Lane;

/// How many jobs are asked for in front while none is known to be there: what comes suddenly begins at once. More are
/// asked for as soon as half of them have come.
const STANDING: usize = 32;
/// After so many jobs of the front in a row, one of an `interactive` slot queue has its turn.
const FRONT_TURNS: u32 = 7;
/// As many as there may be: somebody said that there are some.
const SOME: u64 = u64::MAX;

/// What is known of one queue.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Jobs that wait there, as far as one can tell.
    waiting: u64,
    /// Jobs that run here.
    running: usize,
    /// How many of them may, over all workers.
    most: usize,
    /// The number of the last news that some wait.
    news: u64,
    /// How many turns it has had. Who comes later begins where the others are.
    turns: u64,
    /// Not to be asked before this moment.
    resume_at: Option<Instant>,
}

/// A queue to be asked for some jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) queue: Queue,
    pub(super) batch: usize,
}

/// One that may get slots in this round.
struct Candidate {
    queue: Queue,
    /// What it has here, and what is on its way.
    has: usize,
    granted: usize,
    /// What it can be granted.
    most: usize,
    turns: u64,
}

impl Candidate {
    fn wants(&self) -> bool {
        self.granted < self.most
    }

    fn total(&self) -> usize {
        self.has + self.granted
    }

    /// The fewest jobs come first; of these, the fewest turns.
    fn rank(&self) -> (usize, u64) {
        (self.total(), self.turns + self.granted as u64)
    }
}

/// Whose turn it is. Pure bookkeeping: it knows what it is told.
#[derive(Debug)]
pub(super) struct Rota {
    slots: Slots,
    queues: Box<[State]>,
    /// The slot queues where some wait.
    waiting: SlotSet,
    /// How many turns those have had that had the last ones.
    turns: u64,
    news: u64,
    front_turns: u32,
}

impl Rota {
    /// Nothing runs in `slots`, and nothing is known of any queue.
    pub(super) fn new(slots: Slots) -> Self {
        let unknown = State { waiting: 0, running: 0, most: usize::MAX, news: 0, turns: 0, resume_at: None };
        Self {
            slots,
            queues: vec![unknown; Queue::COUNT].into(),
            waiting: SlotSet::default(),
            turns: 0,
            news: 0,
            front_turns: 0,
        }
    }

    /// The slots.
    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The number of the last news.
    pub(super) fn news(&self) -> u64 {
        self.news
    }

    /// Begins a job of `queue`. Whether there is a slot for it.
    pub(super) fn begin(&mut self, queue: Queue) -> bool {
        if !self.slots.take(queue.lane) {
            return false;
        }
        self.queues[queue.index()].running += 1;
        if queue.lane == Lane::Interactive {
            self.front_turns = if queue == Queue::FRONT { self.front_turns + 1 } else { 0 };
        }
        true
    }

    /// Ends one.
    pub(super) fn end(&mut self, queue: Queue) {
        self.slots.give_back(queue.lane);
        let state = &mut self.queues[queue.index()];
        state.running = state.running.saturating_sub(1);
        // If as much ran as may, it is one less now.
        state.resume_at = None;
    }

    /// Somebody said that jobs wait in `queue`.
    pub(super) fn some_wait(&mut self, queue: Queue) {
        self.news += 1;
        let state = &mut self.queues[queue.index()];
        if state.waiting == 0 {
            state.turns = state.turns.max(self.turns);
        }
        state.news = self.news;
        self.wait(queue, SOME);
    }

    fn wait(&mut self, queue: Queue, jobs: u64) {
        self.queues[queue.index()].waiting = jobs;
        if jobs > 0 { self.waiting.insert(queue) } else { self.waiting.remove(queue) }
    }

    /// A job of `queue` came to one who knew of all news until `asked_at`, with `behind` others behind it. What is
    /// handed out again, as this one may be, is not among these.
    pub(super) fn came(&mut self, queue: Queue, behind: u64, is_again: bool, asked_at: u64) {
        if behind > 0 || (!is_again && self.queues[queue.index()].news <= asked_at) {
            self.wait(queue, behind);
        }
    }

    /// `queue` had no more for one who knew of all news until `asked_at`.
    pub(super) fn was_empty(&mut self, queue: Queue, asked_at: u64) {
        if self.queues[queue.index()].news <= asked_at {
            self.wait(queue, 0);
        }
    }

    /// A look at a queue has found this: what is not with this worker may be waiting, also for somebody who is gone.
    pub(super) fn found(&mut self, depth: &Depth) {
        let state = &mut self.queues[depth.queue.index()];
        state.most = usize::try_from(depth.most_running).unwrap_or(usize::MAX);
        if state.waiting == 0 && (depth.pending > 0 || depth.running > state.running as u64) {
            self.some_wait(depth.queue);
        }
    }

    /// Whether it is limited how many jobs of `queue` may run, over all workers.
    pub(super) fn is_limited(&self, queue: Queue) -> bool {
        (self.queues[queue.index()].most as u64) < MAX_ACK_PENDING
    }

    /// A pull of `queue` has waited for as long as it may: nothing is there, or as much runs as may. One of which jobs run
    /// here is asked again at `later`, or when one ends; others are found when all are looked at.
    pub(super) fn gave_nothing(&mut self, queue: Queue, asked_at: u64, later: Instant) {
        if queue == Queue::FRONT || self.queues[queue.index()].running == 0 {
            return self.was_empty(queue, asked_at);
        }
        self.pause(queue, later);
    }

    /// `queue` is not to be asked before `until`.
    pub(super) fn pause(&mut self, queue: Queue, until: Instant) {
        self.queues[queue.index()].resume_at = Some(until);
    }

    /// What to ask for now. `interactive` comes first, and of it the front; the others have what they own, and share
    /// what it leaves.
    pub(super) fn asks(&mut self, pulls: &Pulls, now: Instant) -> Vec<Ask> {
        let mut left = self.slots.clone();
        if left.are_taken() {
            return Vec::new();
        }
        for lane in Lane::ALL {
            left.take_up_to(lane, pulls.credits_of(lane));
        }
        let mut candidates = self.candidates(pulls, now);
        if self.front_turns >= FRONT_TURNS {
            grant(&mut candidates, &mut left, 1, |candidate| candidate.queue.lane == Lane::Interactive, true);
        }
        let mut asks = Vec::new();
        let front_waits = self.ask_front(pulls, now, &mut left, &mut asks);
        grant(&mut candidates, &mut left, usize::MAX, |candidate| candidate.queue.lane == Lane::Interactive, true);
        let waits = |candidate: &Candidate| candidate.queue.lane == Lane::Interactive && candidate.wants();
        let is_idle = !front_waits && !candidates.iter().any(waits);
        grant(&mut candidates, &mut left, usize::MAX, |candidate| candidate.queue.lane != Lane::Interactive, is_idle);
        for Candidate { queue, granted, .. } in candidates {
            // What is on its way is enough to go on with as long as it is more than what could be asked for.
            if granted > 0 && granted >= pulls.credits(queue) {
                let turns = &mut self.queues[queue.index()].turns;
                self.turns = self.turns.max(*turns);
                *turns += granted as u64;
                asks.push(Ask { queue, batch: granted });
            }
        }
        asks
    }

    /// How many jobs of `queue` to have here at most. Where few may run over all workers, little more is asked for than
    /// was had: what others run keeps no slots here.
    fn most(&self, queue: Queue) -> usize {
        let State { most, running, .. } = self.queues[queue.index()];
        if self.is_limited(queue) { most.min(2 * running + 1) } else { most }
    }

    /// The slot queues that may have something to give.
    fn candidates(&self, pulls: &Pulls, now: Instant) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for queue in self.waiting.iter() {
            let (state, credits) = (&self.queues[queue.index()], pulls.credits(queue));
            let has = state.running + credits;
            let waiting = usize::try_from(state.waiting).unwrap_or(usize::MAX).saturating_sub(credits);
            let most = waiting.min(self.most(queue).saturating_sub(has));
            if most > 0 && state.resume_at.is_none_or(|at| at <= now) {
                candidates.push(Candidate { queue, has, granted: 0, most, turns: state.turns });
            }
        }
        candidates
    }

    /// Keeps some credits in front; what is known to wait there has its slots before anybody else. Whether some has none.
    fn ask_front(&self, pulls: &Pulls, now: Instant, left: &mut Slots, asks: &mut Vec<Ask>) -> bool {
        let front = &self.queues[Queue::FRONT.index()];
        let (credits, free) = (pulls.credits(Queue::FRONT), left.free(Lane::Interactive));
        let waiting = usize::try_from(front.waiting).unwrap_or(usize::MAX);
        let wanted = free.min(STANDING.max(waiting));
        if wanted > 0 && credits <= wanted / 2 && front.resume_at.is_none_or(|at| at <= now) {
            asks.push(Ask { queue: Queue::FRONT, batch: wanted - credits });
        }
        left.take_up_to(Lane::Interactive, waiting) < waiting
    }
}

/// Gives up to `most` slots of `left` to those of `candidates` that `may` have some, one after the other.
/// `with_spare`: not only such as their lanes own.
fn grant(
    candidates: &mut [Candidate],
    left: &mut Slots,
    most: usize,
    may: impl Fn(&Candidate) -> bool,
    with_spare: bool,
) {
    for _ in 0..most {
        let is_next = |candidate: &&mut Candidate| {
            let spare = match candidate.total() {
                _ if !with_spare => 0,
                0 => left.spare_free(),
                _ => left.spare_for_more(),
            };
            may(candidate) && candidate.wants() && left.owned_free(candidate.queue.lane) + spare > 0
        };
        let next = candidates.iter_mut().filter(is_next).min_by_key(|candidate| candidate.rank());
        let Some(next) = next else { return };
        next.granted += 1;
        left.take(next.queue.lane);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::place::Place, *};

    const FLOOD: Queue = batch(1);

    const fn batch(slot: u8) -> Queue {
        Queue { lane: Lane::Batch, place: Place::Slot(slot) }
    }

    fn interactive(slot: u8) -> Queue {
        Queue::slot(Lane::Interactive, slot)
    }

    /// A worker of 64 slots, whose every pull is answered at once and in full.
    struct Worker {
        rota: Rota,
        pulls: Pulls,
        now: Instant,
    }

    impl Worker {
        fn new() -> Self {
            Self { rota: Rota::new(Slots::new(64)), pulls: Pulls::default(), now: Instant::now() }
        }

        /// One whose front is asked already.
        fn standing() -> Self {
            let mut worker = Self::new();
            assert_eq!(worker.asks(), [Ask { queue: Queue::FRONT, batch: STANDING }]);
            worker.open(&[Ask { queue: Queue::FRONT, batch: STANDING }]);
            worker
        }

        fn asks(&mut self) -> Vec<Ask> {
            self.rota.asks(&self.pulls, self.now)
        }

        fn open(&mut self, asks: &[Ask]) {
            for ask in asks {
                self.pulls.open(ask.queue, ask.batch, self.rota.news(), self.now);
            }
        }

        /// Begins all that it asks for in slot queues; returns how many that are of each of `queues`.
        fn run<const N: usize>(&mut self, queues: [Queue; N]) -> [usize; N] {
            let asks = self.asks();
            for ask in asks.iter().filter(|ask| ask.queue != Queue::FRONT) {
                for _ in 0..ask.batch {
                    assert!(self.rota.begin(ask.queue), "more than there are slots");
                }
            }
            queues.map(|queue| asks.iter().filter(|ask| ask.queue == queue).map(|ask| ask.batch).sum())
        }
    }

    #[test]
    fn one_backlog_has_all_slots_but_those_of_the_other_lanes_and_of_newcomers() {
        let mut worker = Worker::standing();
        worker.rota.some_wait(FLOOD);
        assert_eq!(worker.run([FLOOD]), [54]);
        assert_eq!(worker.run([FLOOD]), [0]);
        worker.rota.some_wait(batch(2));
        assert_eq!(worker.run([FLOOD, batch(2)]), [0, 1], "a newcomer finds a slot");
        for _ in 0..10 {
            worker.rota.end(FLOOD);
        }
        assert_eq!(worker.run([FLOOD, batch(2)]), [0, 9], "who has fewer comes first, and newcomers find a slot again");
    }

    #[test]
    fn ten_backlogs_have_the_same_whichever_came_first() {
        let mut worker = Worker::standing();
        worker.rota.some_wait(batch(0));
        worker.run([]);
        let others: [Queue; 9] = std::array::from_fn(|slot| batch(slot as u8 + 1));
        others.into_iter().for_each(|queue| worker.rota.some_wait(queue));
        worker.run([]);
        for _ in 0..200 {
            // The oldest backlog's jobs end as those of the others do.
            let busiest = Queue::all(10).max_by_key(|queue| worker.rota.queues[queue.index()].running);
            worker.rota.end(busiest.expect("one"));
            worker.run([]);
        }
        let running: Vec<usize> = (0..10).map(|slot| worker.rota.queues[batch(slot).index()].running).collect();
        let (least, most) = (running.iter().min(), running.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 1), "{running:?}");
    }

    #[test]
    fn who_fell_behind_by_a_slow_job_catches_up() {
        let mut worker = Worker::standing();
        let queues: [Queue; 10] = std::array::from_fn(|slot| batch(slot as u8));
        queues.into_iter().for_each(|queue| worker.rota.some_wait(queue));
        let mut begun = worker.run(queues);
        for round in 0..400 {
            // The first one's jobs are slow at first; later all take the same time.
            let ended = queues.into_iter().skip(usize::from(round < 40)).cycle().nth(round * 7).expect("one");
            if worker.rota.queues[ended.index()].running > 0 {
                worker.rota.end(ended);
            }
            let more = worker.run(queues);
            begun = std::array::from_fn(|queue| begun[queue] + more[queue]);
        }
        assert!(begun.iter().all(|jobs| jobs.abs_diff(begun[1]) <= 4), "{begun:?}");
    }

    #[test]
    fn interactive_comes_first_and_leaves_the_others_what_they_own() {
        let mut worker = Worker::standing();
        for queue in [FLOOD, Queue::slot(Lane::Background, 1), interactive(1)] {
            worker.rota.some_wait(queue);
        }
        let queues = [interactive(1), FLOOD, Queue::slot(Lane::Background, 1)];
        assert_eq!(worker.run(queues), [54, 4, 4]);
        worker.rota.end(FLOOD);
        worker.rota.end(interactive(1));
        assert_eq!(worker.run(queues), [1, 1, 0]);
    }

    #[test]
    fn the_front_comes_before_slot_queues_and_gives_them_a_turn() {
        let mut worker = Worker::new();
        while worker.rota.begin(Queue::FRONT) {}
        worker.rota.came(Queue::FRONT, 100, false, 0);
        worker.rota.some_wait(interactive(1));
        worker.rota.end(Queue::FRONT);
        assert_eq!(worker.run([interactive(1)]), [1], "after so many of the front");
        worker.rota.end(interactive(1));
        assert_eq!(worker.asks(), [Ask { queue: Queue::FRONT, batch: 1 }]);
    }

    #[test]
    fn what_comes_suddenly_is_asked_for_before_it_is_there_and_many_at_once() {
        let mut worker = Worker::standing();
        for _ in 0..STANDING / 2 - 1 {
            worker.pulls.came(Queue::FRONT, worker.now);
            worker.rota.begin(Queue::FRONT);
        }
        assert_eq!(worker.asks(), [], "half is enough to go on with");
        worker.pulls.came(Queue::FRONT, worker.now);
        worker.rota.begin(Queue::FRONT);
        assert_eq!(worker.asks(), [Ask { queue: Queue::FRONT, batch: STANDING / 2 }]);
    }

    #[test]
    fn a_queue_that_was_empty_is_asked_again_when_something_was_said_since() {
        let mut worker = Worker::standing();
        worker.rota.some_wait(FLOOD);
        let asked_at = worker.rota.news();
        worker.rota.was_empty(FLOOD, asked_at);
        assert_eq!(worker.asks(), []);
        worker.rota.some_wait(FLOOD);
        worker.rota.was_empty(FLOOD, asked_at);
        worker.rota.came(FLOOD, 0, false, asked_at);
        worker.rota.came(FLOOD, 0, true, worker.rota.news());
        assert_eq!(worker.asks(), [Ask { queue: FLOOD, batch: 54 }]);
        worker.rota.came(FLOOD, 0, false, worker.rota.news());
        assert_eq!(worker.asks(), []);
    }

    #[test]
    fn no_more_is_asked_for_than_may_run() {
        let mut worker = Worker::standing();
        worker.rota.found(&Depth { queue: FLOOD, pending: 100, running: 0, most_running: 3 });
        assert!(worker.rota.is_limited(FLOOD) && !worker.rota.is_limited(batch(2)));
        assert_eq!([worker.run([FLOOD]), worker.run([FLOOD]), worker.run([FLOOD])], [[1], [2], [0]]);
    }

    #[test]
    fn a_queue_of_which_as_much_runs_as_may_is_asked_again_when_one_ends() {
        let mut worker = Worker::standing();
        let depth = Depth { queue: FLOOD, pending: 100, running: 0, most_running: 3 };
        worker.rota.found(&depth);
        assert_eq!(worker.run([FLOOD]), [1]);
        let (asked_at, later) = (worker.rota.news(), worker.now + std::time::Duration::from_millis(250));
        worker.rota.gave_nothing(FLOOD, asked_at, later);
        assert_eq!(worker.asks(), [], "others run the rest");
        worker.rota.end(FLOOD);
        assert_eq!(worker.asks(), [Ask { queue: FLOOD, batch: 1 }]);
        worker.rota.gave_nothing(FLOOD, asked_at, later);
        assert_eq!(worker.asks(), [], "nothing of it runs here: it is found when all are looked at");
        worker.rota.found(&depth);
        assert_eq!(worker.asks(), [Ask { queue: FLOOD, batch: 1 }]);
    }

    #[test]
    fn what_a_lost_worker_had_is_looked_for() {
        let mut worker = Worker::standing();
        let depth = Depth { queue: FLOOD, pending: 0, running: 1, most_running: MAX_ACK_PENDING };
        worker.rota.found(&depth);
        assert_eq!(worker.run([FLOOD]), [54]);
        worker.rota.was_empty(FLOOD, worker.rota.news());
        worker.rota.found(&depth);
        worker.rota.end(FLOOD);
        assert_eq!(worker.asks(), [], "what runs here is not lost");
    }

    #[test]
    fn a_refused_queue_has_a_pause() {
        let mut worker = Worker::standing();
        worker.rota.some_wait(FLOOD);
        let later = worker.now + std::time::Duration::from_millis(250);
        worker.rota.pause(FLOOD, later);
        assert_eq!(worker.asks(), []);
        worker.now = later;
        assert_eq!(worker.run([FLOOD]), [54]);
    }
}
