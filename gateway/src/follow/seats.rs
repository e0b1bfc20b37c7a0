//! How many streams one key may hold open at this gateway, and for how long each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use common::{
    domain::ids::KeyId,
    env::{self, EnvError},
};

/// The rules of open streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamRules {
    /// The most open streams of one key at one gateway.
    pub limit: u32,
    /// How long one lasts: then its reader comes back, and passes the gate again.
    pub lifetime: Duration,
}

impl StreamRules {
    /// `FRONTDESK_STREAM_LIMIT` and `FRONTDESK_STREAM_LIFETIME`.
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self {
            limit: env::within("FRONTDESK_STREAM_LIMIT", 200, 1..=1_000_000)?,
            lifetime: env::duration("FRONTDESK_STREAM_LIFETIME", Duration::from_secs(600))?,
        })
    }
}

/// The open streams of this gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Seats {
    rules: StreamRules,
    taken: Arc<Mutex<HashMap<KeyId, u32>>>,
}

/// One open stream. Dropping it makes room for another.
#[derive(Debug)]
pub struct Seat {
    key: KeyId,
    seats: Seats,
}

impl Seats {
    /// Nobody reads yet.
    pub fn new(rules: StreamRules) -> Self {
        Self { rules, taken: Arc::default() }
    }

    /// Counts a stream of `key`; `None` when it has as many as it may.
    pub fn take(&self, key: KeyId) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_default();
        if *count >= self.rules.limit {
            return None;
        }
        *count += 1;
        Some(Seat { key, seats: self.clone() })
    }

    /// How long a stream lasts.
    pub fn lifetime(&self) -> Duration {
        self.rules.lifetime
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let seats = Seats::new(StreamRules { limit: 2, lifetime: Duration::from_secs(1) });
        let (key, other) = (KeyId::new(), KeyId::new());
        let held = [seats.take(key).expect("a seat"), seats.take(key).expect("a seat")];
        assert!(seats.take(key).is_none());
        drop(seats.take(other).expect("each key has its own"));
        drop(held);
        assert!(seats.taken.lock().expect("a map").is_empty(), "nothing is kept of who has left");
        seats.take(key).expect("a seat");
    }
}
