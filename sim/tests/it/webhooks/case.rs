//! What a receiver does over the days, and what its owner does.

use std::time::Duration;

use sim::proptest::prelude::*;

/// How a receiver answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    Takes,
    Fails(u16),
    /// It asks for a pause of so many seconds.
    FailsFor(u64),
    /// It says that it is gone.
    Gone,
    Silent,
    /// Its address is one that we do not call.
    Forbidden,
}

/// What its owner does.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    SwitchOff,
    SwitchOn,
    /// What was told first is sent again.
    Replay,
    Test,
}

/// A case; moments are since its begin.
#[derive(Clone, Debug)]
pub struct Case {
    /// How long the receiver does what, one after another; the last goes on.
    pub manners: Vec<(Duration, Manner)>,
    /// When messages end.
    pub events: Vec<Duration>,
    pub wishes: Vec<(Duration, Wish)>,
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        4 => Just(Manner::Takes),
        3 => prop::sample::select(vec![302_u16, 400, 404, 429, 500, 503]).prop_map(Manner::Fails),
        2 => prop_oneof![1_u64..120, 3_600_u64..200_000].prop_map(Manner::FailsFor),
        3 => Just(Manner::Silent),
        1 => Just(Manner::Gone),
        1 => Just(Manner::Forbidden),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        2 => Just(Wish::SwitchOff),
        2 => Just(Wish::SwitchOn),
        2 => Just(Wish::Replay),
        1 => Just(Wish::Test),
    ]
}

/// Any case of some days.
pub fn case() -> impl Strategy<Value = Case> {
    let moment = || (0_u64..7 * 24 * 3_600).prop_map(Duration::from_secs);
    let soon = || (0_u64..3_600).prop_map(Duration::from_secs);
    let long = prop_oneof![soon(), moment()];
    (
        prop::collection::vec((long, manner()), 1..4),
        prop::collection::vec(prop_oneof![2 => soon(), 1 => moment()], 1..4),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec((moment(), wish()), 1..4)],
    )
        .prop_map(|(manners, events, wishes)| Case { manners, events, wishes })
}

impl Case {
    /// What the receiver does at this moment.
    pub fn manner(&self, at: Duration) -> Manner {
        let mut until = Duration::ZERO;
        for (long, manner) in &self.manners {
            until += *long;
            if at < until {
                return *manner;
            }
        }
        self.manners.last().map_or(Manner::Takes, |(_, manner)| *manner)
    }
}
