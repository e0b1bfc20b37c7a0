//! A case: the runs of a job, in which order their frames are sent, and what becomes of these on their way.

use common::domain::{
    ids::MessageId,
    message::MessageStatus,
    reply::{Attempt, Frame, FrameBody, Outcome},
};
use sim::proptest::prelude::*;

use super::runs::{self, Plan, Run, cancelled, told};
use crate::ends::without_answer;

/// How the message ends.
#[derive(Clone, Copy, Debug)]
pub enum Finish {
    /// With the answer of this run, which need not be the newest: the first end that is stored wins.
    Answer(usize),
    /// The newest run fails.
    Failed,
    /// Its caller stops it when so much of a hundred was sent; the run that goes on then is told so later.
    Cancelled(usize),
}

/// What a case wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whether all runs say the same, as one with a temperature of 0 does.
    pub is_same: bool,
    pub plans: Vec<Plan>,
    /// How much of a hundred of its frames each run has sent when the next begins. What is left it sends later, unless
    /// it is dead.
    pub cuts: Vec<(usize, bool)>,
    /// Of two that could be sent next, whether it is that of the older run.
    pub turns: Vec<bool>,
    pub finish: Finish,
    /// Whether the answer is too large for its frame.
    pub is_large: bool,
    /// How many starts were taken back.
    pub not_counted: u32,
}

/// Anything that a case may want.
pub fn wanted() -> impl Strategy<Value = Wanted> {
    let finish = prop_oneof![
        5 => (0_usize..4).prop_map(Finish::Answer),
        1 => Just(Finish::Failed),
        1 => (0_usize..100).prop_map(Finish::Cancelled),
    ];
    (
        (any::<bool>(), prop::collection::vec(runs::plan(14), 1..4)),
        prop::collection::vec((0_usize..=100, any::<bool>()), 4),
        prop::collection::vec(any::<bool>(), 30),
        (finish, any::<bool>(), prop_oneof![3 => Just(0_u32), 1 => 1_u32..3]),
    )
        .prop_map(|((is_same, plans), cuts, turns, (finish, is_large, not_counted))| Wanted {
            is_same,
            plans,
            cuts,
            turns,
            finish,
            is_large,
            not_counted,
        })
}

/// A job and all that is said about it.
pub struct Job {
    pub id: MessageId,
    pub runs: Vec<Run>,
    /// Everything, in the order in which it is sent.
    pub sent: Vec<Frame>,
    /// From how many of them on the end is in the store.
    pub ends_at: usize,
    /// How it is stored.
    pub outcome: Outcome,
}

impl Job {
    /// What `wanted` comes to.
    pub fn of(wanted: &Wanted) -> Self {
        let id = MessageId::new();
        let plan = |place: usize| if wanted.is_same { &wanted.plans[0] } else { &wanted.plans[place] };
        let delivery = |place: usize| u32::try_from(place).expect("few") + 1;
        let runs: Vec<_> = (0..wanted.plans.len()).map(|place| runs::run(id, delivery(place), plan(place))).collect();
        let mut sent = send(&runs, wanted);
        let newest = runs.len() - 1;
        let starts = |place: usize| delivery(place).saturating_sub(wanted.not_counted).max(1);
        let (ends_at, last, outcome) = match wanted.finish {
            Finish::Answer(by) => {
                let by = by.min(newest);
                let outcome = runs[by].answer(starts(by));
                (sent.len(), told(runs[by].last, &outcome, wanted.is_large), outcome)
            }
            Finish::Failed => {
                let outcome = without_answer(MessageStatus::Failed, starts(newest));
                (sent.len(), told(runs[newest].last, &outcome, false), outcome)
            }
            Finish::Cancelled(percent) => {
                let (frame, outcome) = cancelled(id);
                (sent.len() * percent / 100, frame, outcome)
            }
        };
        sent.insert(ends_at, last);
        Self { id, runs, sent, ends_at, outcome }
    }

    /// What run `attempt` says, whole; for a run of the stored answer, that.
    pub fn text_of(&self, attempt: Attempt) -> &str {
        match attempt.delivery.checked_sub(1).filter(|_| attempt.seq > 0) {
            None => self.outcome.content.as_deref().unwrap_or_default(),
            Some(place) => self.runs[usize::try_from(place).expect("few")].text_of(attempt),
        }
    }

    /// What the newest run has said among the first `sent` frames.
    pub fn newest_text(&self, sent: usize) -> String {
        let is_end = |frame: &&Frame| matches!(frame.body, FrameBody::Terminal { .. });
        let said = || self.sent[..sent].iter().filter(|frame| !is_end(frame));
        let Some(newest) = said().map(|frame| frame.attempt).max() else { return String::new() };
        let reach = said().filter(|frame| frame.attempt == newest).filter_map(|frame| match &frame.body {
            FrameBody::Delta { at, text } => Some(at + text.len()),
            _ => None,
        });
        self.text_of(newest)[..reach.max().unwrap_or_default()].to_owned()
    }
}

/// The frames of all runs: in the order of each, while a run that was cut off may go on beside the next ones.
fn send(runs: &[Run], wanted: &Wanted) -> Vec<Frame> {
    let (mut sent, mut left, mut turns) = (Vec::new(), Vec::<Frame>::new(), wanted.turns.iter().cycle());
    for (place, run) in runs.iter().enumerate() {
        let (percent, is_dead) = wanted.cuts[place % wanted.cuts.len()];
        let frames: Vec<_> = run.frames.iter().map(|(_, frame)| frame.clone()).collect();
        let is_newest = place + 1 == runs.len();
        let (now, later) = frames.split_at(if is_newest { frames.len() } else { frames.len() * percent / 100 });
        for frame in now {
            while !left.is_empty() && turns.next() == Some(&true) {
                sent.push(left.remove(0));
            }
            sent.push(frame.clone());
        }
        left.extend(later.iter().filter(|_| !is_dead).cloned());
    }
    sent.extend(left);
    sent
}
