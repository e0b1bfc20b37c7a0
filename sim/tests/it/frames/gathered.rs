//! What one run says leaves soon, in order, and once.

use common::domain::{ids::MessageId, reply::FrameBody};
use sim::check;

use super::runs::{self, GATHER};
use crate::ends::completed;

#[test]
fn what_a_run_says_leaves_soon_in_order_and_once() {
    check(file!(), "gathered text", 2_000, runs::plan(25), |plan| {
        let run = runs::run(MessageId::new(), 1, &plan);
        let mut reach: Vec<usize> = vec![0; run.taken_back.len() + 1];
        for (place, (_, frame)) in run.frames.iter().enumerate() {
            assert_eq!(frame.n, u32::try_from(place).expect("few"), "numbers have no gap");
            let of = usize::try_from(frame.attempt.restart).expect("few");
            match &frame.body {
                FrameBody::Started {} => assert_eq!(place, 0, "the begin is said first, and once"),
                FrameBody::Delta { at, text } => {
                    assert!(place > 0 && !text.is_empty());
                    assert_eq!(*at, reach[of]);
                    reach[of] += text.len();
                    assert_eq!(run.text_of(frame.attempt).get(*at..reach[of]), Some(text.as_str()));
                }
                FrameBody::Terminal { .. } => panic!("it has not ended"),
            }
        }
        let last = run.last.telling(completed("", 1));
        assert_eq!(last.n, u32::try_from(run.frames.len()).expect("few"));
        assert!(run.frames.iter().all(|(_, frame)| frame.attempt <= last.attempt));
        all_has_left(&plan, &reach);
    });
}

/// What was said so long before the end that it is not gathered any more.
fn all_has_left(plan: &runs::Plan, reach: &[usize]) {
    let long: u64 = plan.acts.iter().map(|(pause, _)| pause).sum::<u64>() + plan.rest;
    let (mut now, mut due) = (0, 0);
    for (pause, act) in &plan.acts {
        now += pause;
        match act {
            runs::Act::Restart => due = 0,
            // Twice: the begin is said before the first piece. And the clock goes in steps of a millisecond.
            runs::Act::Say(piece) if u128::from(long - now) > 2 * GATHER.as_millis() + 2 => due += piece.len(),
            runs::Act::Say(_) => {}
        }
    }
    let left = reach.last().copied().unwrap_or_default();
    assert!(left >= due, "{left} bytes have left, of {due} that were due");
}
