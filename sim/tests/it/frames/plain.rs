//! A caller of `stream:true`, who sees nothing but text: it ends cleanly with the stored answer, or breaks.

use common::domain::{
    message::MessageStatus,
    reply::{Attempt, FrameBody},
};
use gateway::dispatcher::answer_stream::{Sent, Step};
use sim::{check, proptest::prelude::*};

use super::way::{Job, wanted};

/// What becomes of a frame on its way.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Comes,
    Lost,
    Twice,
    /// It comes behind the next one.
    Late,
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![8 => Just(Luck::Comes), 2 => Just(Luck::Lost), 1 => Just(Luck::Twice), 1 => Just(Luck::Late)]
}

#[test]
fn a_stream_of_text_ends_with_the_stored_answer_or_breaks() {
    let case = (wanted(), prop::collection::vec(luck(), 40));
    check(file!(), "streamed text", 2_000, case, |(wanted, lucks)| {
        let job = Job::of(&wanted);
        let mut heard = Vec::new();
        let mut late = None;
        for (frame, luck) in job.sent.iter().zip(lucks.iter().cycle()) {
            match luck {
                Luck::Comes => heard.push(frame),
                Luck::Lost => {}
                Luck::Twice => heard.extend([frame, frame]),
                Luck::Late => {
                    heard.extend(late.replace(frame));
                    continue;
                }
            }
            heard.extend(late.take());
        }
        heard.extend(late);
        let (mut sent, mut text, mut of) = (Sent::default(), String::new(), None);
        let is_completed = job.outcome.status == MessageStatus::Completed;
        for frame in heard {
            let is_end = matches!(frame.body, FrameBody::Terminal { .. });
            let step = match &frame.body {
                FrameBody::Started {} => continue,
                FrameBody::Delta { at, text } => sent.delta(frame.attempt, *at, text),
                // What is too large for its frame is read from the store.
                FrameBody::Terminal { .. } => sent.end(Some(frame.attempt), &job.outcome),
            };
            match step {
                Step::Wait => assert!(!is_end),
                Step::Text(more) => {
                    let told: Attempt = *of.get_or_insert(frame.attempt);
                    assert_eq!(told, frame.attempt, "the text of two runs");
                    text.push_str(&more);
                    assert!(job.text_of(told).starts_with(&text));
                }
                Step::End(rest) => {
                    assert!(is_end && is_completed && (of.is_none() || of == Some(frame.attempt)));
                    assert_eq!(Some(text + &rest), job.outcome.content);
                    return;
                }
                Step::Broken(_) => {
                    let is_other = of.is_some_and(|told| told != frame.attempt);
                    return assert!(is_other || is_end && !is_completed, "it broke for nothing");
                }
            }
        }
        // The end was lost, and is found in the store.
        match sent.end(None, &job.outcome) {
            Step::End(rest) => assert_eq!(Some(text + &rest), job.outcome.content),
            Step::Broken(_) => assert!(!is_completed || of.is_some_and(|told| !is_told_whole(&job, told))),
            step => panic!("{step:?}"),
        }
    });
}

/// Whether the stored answer is known to be the one of `told`.
fn is_told_whole(job: &Job, told: Attempt) -> bool {
    job.runs.len() == 1 && told.restart as usize == job.runs[0].taken_back.len()
}
