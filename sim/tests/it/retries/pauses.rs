//! The pauses themselves. Their jitter is drawn by the product, so that a case that failed may pass when it is repeated.

use std::time::Duration;

use common::retry::Pauses;
use sim::{check, proptest::prelude::*};

/// How long a budget lasts that no case uses up, for it is counted in real time.
const LARGE: Duration = Duration::from_hours(1);
/// The crate counts nanoseconds as fractions, and may round up.
const ROUNDED: Duration = Duration::from_micros(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Endless,
    FullJitter,
    WithBudget,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Endless), Just(Kind::FullJitter), Just(Kind::WithBudget)]
}

fn pauses(kind: Kind, first: Duration, longest: Duration) -> Pauses {
    match kind {
        Kind::Endless => Pauses::new(first, longest, None),
        Kind::FullJitter => Pauses::with_full_jitter(first, longest),
        Kind::WithBudget => Pauses::new(first, longest, Some(LARGE)),
    }
}

#[test]
fn pauses_double_within_their_bounds_and_begin_anew_after_a_success() {
    // Whether it failed each time, or succeeded.
    let tries = prop::collection::vec(prop::bool::weighted(0.9), 1..40);
    let case = (kind(), 1_u64..1_000, 1_u64..40, tries);
    check(file!(), "pauses", 3_000, case, |(kind, first, times, tries)| {
        let (first, longest) = (Duration::from_millis(first), Duration::from_millis(first * times));
        let mut pauses = pauses(kind, first, longest);
        let mut base = first;
        for has_failed in tries {
            if !has_failed {
                pauses.reset();
                base = first;
                continue;
            }
            let pause = pauses.next_pause().expect("the budget lasts");
            let (least, most) = match kind {
                Kind::FullJitter => (Duration::ZERO, base),
                Kind::Endless | Kind::WithBudget => (base / 2, base * 3 / 2),
            };
            assert!(pause + ROUNDED >= least && pause <= most + ROUNDED, "{pause:?} of {base:?}");
            base = (base * 2).min(longest);
        }
    });
}

#[test]
fn no_pause_is_longer_than_the_budget_has_left() {
    check(file!(), "pauses within a budget", 1_000, (1_u64..2_000, 0_u64..2_000), |(first, budget)| {
        let (first, budget) = (Duration::from_millis(first), Duration::from_millis(budget));
        let mut pauses = Pauses::new(first, first * 4, Some(budget));
        // Nobody sleeps here: what is left is the whole budget, or a little less.
        for _ in 0..6 {
            match pauses.next_pause() {
                Some(pause) => assert!(pause <= budget, "{pause:?} of {budget:?}"),
                None => {
                    return assert!(first * 6 >= budget.saturating_sub(Duration::from_secs(1)), "it was not used up");
                }
            }
        }
    });
}
