//! Where jobs stand: each lane has its queues, and each of them a consumer of its own.

use std::fmt;

use crate::domain::job::Lane;

/// The most slot queues that a lane can have: a set of them is 64 bits.
pub const MOST_SLOTS: u8 = 64;

/// A place within a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Before all who have a backlog: for the calls of those who have none. There is one front, that of `interactive`.
    Front,
    /// In one of the lane's slot queues. An account with a backlog has one to itself, as long as there are enough.
    Slot(u8),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Front => f.write_str("front"),
            Self::Slot(slot) => slot.fmt(f),
        }
    }
}

impl Place {
    /// The place of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "front" => Some(Self::Front),
            slot => slot.parse().ok().filter(|slot| *slot < MOST_SLOTS).map(Self::Slot),
        }
    }
}

/// One queue of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// The lane.
    pub lane: Lane,
    /// The place in it.
    pub place: Place,
}

impl Queue {
    /// The front of `interactive`.
    pub const FRONT: Self = Self { lane: Lane::Interactive, place: Place::Front };
    /// How many there can be.
    pub const COUNT: usize = 1 + Lane::ALL.len() * MOST_SLOTS as usize;

    /// The slot queue `slot` of `lane`.
    pub fn slot(lane: Lane, slot: u8) -> Self {
        Self { lane, place: Place::Slot(slot) }
    }

    /// All of them when each lane has `slots` slot queues.
    pub fn all(slots: u8) -> impl Iterator<Item = Self> {
        let lanes = Lane::ALL.into_iter().flat_map(move |lane| (0..slots).map(move |slot| Self::slot(lane, slot)));
        std::iter::once(Self::FRONT).chain(lanes)
    }

    /// A number of its own below [`Queue::COUNT`].
    pub fn index(self) -> usize {
        match self.place {
            Place::Front => 0,
            Place::Slot(slot) => 1 + self.lane.index() * usize::from(MOST_SLOTS) + usize::from(slot % MOST_SLOTS),
        }
    }

    /// The queue of such a number.
    pub fn at(index: usize) -> Option<Self> {
        let Some(index) = index.checked_sub(1) else { return Some(Self::FRONT) };
        let lane = Lane::ALL.get(index / usize::from(MOST_SLOTS))?;
        Some(Self::slot(*lane, u8::try_from(index % usize::from(MOST_SLOTS)).ok()?))
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lane, self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_a_number() {
        let all: Vec<_> = Queue::all(MOST_SLOTS).collect();
        assert_eq!(all.len(), Queue::COUNT);
        for (index, queue) in all.into_iter().enumerate() {
            assert_eq!((queue.index(), Queue::at(index)), (index, Some(queue)));
        }
        assert_eq!(Queue::at(Queue::COUNT), None);
    }

    #[test]
    fn a_place_survives_its_name() {
        for place in [Place::Front, Place::Slot(0), Place::Slot(63)] {
            assert_eq!(Place::named(&place.to_string()), Some(place));
        }
        for name in ["64", "-1", "back", ""] {
            assert_eq!(Place::named(name), None, "{name}");
        }
    }
}
