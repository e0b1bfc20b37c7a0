//! Callers who want every frame: all that came, in order, until they fall too far behind.

use std::sync::Arc;

use bytes::Bytes;
use common::domain::ids::MessageId;
use gateway::waiter::{Waiters, Wake};
use sim::{check, proptest::prelude::*};

use crate::clock::on_paused_clock;

/// Frames that may wait for one reader.
const BACKLOG: usize = 1_024;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// So many frames come for this reader.
    Frames(usize, usize),
    /// It takes so many, as far as there are any.
    Take(usize, usize),
    Leave(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let many = prop_oneof![6 => 1_usize..20, 1 => 300_usize..1_200];
    prop_oneof![
        5 => (0_usize..3, many.clone()).prop_map(|(reader, count)| Act::Frames(reader, count)),
        4 => (0_usize..3, many).prop_map(|(reader, count)| Act::Take(reader, count)),
        1 => (0_usize..3).prop_map(Act::Leave),
    ]
}

#[test]
fn a_stream_gives_what_came_in_order_and_is_cut_off_when_nobody_reads() {
    check(file!(), "streaming waiters", 500, prop::collection::vec(act(), 1..40), |acts| {
        on_paused_clock(async {
            let waiters = Arc::new(Waiters::default());
            let ids = [MessageId::new(), MessageId::new(), MessageId::new()];
            let mut readers = ids.map(|id| Some(waiters.stream(id)));
            let (mut sent, mut read, mut is_cut) = ([0; 3], [0; 3], [false; 3]);
            for act in acts {
                match act {
                    Act::Frames(of, count) => {
                        for _ in 0..count {
                            waiters.wake(ids[of], Wake::Frame(Bytes::from(format!("{of} {}", sent[of]))));
                            is_cut[of] |= readers[of].is_none() || sent[of] - read[of] == BACKLOG;
                            sent[of] += usize::from(!is_cut[of]);
                        }
                    }
                    Act::Take(of, count) => {
                        let Some(reader) = &mut readers[of] else { continue };
                        for _ in 0..count.min(sent[of] - read[of]) {
                            let next = reader.next().await;
                            let wanted = format!("{of} {}", read[of]);
                            assert!(matches!(next, Some(Wake::Frame(bytes)) if bytes == wanted));
                            read[of] += 1;
                        }
                        if is_cut[of] && sent[of] == read[of] {
                            assert!(reader.next().await.is_none(), "it was cut off");
                        }
                    }
                    Act::Leave(of) => readers[of] = None,
                }
                let waiting = (0..3).filter(|of| readers[*of].is_some() && !is_cut[*of]).count();
                assert_eq!(waiters.len(), waiting);
            }
            drop(readers);
            assert!(waiters.is_empty());
        });
    });
}
