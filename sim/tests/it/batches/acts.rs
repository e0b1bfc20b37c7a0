//! What happens to a batch.

use sim::proptest::prelude::*;

/// How a line ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Completed,
    Failed,
    Expired,
    Cancelled,
}

/// One thing that happens; lines are counted round.
#[derive(Clone, Debug)]
pub enum Act {
    /// A worker ends these, in one group: some for the first time, some that have ended before.
    Finish(Vec<(u32, End)>),
    /// A worker begins one, for the first time or again.
    Start(u32),
    Start2(u32),
    /// A stopped run tells what it has used.
    Charge(u32),
    /// The caller stops the batch.
    Cancel,
    /// The gateway has put all of it on the queue.
    Enqueued,
    /// It says that it still does, or lets it go.
    Renew,
    Release,
    /// Another gateway takes it over.
    TakeOver,
    /// The same body is sent again.
    OpenAgain,
    /// So many seconds pass, and what nobody enqueues any more is given up.
    Abandon(u64),
}

/// Any act.
pub fn act() -> impl Strategy<Value = Act> {
    let end = prop_oneof![
        5 => Just(End::Completed),
        2 => Just(End::Failed),
        1 => Just(End::Expired),
        2 => Just(End::Cancelled),
    ];
    prop_oneof![
        10 => prop::collection::vec((0_u32..7, end), 1..5).prop_map(Act::Finish),
        2 => (0_u32..7).prop_map(Act::Start),
        1 => (0_u32..7).prop_map(Act::Start2),
        2 => (0_u32..7).prop_map(Act::Charge),
        1 => Just(Act::Cancel),
        3 => Just(Act::Enqueued),
        1 => Just(Act::Renew),
        1 => Just(Act::Release),
        1 => Just(Act::TakeOver),
        2 => Just(Act::OpenAgain),
        1 => prop_oneof![Just(5_u64), Just(100), Just(1_000)].prop_map(Act::Abandon),
    ]
}
