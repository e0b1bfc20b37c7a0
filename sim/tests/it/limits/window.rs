//! The window of one gateway, against all moments that were ever counted.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use gateway::rate_limit::{
    Quotas, RateLimiter,
    window::{Standing, Window},
};
use sim::{check, proptest::prelude::*};
use tokio::time::{Instant, advance};

use super::{CUT, MINUTE};
use crate::clock::on_paused_clock;

#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    Look,
    Add(u32),
}

/// Pauses in microseconds: none, short ones, such as let a minute pass nearly, just, or more than once.
fn pause() -> impl Strategy<Value = Duration> {
    let micros = prop_oneof![
        3 => Just(0),
        3 => 1_u64..2_500,
        6 => 1_000_u64..20_000_000,
        2 => 59_998_500_u64..60_001_500,
        1 => 60_000_000_u64..200_000_000,
    ];
    micros.prop_map(Duration::from_micros)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![8 => Just(Act::Take), 1 => Just(Act::Look), 1 => (0_u32..9).prop_map(Act::Add)]
}

/// Every moment that counts, by key.
#[derive(Default)]
struct Counted(Vec<(u8, Instant)>);

impl Counted {
    fn note(&mut self, key: u8, times: u32, now: Instant) {
        self.0.extend((0..times).map(|_| (key, now)));
    }

    /// How many of `key` are at most a minute old; and how many may still count.
    fn of(&self, key: u8, now: Instant) -> (usize, usize) {
        let within = |age| self.0.iter().filter(|(of, at)| *of == key && now - *at <= age).count();
        (within(MINUTE), within(MINUTE + CUT))
    }

    /// How many other keys than `key` have such moments.
    fn others(&self, key: u8, keys: u8, now: Instant) -> (usize, usize) {
        let others = (0..keys).filter(|other| *other != key).map(|other| self.of(other, now));
        others.fold((0, 0), |(surely, perhaps), (minute, more)| {
            (surely + usize::from(minute > 0), perhaps + usize::from(more > 0))
        })
    }

    /// `standing` says what is left of `quota`, and when the oldest that is in the way has gone.
    fn agrees(&self, standing: Standing, key: u8, quota: u32, now: Instant) {
        let (surely, perhaps) = self.of(key, now);
        let left = |used: usize| quota.saturating_sub(u32::try_from(used).expect("few"));
        assert!((left(perhaps)..=left(surely)).contains(&standing.remaining), "{standing:?} of {surely} to {perhaps}");
        assert!(standing.quota == quota && standing.resets_in_s <= 60, "{standing:?}");
        if surely == perhaps && surely > 0 {
            // Of more than the quota, which others have let through, only the newest are in the way.
            let of_key: Vec<_> = self.0.iter().filter(|(of, at)| *of == key && now - *at <= MINUTE).collect();
            let oldest = of_key[of_key.len().saturating_sub(quota as usize)].1;
            let free_in = (oldest + MINUTE).saturating_duration_since(now);
            let said = Duration::from_secs(standing.resets_in_s);
            assert!(said + CUT >= free_in, "{said:?} is too soon: {free_in:?}");
            assert!(said <= free_in + Duration::from_secs(1) + CUT * 2, "{said:?} is too late: {free_in:?}");
        }
    }
}

#[test]
fn a_window_lets_its_quota_through_and_no_more() {
    let acts = prop::collection::vec((pause(), 0_u8..3, act()), 1..120);
    check(file!(), "limiter window", 3_000, (1_u32..8, acts), |(quota, acts)| {
        let mut now = Instant::now();
        let window = Window::new(quota, usize::MAX, now);
        let mut counted = Counted::default();
        for (pause, key, act) in acts {
            now += pause;
            let (surely, perhaps) = counted.of(key, now);
            match act {
                Act::Take => match window.take(key, now) {
                    Ok(standing) => {
                        assert!(surely < quota as usize, "{surely} were let through in the last minute");
                        counted.note(key, 1, now);
                        counted.agrees(standing, key, quota, now);
                    }
                    Err(standing) => {
                        assert!(perhaps >= quota as usize, "refused, with {perhaps} in the last minute");
                        counted.agrees(standing, key, quota, now);
                    }
                },
                Act::Look => counted.agrees(window.look(&key, now), key, quota, now),
                Act::Add(times) => {
                    window.add(key, times, now);
                    counted.note(key, times, now);
                }
            }
        }
    });
}

#[test]
fn a_window_has_room_for_so_many_keys_and_forgets_those_that_are_over() {
    let takes = prop::collection::vec((pause(), 0_u8..9), 1..120);
    check(file!(), "limiter capacity", 2_000, (1_u32..4, 1_usize..6, takes), |(quota, capacity, takes)| {
        let mut now = Instant::now();
        let window = Window::new(quota, capacity, now);
        let mut counted = Counted::default();
        for (pause, key) in takes {
            now += pause;
            let ((own_surely, own_perhaps), (surely, perhaps)) = (counted.of(key, now), counted.others(key, 9, now));
            if window.take(key, now).is_ok() {
                assert!(own_surely < quota as usize && surely < capacity, "{own_surely} of its own, {surely} others");
                counted.note(key, 1, now);
            } else {
                let no_room = perhaps >= capacity && own_surely == 0;
                assert!(own_perhaps >= quota as usize || no_room, "{own_perhaps} of its own, {perhaps} others");
            }
        }
    });
}

/// Addresses of few neighbourhoods, each written in several ways; and which neighbourhood it is.
fn neighbour() -> impl Strategy<Value = (IpAddr, u8)> {
    (0_u8..4, any::<u64>(), any::<bool>()).prop_map(|(place, host, mapped)| match place {
        0 | 1 => {
            let v4 = Ipv4Addr::new(203, 0, 113, place);
            (if mapped { v4.to_ipv6_mapped().into() } else { v4.into() }, place)
        }
        _ => (
            Ipv6Addr::from_bits(((0x2001_0db8_0000_0000_u128 + u128::from(place)) << 64) | u128::from(host)).into(),
            place,
        ),
    })
}

#[test]
fn failures_are_answered_so_many_times_a_minute_for_each_neighbourhood() {
    let failures = prop::collection::vec((pause(), neighbour()), 1..80);
    check(file!(), "failed-auth window", 2_000, (1_u32..6, failures), |(limit, failures)| {
        on_paused_clock(async {
            let limiter = RateLimiter::new(Quotas { key: 1, reads: 1, failures: limit });
            let mut counted = Counted::default();
            for (pause, (address, place)) in failures {
                // The paused clock counts in milliseconds.
                advance(Duration::from_millis(pause.as_micros().div_ceil(1_000) as u64)).await;
                let (surely, perhaps) = counted.of(place, Instant::now());
                if limiter.failure(address) {
                    assert!(surely < limit as usize, "{surely} were answered in the last minute");
                    counted.note(place, 1, Instant::now());
                } else {
                    assert!(perhaps >= limit as usize, "refused, with {perhaps} in the last minute");
                }
            }
        });
    });
}
