//! The runs of one job: what each says, gathered and numbered by the worker's own gatherer.

use std::time::Duration;

use common::domain::{
    ids::MessageId,
    message::MessageStatus,
    reply::{Attempt, Frame, FrameBody, Outcome},
};
use sim::proptest::prelude::*;
use tokio::time::{Instant, sleep_until};
use worker::reply::{Gatherer, LastFrame};

use crate::{
    clock::on_paused_clock,
    ends::{completed, without_answer},
};

/// For how long pieces are gathered.
pub const GATHER: Duration = Duration::from_millis(20);

/// What a run does next.
#[derive(Clone, Debug)]
pub enum Act {
    Say(String),
    /// The model is asked anew.
    Restart,
}

/// A run as a case wants it: how long it waits before each act, and what it does.
#[derive(Clone, Debug)]
pub struct Plan {
    pub acts: Vec<(u64, Act)>,
    /// How long it goes on after the last one.
    pub rest: u64,
}

/// A run as it went.
#[derive(Clone, Debug)]
pub struct Run {
    /// Without the last one, and when each left.
    pub frames: Vec<(Duration, Frame)>,
    pub last: LastFrame,
    /// All that it said since its last restart.
    pub text: String,
    /// What it said before each restart.
    pub taken_back: Vec<String>,
}

/// Pieces of text, most of them short: some cannot be cut anywhere, and a few are longer than one step of a reader.
fn piece() -> impl Strategy<Value = String> {
    let short = prop::collection::vec(prop::sample::select(vec!["a", "b", "é", "世", "🦀", "\n"]), 1..6);
    prop_oneof![
        12 => short.prop_map(|parts| parts.concat()),
        1 => (6_000_usize..14_000).prop_map(|count| "wörter".repeat(count / 7)),
    ]
}

fn act() -> impl Strategy<Value = (u64, Act)> {
    (0_u64..60, prop_oneof![14 => piece().prop_map(Act::Say), 1 => Just(Act::Restart)])
}

/// A run of up to `acts` acts.
pub fn plan(acts: usize) -> impl Strategy<Value = Plan> {
    (prop::collection::vec(act(), 0..acts), 0_u64..60).prop_map(|(acts, rest)| Plan { acts, rest })
}

/// Runs `plan`.
pub fn run(id: MessageId, delivery: u32, plan: &Plan) -> Run {
    on_paused_clock(async {
        let (begun, gatherer) = (Instant::now(), Gatherer::new(id, Attempt { seq: 7, delivery, restart: 0 }, GATHER));
        let (mut frames, mut text, mut taken_back) = (Vec::new(), String::new(), Vec::new());
        let rest = [(plan.rest, None)];
        let acts = plan.acts.iter().map(|(pause, act)| (*pause, Some(act))).chain(rest);
        for (pause, act) in acts {
            let until = Instant::now() + Duration::from_millis(pause);
            loop {
                tokio::select! {
                    biased;
                    frame = gatherer.due() => frames.push((begun.elapsed(), frame)),
                    () = sleep_until(until) => break,
                }
            }
            match act {
                Some(Act::Say(piece)) => {
                    gatherer.say(piece);
                    text.push_str(piece);
                }
                Some(Act::Restart) => {
                    gatherer.restart();
                    taken_back.push(std::mem::take(&mut text));
                }
                None => {}
            }
        }
        Run { frames, last: gatherer.last(), text, taken_back }
    })
}

impl Run {
    /// What `attempt` of it says, whole.
    pub fn text_of(&self, attempt: Attempt) -> &str {
        let restart = usize::try_from(attempt.restart).expect("few");
        self.taken_back.get(restart).unwrap_or(&self.text)
    }

    /// Its answer as it is stored, when `attempts` runs were begun.
    pub fn answer(&self, attempts: u32) -> Outcome {
        completed(&self.text, attempts)
    }
}

/// The frame that tells of `outcome`, with its answer or without.
pub fn told(last: LastFrame, outcome: &Outcome, is_large: bool) -> Frame {
    let content = outcome.content.clone().filter(|_| !is_large || outcome.status != MessageStatus::Completed);
    last.telling(Outcome { content, ..outcome.clone() })
}

/// The end that a caller gave the message.
pub fn cancelled(id: MessageId) -> (Frame, Outcome) {
    let outcome = without_answer(MessageStatus::Cancelled, 0);
    let body = FrameBody::Terminal { outcome: outcome.clone() };
    (Frame { id, attempt: Attempt::LAST, n: 0, body }, outcome)
}
