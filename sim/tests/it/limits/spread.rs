//! The limits of several gateways that tell each other their counts, some of which get lost.

use std::{collections::BTreeSet, time::Duration};

use common::domain::ids::KeyId;
use gateway::rate_limit::{Bucket, Quotas, RateLimiter};
use sim::{check, proptest::prelude::*};
use tokio::time::{Instant, sleep_until};

use super::{CUT, MINUTE, SPREAD};
use crate::clock::on_paused_clock;

/// How often a gateway tells the others what it has counted, and how long that takes at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What happens, in the order of its moment; what is told before what is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Heard { by: usize, counts: Vec<(String, u32)> },
    Tell { gateway: usize },
    Ask { gateway: usize },
}

struct Site {
    gateways: Vec<RateLimiter>,
    key: KeyId,
    quota: usize,
    /// Told apart by the order in which they were planned.
    due: BTreeSet<(Instant, Event, usize)>,
    planned: usize,
    /// Who let one through, and when.
    passed: Vec<(usize, Instant)>,
    /// One after another: how long each piece of news takes; `None`: it is lost.
    news: Vec<Option<u64>>,
    told: usize,
}

impl Site {
    fn new(gateways: usize, quota: u32, news: Vec<Option<u64>>) -> Self {
        let quotas = Quotas { key: quota, reads: 1, failures: 1 };
        let gateways = (0..gateways).map(|_| RateLimiter::new(quotas)).collect();
        let (due, passed) = (BTreeSet::new(), Vec::new());
        Self { gateways, key: KeyId::new(), quota: quota as usize, due, planned: 0, passed, news, told: 0 }
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.planned += 1;
        self.due.insert((at, event, self.planned));
    }

    /// Until nothing is due any more. Every answer is right as far as a gateway can know.
    async fn run(&mut self) {
        while let Some((at, event, _)) = self.due.pop_first() {
            sleep_until(at).await;
            // The clock goes in steps of a millisecond.
            let at = Instant::now();
            match event {
                Event::Heard { by, counts } => self.gateways[by].add_counts(&counts),
                Event::Tell { gateway } => self.tell(gateway, at),
                Event::Ask { gateway } => self.ask(gateway, at),
            }
        }
    }

    fn ask(&mut self, gateway: usize, at: Instant) {
        let is_lossy = self.news.iter().any(Option::is_none);
        let within = |age, of: &dyn Fn(usize) -> bool| {
            self.passed.iter().filter(|(by, passed)| of(*by) && at - *passed <= age).count()
        };
        if self.gateways[gateway].request(Bucket::Requests, self.key).is_ok() {
            assert!(within(MINUTE, &|by| by == gateway) < self.quota, "alone it lets no more than the quota through");
            let untold = within(SPREAD, &|by| by != gateway);
            let all = within(MINUTE, &|_| true);
            assert!(is_lossy || all < self.quota + untold, "{all} in the last minute, {untold} of them untold");
            self.passed.push((gateway, at));
            let tick = (at - self.began()).as_millis() / TELL_EVERY.as_millis() + 1;
            let tick = TELL_EVERY * u32::try_from(tick).expect("a short case");
            self.plan(self.began() + tick, Event::Tell { gateway });
        } else {
            let all = within(MINUTE + SPREAD + CUT, &|_| true);
            assert!(all >= self.quota, "refused, with {all} in the last minute");
        }
    }

    fn tell(&mut self, gateway: usize, at: Instant) {
        let counts = self.gateways[gateway].take_counts();
        if counts.is_empty() {
            return;
        }
        for by in (0..self.gateways.len()).filter(|by| *by != gateway) {
            let delay = if self.news.is_empty() { Some(0) } else { self.news[self.told % self.news.len()] };
            self.told += 1;
            if let Some(delay) = delay {
                self.plan(at + Duration::from_millis(delay), Event::Heard { by, counts: counts.clone() });
            }
        }
    }

    /// All gateways began at the same moment; the clock stands still at a case's begin.
    fn began(&self) -> Instant {
        self.passed.first().map_or_else(Instant::now, |(_, at)| *at)
    }

    /// The most that passed in any minute.
    fn most_in_a_minute(&self) -> usize {
        let ending = |last: Instant| self.passed.iter().filter(|(_, at)| *at <= last && last - *at <= MINUTE).count();
        self.passed.iter().map(|(_, last)| ending(*last)).max().unwrap_or_default()
    }
}

#[test]
fn gateways_that_hear_of_each_other_let_the_quota_through_and_what_is_not_told_yet() {
    let news = prop_oneof![
        3 => prop::collection::vec((0_u64..=50).prop_map(Some), 0..8),
        1 => prop::collection::vec(prop::option::of(0_u64..=50), 1..8),
    ];
    let gap = prop_oneof![3 => 0_u64..3, 4 => 1_u64..400, 2 => 1_000_u64..30_000, 1 => 59_990_u64..60_200];
    let asks = prop::collection::vec((gap, 0_usize..4), 1..160);
    check(file!(), "limiter of several gateways", 2_000, (2_usize..=4, 1_u32..12, news, asks), |case| {
        let (gateways, quota, news, asks) = case;
        on_paused_clock(async {
            let mut site = Site::new(gateways, quota, news);
            let mut at = Instant::now();
            for (gap, gateway) in asks {
                at += Duration::from_millis(gap);
                site.plan(at, Event::Ask { gateway: gateway % gateways });
            }
            site.run().await;
            assert!(site.most_in_a_minute() <= quota as usize * gateways);
        });
    });
}

#[test]
fn steady_traffic_over_several_gateways_stays_within_five_percent() {
    let case = (2_usize..=4, 25_u64..500, prop::collection::vec((0_u64..=50).prop_map(Some), 1..8), 0_u64..100);
    check(file!(), "steady traffic", 100, case, |(gateways, every, news, first)| {
        on_paused_clock(async {
            let mut site = Site::new(gateways, 120, news);
            let begun = Instant::now() + Duration::from_millis(first);
            // Round the gateways in turn, for two minutes.
            for n in 0..120_000 / every {
                let gateway = usize::try_from(n).expect("few") % gateways;
                site.plan(begun + Duration::from_millis(n * every), Event::Ask { gateway });
            }
            site.run().await;
            let most = site.most_in_a_minute();
            assert!((120..=126).contains(&most), "{most} in a minute");
        });
    });
}
