//! An exact sliding window: in any 60 seconds at most so many.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// The length of the window, in seconds.
pub const WINDOW_S: u64 = 60;

const WINDOW_MS: u64 = WINDOW_S * 1_000;
/// Below this many logs nobody looks for those that are over.
const FEW: usize = 1_024;

/// Where one key stands within its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The quota.
    pub quota: u32,
    /// How many more are let through now.
    pub remaining: u32,
    /// After how many seconds the next one becomes free.
    pub resets_in_s: u64,
}

/// The moments of the last minute, for every key that had one.
#[derive(Debug)]
pub struct Window<K> {
    quota: u32,
    capacity: usize,
    began: Instant,
    logs: Mutex<Logs<K>>,
}

#[derive(Debug)]
struct Logs<K> {
    by_key: HashMap<K, Log>,
    /// When there are this many logs, those that are over are thrown away.
    sweep_at: usize,
}

/// Moments in milliseconds since the window began, the oldest first; never more than the quota.
#[derive(Debug, Default)]
struct Log(VecDeque<u64>);

impl<K: Eq + Hash> Window<K> {
    /// At most `quota` in any 60 seconds for each of at most `capacity` keys. `now` is the earliest moment that
    /// the other methods will be told of.
    pub fn new(quota: u32, capacity: usize, now: Instant) -> Self {
        let logs = Logs { by_key: HashMap::new(), sweep_at: FEW };
        Self { quota, capacity, began: now, logs: Mutex::new(logs) }
    }

    /// Counts one for `key`.
    ///
    /// # Errors
    /// When `key` is at its quota, or is new while there is no room for more keys. Nothing is counted then.
    pub fn take(&self, key: K, now: Instant) -> Result<Standing, Standing> {
        let now = self.millis(now);
        let mut logs = self.logs();
        let Some(log) = logs.log(key, self.capacity, now) else { return Err(self.standing(None, now)) };
        log.forget(now);
        if log.0.len() >= self.quota as usize {
            return Err(self.standing(Some(log), now));
        }
        log.0.push_back(now);
        Ok(self.standing(Some(log), now))
    }

    /// Where `key` stands.
    pub fn look(&self, key: &K, now: Instant) -> Standing {
        let now = self.millis(now);
        let mut logs = self.logs();
        let log = logs.by_key.get_mut(key);
        self.standing(log.map(|log| log.forget(now)), now)
    }

    /// Counts `count` for `key` that were let through elsewhere, even beyond the quota.
    pub fn add(&self, key: K, count: u32, now: Instant) {
        let now = self.millis(now);
        let mut logs = self.logs();
        let Some(log) = logs.log(key, self.capacity, now) else { return };
        // Only the newest of them can still matter.
        for _ in 0..count.min(self.quota) {
            log.0.push_back(now);
        }
        while log.0.len() > self.quota as usize {
            log.0.pop_front();
        }
    }

    fn standing(&self, log: Option<&mut Log>, now: u64) -> Standing {
        let (used, oldest) = match log {
            Some(log) => (u32::try_from(log.0.len()).unwrap_or(u32::MAX), log.0.front().copied()),
            None => (0, None),
        };
        let free_at = oldest.unwrap_or(now) + WINDOW_MS + 1;
        Standing {
            quota: self.quota,
            remaining: self.quota.saturating_sub(used),
            resets_in_s: free_at.saturating_sub(now).div_ceil(1_000).min(WINDOW_S),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX - WINDOW_MS)
    }

    fn logs(&self) -> MutexGuard<'_, Logs<K>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Logs<K> {
    /// The log of `key`; `None` when it is new and there is no room.
    fn log(&mut self, key: K, capacity: usize, now: u64) -> Option<&mut Log> {
        let limit = self.sweep_at.min(capacity);
        if self.by_key.len() >= limit && !self.by_key.contains_key(&key) {
            self.by_key.retain(|_, log| !log.forget(now).0.is_empty());
            self.sweep_at = FEW.max(self.by_key.len() * 2);
            if self.by_key.len() >= capacity {
                return None;
            }
        }
        Some(self.by_key.entry(key).or_default())
    }
}

impl Log {
    /// Drops what has left the window. Moments are cut to whole milliseconds, hence "more than" and not "at least":
    /// two that are let through are never less than the window apart.
    fn forget(&mut self, now: u64) -> &mut Self {
        while self.0.front().is_some_and(|moment| now.saturating_sub(*moment) > WINDOW_MS) {
            self.0.pop_front();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(began: Instant, millis: u64) -> Instant {
        began + Duration::from_millis(millis)
    }

    #[test]
    fn the_quota_holds_in_any_minute() {
        let t0 = Instant::now();
        let window = Window::new(3, usize::MAX, t0);
        for millis in [0, 30_000, 59_999] {
            assert!(window.take("k", at(t0, millis)).is_ok(), "{millis}");
        }
        assert!(window.take("k", at(t0, 60_000)).is_err(), "the first still counts");
        assert!(window.take("k", at(t0, 60_001)).is_ok(), "the first no longer counts");
        assert!(window.take("k", at(t0, 60_002)).is_err());
        assert!(window.take("other", at(t0, 60_002)).is_ok());
    }

    #[test]
    fn refused_requests_do_not_count() {
        let t0 = Instant::now();
        let window = Window::new(1, usize::MAX, t0);
        assert!(window.take("k", t0).is_ok());
        for millis in 1..=60_000 {
            assert!(window.take("k", at(t0, millis)).is_err());
        }
        assert!(window.take("k", at(t0, 60_001)).is_ok());
    }

    #[test]
    fn a_standing_says_what_is_left_and_when_more_comes() {
        let t0 = Instant::now();
        let window = Window::new(2, usize::MAX, t0);
        assert_eq!(window.look(&"k", t0), Standing { quota: 2, remaining: 2, resets_in_s: 60 });
        window.take("k", t0).expect("free");
        let standing = window.take("k", at(t0, 37_500)).expect("free");
        assert_eq!(standing, Standing { quota: 2, remaining: 0, resets_in_s: 23 });
        assert_eq!(window.take("k", at(t0, 59_900)), Err(Standing { quota: 2, remaining: 0, resets_in_s: 1 }));
        assert_eq!(window.look(&"k", at(t0, 60_001)).remaining, 1);
    }

    #[test]
    fn what_others_counted_counts() {
        let t0 = Instant::now();
        let window = Window::new(3, usize::MAX, t0);
        window.take("k", t0).expect("free");
        window.add("k", 1, at(t0, 10));
        assert_eq!(window.look(&"k", at(t0, 10)).remaining, 1);
        window.add("k", 1_000_000, at(t0, 20));
        assert!(window.take("k", at(t0, 60_010)).is_err());
        assert!(window.take("k", at(t0, 60_021)).is_ok());
    }

    #[test]
    fn logs_that_are_over_are_thrown_away() {
        let t0 = Instant::now();
        let window = Window::new(1, usize::MAX, t0);
        for key in 0..50_000u64 {
            assert!(window.take(key, at(t0, key * 1_000)).is_ok());
        }
        assert!(window.logs().by_key.len() <= FEW + 1);
    }

    #[test]
    fn no_room_is_a_refusal_until_the_minute_is_over() {
        let t0 = Instant::now();
        let window = Window::new(1, 2, t0);
        assert!(window.take("a", t0).is_ok() && window.take("b", t0).is_ok());
        assert!(window.take("c", at(t0, 1)).is_err());
        assert!(window.take("c", at(t0, 60_001)).is_ok());
    }
}
