//! Wake-ups for workers: in which slot queues there are new jobs. One that is lost costs time, nothing else: workers
//! look by themselves as well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::Subscriber;
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    connection::{Connection, REQUEST_TIMEOUT},
    error::QueueError,
    place::{MOST_SLOTS, Place, Queue},
    signals::subscribe,
    subjects,
};
use crate::{domain::job::Lane, lifecycle::Lifecycle};

/// Between two messages of one process. The first after a pause leaves at once.
const PAUSE: Duration = Duration::from_millis(5);
/// How long jobs are handed back once a process has to drop what it has.
const LAST_NOTES: Duration = Duration::from_millis(50);
const LANES: usize = Lane::ALL.len();

/// A set of slot queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSet([u64; LANES]);

impl SlotSet {
    /// Adds `queue`; the front is none of them.
    pub fn insert(&mut self, queue: Queue) {
        if let Place::Slot(slot) = queue.place {
            self.0[queue.lane.index()] |= bit(slot);
        }
    }

    /// Takes `queue` out.
    pub fn remove(&mut self, queue: Queue) {
        if let Place::Slot(slot) = queue.place {
            self.0[queue.lane.index()] &= !bit(slot);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; LANES]
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Queue> {
        Lane::ALL.into_iter().flat_map(move |lane| {
            let mut left = self.0[lane.index()];
            std::iter::from_fn(move || {
                let slot = u8::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
                left &= left - 1;
                Some(Queue::slot(lane, slot))
            })
        })
    }

    fn to_bytes(self) -> Bytes {
        self.0.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }

    /// `None` for what is no such set.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks();
        let words: [[u8; 8]; LANES] = words.try_into().ok().filter(|_| rest.is_empty())?;
        Some(Self(words.map(u64::from_le_bytes)))
    }
}

fn bit(slot: u8) -> u64 {
    1 << (slot % MOST_SLOTS)
}

/// A process's way to wake workers. Cheap to clone; it ends with its last clone.
#[derive(Clone, Debug)]
pub struct Wakes {
    noted: Arc<[AtomicU64; LANES]>,
    some: mpsc::Sender<()>,
}

impl Wakes {
    /// Starts the one task that sends.
    pub fn start(connection: Connection, lifecycle: &Lifecycle) -> Self {
        let noted: Arc<[AtomicU64; LANES]> = Arc::default();
        let (some, heard) = mpsc::channel(1);
        lifecycle.spawn_background(tell(connection, noted.clone(), heard, lifecycle.clone()));
        Self { noted, some }
    }

    /// Notes that there are new jobs in `queue`. Costs next to nothing, however often; nobody is told of the front.
    pub fn note(&self, queue: Queue) {
        let Place::Slot(slot) = queue.place else { return };
        let before = self.noted[queue.lane.index()].fetch_or(bit(slot), Ordering::AcqRel);
        if before & bit(slot) == 0 {
            let _ = self.some.try_send(());
        }
    }
}

/// Tells of what was noted until nobody can note any more; when all that is left has to be dropped, of what is handed
/// back then.
async fn tell(
    connection: Connection,
    noted: Arc<[AtomicU64; LANES]>,
    mut some: mpsc::Receiver<()>,
    lifecycle: Lifecycle,
) {
    loop {
        let goes_on = tokio::select! {
            some = some.recv() => some.is_some(),
            () = lifecycle.aborting() => {
                sleep(LAST_NOTES).await;
                false
            }
        };
        if connection.wait_until_up(REQUEST_TIMEOUT).await {
            send(&connection, SlotSet(std::array::from_fn(|lane| noted[lane].swap(0, Ordering::AcqRel)))).await;
        }
        if !goes_on {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn send(connection: &Connection, set: SlotSet) {
    if !set.is_empty() {
        let _ = timeout(REQUEST_TIMEOUT, connection.client.publish(subjects::SLOTS_WAKE, set.to_bytes())).await;
    }
}

/// Hears what is noted elsewhere.
pub(super) async fn hear(connection: &Connection) -> Result<Subscriber, QueueError> {
    subscribe(connection, subjects::SLOTS_WAKE.to_owned()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_the_wire() {
        let mut set = SlotSet::default();
        assert!(set.is_empty());
        let queues = [Queue::slot(Lane::Interactive, 63), Queue::slot(Lane::Batch, 0), Queue::slot(Lane::Batch, 7)];
        queues.iter().chain([&Queue::FRONT]).for_each(|queue| set.insert(*queue));
        let heard = SlotSet::from_bytes(&set.to_bytes()).expect("a set");
        assert_eq!((heard, heard.iter().collect::<Vec<_>>()), (set, queues.to_vec()));
        queues.iter().for_each(|queue| set.remove(*queue));
        assert!(set.is_empty());
        assert_eq!(SlotSet::from_bytes(&[0; 23]), None);
        assert_eq!(SlotSet::from_bytes(&[0; 32]), None);
    }
}
