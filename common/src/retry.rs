//! Waiting longer after each failure: the one home of the `backoff` crate.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// Growing pauses with jitter, until a budget of time is used up.
#[derive(Debug)]
pub struct Pauses(ExponentialBackoff);

impl Pauses {
    /// Pauses that begin around `first`, double up to `longest`, and end when `budget` has passed since now.
    /// Without a budget they never end. Each is spread by half its length to both sides.
    pub fn new(first: Duration, longest: Duration, budget: Option<Duration>) -> Self {
        let pauses = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_interval(longest)
            .with_max_elapsed_time(budget)
            .build();
        Self(pauses)
    }

    /// Pauses with full jitter: each is anything from nothing to its most, which is `first` at first, doubles, and
    /// ends at `longest`. They never end. For many callers that meet the same failure at once.
    pub fn with_full_jitter(first: Duration, longest: Duration) -> Self {
        // The crate spreads around the middle.
        let pauses = ExponentialBackoffBuilder::new()
            .with_initial_interval(first / 2)
            .with_multiplier(2.0)
            .with_randomization_factor(1.0)
            .with_max_interval(longest / 2)
            .with_max_elapsed_time(None)
            .build();
        Self(pauses)
    }

    /// How long to wait before the next try; `None` when the budget is used up.
    pub fn next_pause(&mut self) -> Option<Duration> {
        self.0.next_backoff()
    }

    /// Begins again, after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(1), None);
        let first = pauses.next_pause().expect("no budget");
        assert!((50..=150).contains(&first.as_millis()), "{first:?}");
        let last = (0..20).filter_map(|_| pauses.next_pause()).last().expect("no budget");
        assert!((500..=1500).contains(&last.as_millis()), "{last:?}");
    }

    #[test]
    fn full_jitter_reaches_from_nothing_to_the_most() {
        let millis = || {
            let mut pauses = Pauses::with_full_jitter(Duration::from_millis(100), Duration::from_millis(400));
            let mut next = || pauses.next_pause().expect("no budget").as_millis();
            [next(), next(), next(), next()]
        };
        let runs: Vec<_> = (0..200).map(|_| millis()).collect();
        for (index, most) in [100, 200, 400, 400].into_iter().enumerate() {
            let pauses = || runs.iter().map(|run| run[index]);
            assert!(pauses().all(|pause| pause <= most), "{most}");
            assert!(pauses().min() < Some(most / 4) && pauses().max() > Some(most / 4 * 3), "{most}");
        }
    }

    #[test]
    fn a_used_up_budget_ends_them() {
        let mut pauses = Pauses::new(Duration::from_millis(1), Duration::from_millis(1), Some(Duration::ZERO));
        assert_eq!(pauses.next_pause(), None);
    }
}
