//! What one visit to a receiver still has to do: shared by the tries that are open at once.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use common::{
    lifecycle::Lifecycle,
    store::{claims::Due, settlements::Then},
};

use super::{post::TRY_LIMIT, schedule::LONGEST_RETRY_AFTER};

/// How long a receiver stays ours while nothing is settled: a try and the commit after it take less.
pub const LEASE: Duration = Duration::from_secs(45);
/// What has to be left of the lease for another try: as long as that may take, and the look-ups before it.
const ENOUGH: Duration = TRY_LIMIT.saturating_add(Duration::from_secs(5));
/// How many times as long as its last failure took a receiver is left alone, after one failure, two, and so on. One
/// that answers at once is soon asked again; one that never answers takes little of anybody's time.
const HOLDS: [u32; 5] = [0, 2, 4, 8, 16];
/// A receiver is left alone for this long at most.
const LONGEST_HOLD: Duration = Duration::from_mins(5);

/// The rest of a visit.
pub struct Round {
    state: Mutex<State>,
    lifecycle: Lifecycle,
}

struct State {
    left: VecDeque<Due>,
    open: usize,
    /// When the lease began, or earlier.
    leased: Instant,
    /// Since the last success.
    failures: u32,
    /// How long the receiver is left alone after the visit.
    hold: Duration,
    is_over: bool,
    is_given_back: bool,
}

impl Round {
    /// A visit with `due` to a receiver that has failed `failures` times since its last success, and is ours since
    /// `leased`.
    pub fn new(due: Vec<Due>, failures: u32, leased: Instant, lifecycle: Lifecycle) -> Self {
        let state = State {
            left: due.into(),
            open: 0,
            leased,
            failures,
            hold: Duration::ZERO,
            is_over: false,
            is_given_back: false,
        };
        Self { state: Mutex::new(state), lifecycle }
    }

    /// What to try next; it is open until [`Round::close`]. `None`: nothing on this visit.
    pub fn open(&self) -> Option<Due> {
        let mut state = self.state();
        let is_short = state.leased.elapsed() + ENOUGH > LEASE;
        if state.is_over || is_short || self.lifecycle.is_stopping() {
            return None;
        }
        let due = state.left.pop_front()?;
        state.open += 1;
        Some(due)
    }

    /// Notes that a try is over, and says what is to become of the receiver. The first failure ends the visit: what
    /// is left is for the next one. `retry_after`: the pause that the receiver has asked for, for whatever it is sent.
    pub fn close(&self, is_delivered: bool, took: Duration, retry_after: Option<Duration>) -> Then {
        let mut state = self.state();
        state.open -= 1;
        if is_delivered {
            state.failures = 0;
        } else {
            state.is_over = true;
            let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
            state.hold = hold_after(state.failures, took).max(asked);
            state.failures += 1;
        }
        let goes_on = state.open > 0 || !(state.left.is_empty() || state.is_over || self.lifecycle.is_stopping());
        state.is_given_back = !goes_on;
        if goes_on { Then::Keep(LEASE) } else { Then::Release(state.hold) }
    }

    /// Notes that a settlement began the lease anew, at `at` or later.
    pub fn renew(&self, at: Instant) {
        let mut state = self.state();
        state.leased = state.leased.max(at);
    }

    /// Notes that the receiver is not ours any more, or may not be: the visit is over.
    pub fn lose(&self) {
        self.state().is_over = true;
    }

    /// Whether the last try has given the receiver back.
    pub fn is_given_back(&self) -> bool {
        self.state().is_given_back
    }

