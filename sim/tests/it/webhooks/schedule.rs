//! The schedule itself. Its jitter is drawn by the product, so that a case that failed may pass when it is repeated.

use std::time::Duration;

use common::domain::time::Millis;
use sim::{check, proptest::prelude::*};
use worker::deliveries::schedule::{is_hopeless, next_try};

use super::{LONGEST_RETRY_AFTER, PATIENCE, PAUSES};

#[test]
fn each_try_comes_at_its_time_or_when_the_receiver_asks_for_it() {
    let asked = prop_oneof![
        Just(None),
        (0_u64..100_000_000).prop_map(|millis| Some(Duration::from_millis(millis))),
        Just(Some(Duration::MAX)),
    ];
    let failed = prop_oneof![9 => 0_u32..13, 1 => any::<u32>()];
    check(file!(), "webhook schedule", 2_000, (failed, asked, 0_i64..4_000_000_000_000), |(failed, asked, now)| {
        let now = Millis(now);
        let pause = failed.checked_sub(1).and_then(|place| PAUSES.get(place as usize));
        let next = next_try(failed, asked, now).map(|at| at.since(now));
        assert_eq!(next.is_some(), pause.is_some(), "there are ten tries");
        if let (Some(pause), Some(next)) = (pause, next) {
            let asked = asked.unwrap_or_default().min(LONGEST_RETRY_AFTER);
            let most = pause.mul_f64(1.2).max(asked);
            assert!(next >= (*pause).max(asked) && next <= most, "{next:?} of {pause:?}, {asked:?} asked for");
        }
        let since = now.minus(Duration::from_hours(u64::from(failed % 240)));
        assert_eq!(is_hopeless(since, now), now.since(since) >= PATIENCE);
    });
}
