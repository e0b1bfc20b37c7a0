//! How much work there is: what waits, what runs, and how long that will take.

use std::time::Duration;

use super::{job::Lane, time::Millis};

/// What stands in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneBacklog {
    /// Jobs that no worker was given yet.
    pub pending: u64,
    /// Jobs that a worker has: most run, some are held for the next slot or wait for another try.
    pub running: u64,
    /// Since when the oldest pending one waits.
    pub oldest: Option<Millis>,
}

impl LaneBacklog {
    /// How long the oldest pending job has waited at `now`; nothing when none waits.
    pub fn oldest_age(&self, now: Millis) -> Duration {
        self.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest))
    }
}

/// All accepted, unfinished jobs, as the queue counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// By [`Lane::index`].
    pub lanes: [LaneBacklog; Lane::ALL.len()],
    /// How long the pool needs for all that is there, as fast as it was lately. `None` when nobody can tell: nothing
    /// runs, or no job was seen to end yet.
    pub drain: Option<Duration>,
}

impl Backlog {
    /// Each lane with its name, the most urgent first.
    pub fn lanes(&self) -> impl Iterator<Item = (Lane, &LaneBacklog)> {
        Lane::ALL.into_iter().zip(&self.lanes)
    }

    /// Jobs that no worker was given yet.
    pub fn pending(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.pending).sum()
    }

    /// Jobs that a worker has.
    pub fn running(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.running).sum()
    }

    /// All of them: as many slots as could be busy now.
    pub fn unfinished(&self) -> u64 {
        self.pending() + self.running()
    }
}
