//! When a delivery is tried, and when an endpoint has been in vain for so long that nobody asks it any more.

use std::{ops::RangeInclusive, time::Duration};

use common::domain::time::Millis;
/// From each try to the one after it. The first try is made at once; after the last one there is none.
const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];
/// What each pause is multiplied with, at random, so that deliveries that failed together do not come together again.
const JITTER: RangeInclusive<f64> = 1.0..=1.2;
/// A receiver that asks for a longer pause is asked again after this one.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);
/// An endpoint that was tried for this long without a success is switched off; and what a failing receiver could not be
/// sent for this long is given up.
pub const PATIENCE: Duration = Duration::from_hours(5 * 24);

/// When a delivery is tried again whose `failed`th try of the schedule has failed at `now`; `None`: never.
/// `retry_after`: the pause that the receiver has asked for.
pub fn next_try(failed: u32, retry_after: Option<Duration>, now: Millis) -> Option<Millis> {
    let pause = *PAUSES.get(usize::try_from(failed).ok()?.checked_sub(1)?)?;
    let spread = pause.mul_f64(rand::random_range(JITTER));
    Some(now.plus(spread.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))))
}

/// Whether an endpoint that has failed since `failing_since`, without a success between, is to be switched off.
pub fn is_hopeless(failing_since: Millis, now: Millis) -> bool {
    now.since(failing_since) >= PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(failed: u32, retry_after: Option<Duration>) -> Option<Duration> {
        let now = Millis(1_000);
        next_try(failed, retry_after, now).map(|at| at.since(now))
    }

    #[test]
    fn there_are_ten_tries_with_growing_pauses() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let expected =
            [Duration::from_secs(5), Duration::from_secs(300), Duration::from_secs(1_800), hours(2), hours(5)];
        let expected = expected.into_iter().chain([hours(10), hours(14), hours(20), hours(24)]);
        for (failed, least) in (1..).zip(expected) {
            for _ in 0..100 {
                let given = pause(failed, None).expect("one more try");
                assert!(given >= least && given <= least.mul_f64(1.2), "after {failed}: {given:?}");
            }
        }
        assert_eq!(pause(10, None), None);
        assert_eq!(pause(u32::MAX, Some(Duration::from_hours(1))), None);
    }

    #[test]
    fn pauses_are_spread() {
        let pauses: Vec<_> = (0..100).filter_map(|_| pause(1, None)).collect();
        let (least, most) = (pauses.iter().min().expect("some"), pauses.iter().max().expect("some"));
        assert!(*most > *least + Duration::from_millis(500), "{least:?} to {most:?}");
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause_and_for_no_shorter_one() {
        let hour = Duration::from_hours(1);
        assert_eq!(pause(1, Some(hour)), Some(hour));
        assert!(pause(3, Some(Duration::from_secs(1))) >= Some(Duration::from_mins(30)));
        assert_eq!(pause(1, Some(hour * 1_000)), Some(LONGEST_RETRY_AFTER));
    }

    #[test]
    fn five_days_in_vain_are_enough() {
        let day: i64 = 86_400_000;
        assert!(!is_hopeless(Millis(0), Millis(5 * day - 1)));
        assert!(is_hopeless(Millis(0), Millis(5 * day)));
    }
}
