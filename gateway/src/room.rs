//! How many unfinished jobs each account may have. The store is asked seldom: only once an account has got so many more
//! accepted here that it may have come to its limit.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{domain::ids::AccountId, store::connection::Store};
use tokio::time::Instant;
use tracing::warn;

/// The store is asked when this part of what was left has been used. The less is left, the more often.
const PART: u64 = 4;
/// A full account is not looked at again for so long.
const FULL_FOR: Duration = Duration::from_secs(1);
/// With this many accounts all are forgotten: each is asked for again in time.
const MOST_ACCOUNTS: usize = 65_536;

/// That an account has as many unfinished jobs as it may have: so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub u64);

/// The room of all accounts.
pub struct Room {
    store: Store,
    limit: u64,
    tallies: Mutex<HashMap<AccountId, Tally>>,
}

/// What is known of an account.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// How many it had when the store was asked last.
    known: u64,
    /// How many were accepted here since.
    since: u64,
    /// Until when it is full.
    full_until: Option<Instant>,
}

impl Room {
    /// At most `limit` unfinished jobs of each account, by what is in `store`.
    pub fn new(store: Store, limit: u64) -> Self {
        Self { store, limit, tallies: Mutex::default() }
    }

    /// The most unfinished jobs of one account.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts one more of `account`.
    ///
    /// # Errors
    /// When it has as many as it may have. A store that cannot be asked is no reason.
    pub async fn enter(&self, account: AccountId) -> Result<(), Full> {
        let now = Instant::now();
        let tally = self.count(account, 1);
        if tally.full_until.is_some_and(|until| now < until) {
            return Err(Full(self.limit));
        }
        if !tally.has_to_ask(self.limit) {
            return Ok(());
        }
        let known = match self.store.unfinished(account).await {
            Ok(known) => known,
            Err(error) => {
                warn!(account.id = %account, %error, "could not count the unfinished jobs of an account");
                return Ok(());
            }
        };
        let is_full = known >= self.limit;
        let full_until = is_full.then(|| now + FULL_FOR);
        self.tallies().insert(account, Tally { known, since: u64::from(!is_full), full_until });
        if is_full { Err(Full(self.limit)) } else { Ok(()) }
    }

    /// Counts `count` more of `account` that were accepted.
    pub fn add(&self, account: AccountId, count: u64) {
        self.count(account, count);
    }

    fn count(&self, account: AccountId, count: u64) -> Tally {
        let mut tallies = self.tallies();
        if tallies.len() >= MOST_ACCOUNTS && !tallies.contains_key(&account) {
            tallies.clear();
        }
        let tally = tallies.entry(account).or_default();
        tally.since = tally.since.saturating_add(count);
        *tally
    }

    fn tallies(&self) -> MutexGuard<'_, HashMap<AccountId, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn has_to_ask(self, limit: u64) -> bool {
        self.since > limit.saturating_sub(self.known) / PART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_room_is_left_the_more_often_the_store_is_asked() {
        let asks = |known, since| Tally { known, since, full_until: None }.has_to_ask(200_000);
        assert!(!asks(0, 50_000) && asks(0, 50_001));
        assert!(!asks(199_996, 1) && asks(199_996, 2));
        assert!(asks(199_999, 1) && asks(200_000, 1) && asks(300_000, 1));
        assert!(Tally { known: 0, since: 1, full_until: None }.has_to_ask(1));
    }
}
