//! How many calls each account has under way here: the first ones stand in front.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::domain::ids::AccountId;
use tokio::time::Instant;

/// How long a call counts whose caller has left before anything was heard of it: its job may still stand in front.
const LINGER: Duration = Duration::from_secs(60);

/// Counts calls.
#[derive(Debug)]
pub(super) struct Fronts {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<AccountId, usize>,
    /// Those whose callers have left, in the order in which they did.
    left: VecDeque<(Instant, AccountId)>,
}

impl Fronts {
    /// An account's first `most` calls stand in front.
    pub(super) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Counts a call. Whether it stands in front.
    pub(super) fn begin(&self, account: AccountId, now: Instant) -> bool {
        let mut state = self.state();
        state.forget_leavers(now);
        let calls = state.calls.entry(account).or_default();
        *calls += 1;
        *calls <= self.most
    }

    /// Ends one. `is_heard`: something of it was heard, so that it stands there no more.
    pub(super) fn end(&self, account: AccountId, is_heard: bool, now: Instant) {
        let mut state = self.state();
        if is_heard {
            state.forget(account);
        } else {
            state.left.push_back((now, account));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, account: AccountId) {
        if let Some(calls) = self.calls.get_mut(&account) {
            *calls -= 1;
            if *calls == 0 {
                self.calls.remove(&account);
            }
        }
    }

    fn forget_leavers(&mut self, now: Instant) {
        while let Some((_, account)) = self.left.pop_front_if(|(since, _)| now.duration_since(*since) > LINGER) {
            self.forget(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accounts_first_calls_stand_in_front() {
        let (fronts, now) = (Fronts::new(2), Instant::now());
        let (one, other) = (AccountId::new(), AccountId::new());
        assert_eq!([one, one, one, other].map(|account| fronts.begin(account, now)), [true, true, false, true]);
        fronts.end(one, true, now);
        assert!(!fronts.begin(one, now), "two are under way still");
        for _ in 0..3 {
            fronts.end(one, true, now);
        }
        assert!(fronts.begin(one, now));
        assert_eq!(fronts.state().calls.len(), 2);
    }

    #[test]
    fn who_leaves_early_makes_no_room_at_once() {
        let (fronts, now) = (Fronts::new(1), Instant::now());
        let account = AccountId::new();
        assert!(fronts.begin(account, now));
        fronts.end(account, false, now);
        assert!(!fronts.begin(account, now + LINGER));
        fronts.end(account, true, now);
        assert!(fronts.begin(account, now + 2 * LINGER));
    }
}