    /// Notes that an open try was not made, and ends the visit.
    pub fn abandon(&self) {
        let mut state = self.state();
        state.open -= 1;
        state.is_over = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hold_after(earlier_failures: u32, took: Duration) -> Duration {
    let place = usize::try_from(earlier_failures).unwrap_or(usize::MAX).min(HOLDS.len() - 1);
    (took * HOLDS[place]).min(LONGEST_HOLD)
}

#[cfg(test)]
mod tests {
    use common::domain::{
        delivery::{Delivery, DeliveryStatus},
        endpoint::Secrets,
        event::EventKind,
        ids::{AccountId, DeliveryId},
        signing::SigningSecret,
        time::Millis,
    };

    use super::*;

    fn due() -> Due {
        let delivery = Delivery {
            id: DeliveryId::new(),
            account: AccountId::new(),
            message: None,
            batch: None,
            event: EventKind::WebhookTest,
            endpoint: None,
            status: DeliveryStatus::Pending,
            tries: 0,
            step: 0,
            next_at: Millis(0),
            created_at: Millis(0),
        };
        Due {
            delivery,
            url: String::new(),
            secrets: Secrets { current: SigningSecret::generate(), previous: Vec::new() },
        }
    }

    fn round(deliveries: usize, failures: u32) -> Round {
        Round::new((0..deliveries).map(|_| due()).collect(), failures, Instant::now(), Lifecycle::new())
    }

    #[test]
    fn the_last_try_gives_the_receiver_back() {
        let round = round(2, 0);
        assert!(round.open().is_some() && round.open().is_some() && round.open().is_none());
        assert_eq!(round.close(true, Duration::ZERO, None), Then::Keep(LEASE));
        assert_eq!(round.close(true, Duration::ZERO, None), Then::Release(Duration::ZERO));
    }

    #[test]
    fn a_failure_ends_the_visit() {
        let round = round(3, 0);
        assert!(round.open().is_some() && round.open().is_some());
        assert_eq!(round.close(false, Duration::from_secs(1), None), Then::Keep(LEASE));
        assert!(round.open().is_none());
        assert_eq!(round.close(true, Duration::ZERO, None), Then::Release(Duration::ZERO));
    }

    #[test]
    fn a_stop_ends_the_visit_too() {
        let round = round(2, 0);
        assert!(round.open().is_some());
        round.lifecycle.stop();
        assert!(round.open().is_none());
        assert_eq!(round.close(true, Duration::ZERO, None), Then::Release(Duration::ZERO));
    }

    #[test]
    fn who_asks_for_a_pause_gets_it_for_everything() {
        let minute = Duration::from_mins(1);
        let round = round(3, 0);
        assert!(round.open().is_some() && round.open().is_some());
        assert_eq!(round.close(false, Duration::ZERO, Some(minute)), Then::Keep(LEASE));
        assert_eq!(round.close(true, Duration::ZERO, None), Then::Release(minute), "also after the other try");
        let long = Round::new(vec![due()], 0, Instant::now(), Lifecycle::new());
        assert!(long.open().is_some());
        let asked = long.close(false, Duration::ZERO, Some(LONGEST_RETRY_AFTER * 9));
        assert_eq!(asked, Then::Release(LONGEST_RETRY_AFTER));
    }

    #[test]
    fn whose_lease_is_lost_or_nearly_over_gets_nothing_more() {
        let lost = round(2, 0);
        assert!(lost.open().is_some());
        lost.lose();
        assert!(lost.open().is_none());

        let now = Instant::now();
        let Some(long_ago) = now.checked_sub(LEASE - TRY_LIMIT) else { return };
        let late = Round::new(vec![due(), due()], 0, long_ago, Lifecycle::new());
        assert!(late.open().is_none());
        late.renew(now);
        assert!(late.open().is_some());
    }

    #[test]
    fn who_fails_slowly_and_often_is_left_alone_for_longer() {
        let held = |failures, took| {
            let round = round(1, failures);
            round.open();
            round.close(false, Duration::from_millis(took), None)
        };
        assert_eq!(held(0, 20_000), Then::Release(Duration::ZERO), "the schedule alone counts at first");
        assert_eq!(held(1, 20_000), Then::Release(Duration::from_secs(40)));
        assert_eq!(held(4, 10), Then::Release(Duration::from_millis(160)));
        assert_eq!(held(1_000, 20_000), Then::Release(LONGEST_HOLD));
    }
}
