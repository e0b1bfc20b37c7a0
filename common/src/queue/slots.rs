//! Who may use a worker's slots: each lane owns some, the rest goes where there is work.

use crate::domain::job::Lane;

/// One of this many slots belongs to each lane alone.
const SHARE: usize = 16;
/// One of this many is not for queues that have a job here already, so that others find a free one.
const RESERVE: usize = 32;
/// With fewer slots than these, none is.
const RESERVED_FROM: usize = 8;

/// The slots of one worker: how many there are and which lane uses how many. Pure bookkeeping.
#[derive(Clone, Debug)]
pub struct Slots {
    total: usize,
    owned: usize,
    reserved: usize,
    running: [usize; Lane::ALL.len()],
}

impl Slots {
    /// `total` free slots. Each lane owns 1/16 of them and at least one, as far as there are enough.
    pub fn new(total: usize) -> Self {
        let owned = if total > Lane::ALL.len() { (total / SHARE).max(1) } else { 0 };
        let reserved = if total < RESERVED_FROM { 0 } else { (total / RESERVE).max(1) };
        Self { total, owned, reserved, running: [0; Lane::ALL.len()] }
    }

    /// How many slots that `lane` owns are free.
    pub fn owned_free(&self, lane: Lane) -> usize {
        self.owned.saturating_sub(self.running[lane.index()])
    }

    /// How many slots that no lane owns are free.
    pub fn spare_free(&self) -> usize {
        let spare = self.total - self.owned * Lane::ALL.len();
        let used: usize = self.running.iter().map(|running| running.saturating_sub(self.owned)).sum();
        spare.saturating_sub(used)
    }

    /// How many of these are for queues that have a job here already.
    pub fn spare_for_more(&self) -> usize {
        self.spare_free().saturating_sub(self.reserved)
    }

    /// How many more jobs of `lane` can start now.
    pub fn free(&self, lane: Lane) -> usize {
        self.owned_free(lane) + self.spare_free()
    }

    /// Whether no lane has a free one.
    pub fn are_taken(&self) -> bool {
        Lane::ALL.iter().all(|lane| self.free(*lane) == 0)
    }

    /// How many jobs run.
    pub fn running(&self) -> usize {
        self.running.iter().sum()
    }

    /// Takes a slot for `lane`. Whether there was one.
    pub fn take(&mut self, lane: Lane) -> bool {
        self.take_up_to(lane, 1) > 0
    }

    /// Takes up to `count` slots for `lane`. How many there were.
    pub fn take_up_to(&mut self, lane: Lane, count: usize) -> usize {
        let taken = count.min(self.free(lane));
        self.running[lane.index()] += taken;
        taken
    }

    /// Gives a slot of `lane` back.
    pub fn give_back(&mut self, lane: Lane) {
        self.running[lane.index()] = self.running[lane.index()].saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_can_fill_all_but_what_the_others_own() {
        let mut slots = Slots::new(64);
        let mut taken = 0;
        while slots.take(Lane::Batch) {
            taken += 1;
        }
        assert_eq!(taken, 56);
        assert_eq!(slots.free(Lane::Interactive), 4);
        assert!(slots.take(Lane::Interactive));
        slots.give_back(Lane::Batch);
        assert_eq!((slots.spare_free(), slots.free(Lane::Batch), slots.free(Lane::Interactive)), (1, 1, 4));
    }

    #[test]
    fn a_few_slots_are_shared_by_all() {
        let mut slots = Slots::new(1);
        assert!(slots.take(Lane::Background));
        assert!(!slots.take(Lane::Interactive));
        slots.give_back(Lane::Background);
        assert!(slots.take(Lane::Interactive));
        assert_eq!(slots.running(), 1);
    }

    #[test]
    fn some_slots_are_kept_for_those_who_have_none_yet() {
        for (total, kept) in [(64, 2), (8, 1), (7, 0)] {
            let slots = Slots::new(total);
            assert_eq!(slots.spare_free() - slots.spare_for_more(), kept, "{total}");
        }
        let mut slots = Slots::new(64);
        assert_eq!(slots.take_up_to(Lane::Batch, 100), 56);
        assert_eq!((slots.spare_for_more(), slots.take_up_to(Lane::Batch, 1)), (0, 0));
    }

    #[test]
    fn slots_are_never_more_than_there_are() {
        for total in 1..100 {
            let mut slots = Slots::new(total);
            for lane in Lane::ALL.into_iter().cycle().take(3 * total + 3) {
                slots.take(lane);
            }
            assert!(slots.running() <= total, "{total}");
            assert_eq!(slots.spare_free(), 0);
        }
    }
}
