//! What happens in a case, in milliseconds since its begin.

use sim::proptest::prelude::*;

/// How a reply comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// With the answer.
    Whole,
    /// The answer was too large for it.
    Large,
    /// It is no frame that this release knows.
    Unreadable,
}

/// The end of a call's job.
#[derive(Clone, Debug)]
pub struct End {
    /// When it is stored, after the call's begin.
    pub stored_after: u64,
    /// How long after that each of its replies comes; none: all were lost.
    pub replies: Vec<(u64, Manner)>,
}

/// One caller.
#[derive(Clone, Debug)]
pub struct Call {
    pub begins: u64,
    pub patience: u64,
    /// How long the publish takes, and whether the queue takes it.
    pub publish: u64,
    pub is_refused: bool,
    /// When the caller goes, after its begin.
    pub hangs_up_after: Option<u64>,
    pub end: Option<End>,
}

/// A while in which the store fails, or does not answer at all.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub from: u64,
    pub until: u64,
    pub is_frozen: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Case {
    pub calls: Vec<Call>,
    /// When the connection to the queue comes up again.
    pub reconnects: Vec<u64>,
    pub outages: Vec<Outage>,
    /// Replies for nobody.
    pub strays: Vec<u64>,
    /// When the gateway drops what is left.
    pub aborts: Option<u64>,
}

/// How long a case goes on, at most.
pub const LONG: u64 = 40_000;

fn end() -> impl Strategy<Value = End> {
    let manner = prop_oneof![4 => Just(Manner::Whole), 2 => Just(Manner::Large), 1 => Just(Manner::Unreadable)];
    let replies = prop::collection::vec((0_u64..3_000, manner), 0..4);
    (0_u64..20_000, replies).prop_map(|(stored_after, replies)| End { stored_after, replies })
}

fn call() -> impl Strategy<Value = Call> {
    let publish = (0_u64..50, prop::bool::weighted(0.1));
    let gone = prop::option::weighted(0.2, 0_u64..12_000);
    let end = prop::option::weighted(0.85, end());
    (0_u64..8_000, 1_u64..15_000, publish, gone, end).prop_map(|(begins, patience, publish, hangs_up_after, end)| {
        Call { begins, patience, publish: publish.0.min(patience), is_refused: publish.1, hangs_up_after, end }
    })
}

/// A case.
pub fn case() -> impl Strategy<Value = Case> {
    let outage = (0_u64..20_000, 1_u64..12_000, any::<bool>());
    let outage = outage.prop_map(|(from, long, is_frozen)| Outage { from, until: from + long, is_frozen });
    (
        prop::collection::vec(call(), 1..10),
        prop::collection::vec(0_u64..25_000, 0..3),
        prop::collection::vec(outage, 0..2),
        prop::collection::vec(0_u64..25_000, 0..3),
        prop::option::weighted(0.2, 0_u64..20_000),
    )
        .prop_map(|(calls, mut reconnects, outages, strays, aborts)| {
            reconnects.sort_unstable();
            Case { calls, reconnects, outages, strays, aborts }
        })
}

impl Case {
    /// Whether the store answers all the while from `from` until `until`.
    pub fn store_answers(&self, from: u64, until: u64) -> bool {
        self.outages.iter().all(|outage| outage.until < from || until < outage.from)
    }
}
