//! Readers of a message's events: cut off anywhere, they come back to any gateway and go on.

use common::domain::reply::{Attempt, Frame, FrameBody};
use gateway::follow::{
    cursor::{Cursor, Step},
    log::{Change, Log},
    position::Position,
};
use sim::{check, proptest::prelude::*};

use super::way::{Job, Wanted, wanted};

/// Gateways, and readers.
const GATEWAYS: usize = 2;
const READERS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// So many frames are sent: which of a gateway's come, and which twice.
    Send { count: usize, lost: u8, twice: u8 },
    /// One that was sent comes to a gateway once more, or only now.
    Late { gateway: usize, frame: usize },
    /// A gateway reads back what is remembered.
    ReadBack { gateway: usize },
    /// What is remembered is gone.
    Forget { percent: usize },
    /// The connection of a gateway is back.
    Reconnect { gateway: usize },
    /// A gateway begins anew.
    Begin { gateway: usize },
    /// A gateway looks into the store.
    Look { gateway: usize },
    /// A reader takes steps.
    Read { reader: usize, steps: usize },
    /// A reader is cut off, and comes back to a gateway.
    ComeBack { reader: usize, gateway: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let (gateway, reader) = (0..GATEWAYS, 0..READERS);
    let lossy = prop_oneof![2 => Just(0_u8), 1 => any::<u8>()];
    prop_oneof![
        8 => (1_usize..6, lossy.clone(), lossy).prop_map(|(count, lost, twice)| Act::Send { count, lost, twice }),
        2 => (gateway.clone(), 0_usize..99).prop_map(|(gateway, frame)| Act::Late { gateway, frame }),
        3 => gateway.clone().prop_map(|gateway| Act::ReadBack { gateway }),
        1 => (0_usize..=100).prop_map(|percent| Act::Forget { percent }),
        1 => gateway.clone().prop_map(|gateway| Act::Reconnect { gateway }),
        1 => gateway.clone().prop_map(|gateway| Act::Begin { gateway }),
        1 => gateway.clone().prop_map(|gateway| Act::Look { gateway }),
        8 => (reader.clone(), 1_usize..8).prop_map(|(reader, steps)| Act::Read { reader, steps }),
        3 => (reader, gateway).prop_map(|(reader, gateway)| Act::ComeBack { reader, gateway }),
    ]
}

/// A reader as a client would write it, which believes nothing.
struct Reader {
    cursor: Cursor,
    /// Where it reads; none: from what is stored.
    gateway: Option<usize>,
    text: String,
    last_id: Option<String>,
    told: Option<Attempt>,
    is_told_queued: bool,
    ends: usize,
}

impl Reader {
    fn new(gateway: usize) -> Self {
        let (cursor, gateway) = (Cursor::default(), Some(gateway));
        Self { cursor, gateway, text: String::new(), last_id: None, told: None, is_told_queued: false, ends: 0 }
    }

    /// Takes the next step, if there is one.
    fn step(&mut self, job: &Job, log: &Log) -> bool {
        let Some(step) = self.cursor.next(log) else { return false };
        assert_eq!(self.ends, 0, "something comes after the end: {step:?}");
        assert!(self.is_told_queued || step == Step::Queued);
        match step {
            Step::Queued => {
                assert!(self.last_id.is_none(), "who comes back is not told again");
                self.is_told_queued = true;
            }
            Step::Started { position } => {
                assert!(self.told.is_none() && self.text.is_empty());
                self.at(job, log, position);
            }
            Step::Delta { position, text } => {
                assert!(self.told.is_some(), "text before the begin");
                assert!(!text.is_empty() && text.len() <= 16 * 1024);
                self.text.push_str(&text);
                self.at(job, log, position);
            }
            Step::Restarted { position } => {
                let is_newer = self.told < Some(position.attempt) || position.attempt.seq == 0;
                assert!(is_newer && !self.text.is_empty(), "a restart for nothing");
                self.text.clear();
                self.at(job, log, position);
            }
            Step::End { position, outcome } => {
                assert_eq!(*outcome, job.outcome);
                if let Some(content) = &outcome.content {
                    assert_eq!(&self.text, content, "not the stored answer");
                }
                self.ends += 1;
                self.last_id = Some(position.show(job.id));
                assert!(position.is_end() && self.cursor.is_over());
            }
        }
        true
    }

    /// Each position says how far the reader is, in the text of one run; once the end is known, in the stored answer,
    /// whichever run the reader was told of while that had said nothing.
    fn at(&mut self, job: &Job, log: &Log, position: Position) {
        assert_eq!((position.at, position.is_end()), (self.text.len(), false));
        let is_stored =
            log.end().and_then(|outcome| outcome.content.as_ref()).is_some_and(|all| all.starts_with(&self.text));
        let is_of_run = job.text_of(position.attempt).starts_with(&self.text);
        assert!(is_stored || is_of_run, "not the text of {:?}", position.attempt);
        let is_back = position.attempt.seq > 0 && self.told > Some(position.attempt);
        assert!(!is_back, "an older run is told");
        self.told = Some(position.attempt);
        self.last_id = Some(position.show(job.id));
    }

    /// Comes back with the last id that it saw.
    fn come_back(&mut self, job: &Job, gateway: Option<usize>) {
        let after = self.last_id.as_ref().map(|id| Position::parse(id, job.id).expect("our own id"));
        self.gateway = gateway;
        if after.is_some_and(Position::is_end) {
            return assert_eq!(self.ends, 1);
        }
        self.cursor = Cursor::new(after);
        // Without an id there is nothing to go on from: the client begins anew.
        if after.is_none() {
            *self = Self::new(0);
            self.gateway = gateway;
        }
    }
}

struct Site {
    job: Job,
    sent: usize,
    /// From which frame on they are remembered.
    remembered: usize,
    logs: [Log; GATEWAYS],
    /// What of each gateway's is read back to fill a gap.
    gaps: [bool; GATEWAYS],
    stored: Log,
}

impl Site {
    fn new(job: Job) -> Self {
        let stored = Log::ended(job.outcome.clone());
        Self { job, sent: 0, remembered: 0, logs: Default::default(), gaps: Default::default(), stored }
    }

    fn is_ended(&self) -> bool {
        self.sent > self.job.ends_at
    }

    fn hear(&mut self, gateway: usize, frame: Frame) {
        match self.logs[gateway].apply(frame.clone()) {
            Change::More => {}
            Change::None => {
                let is_to_be_read_back = self.remembered > 0 || self.gaps[gateway];
                assert!(is_to_be_read_back || !self.lacks(gateway, &frame), "a gap that nobody fills before {frame:?}");
            }
            Change::Gap => self.gaps[gateway] = true,
            // It is in the store by then.
            Change::EndWithoutContent => drop(self.logs[gateway].finish(self.job.outcome.clone())),
        }
    }

    /// Whether a gateway does not have the text of `frame`, which is of the run that it tells of.
    fn lacks(&self, gateway: usize, frame: &Frame) -> bool {
        let FrameBody::Delta { at, .. } = frame.body else { return false };
        let log = &self.logs[gateway];
        let mut fresh = Reader::new(gateway);
        while log.end().is_none() && fresh.step(&self.job, log) {}
        fresh.told == Some(frame.attempt) && fresh.text.len() < at
    }

    fn send(&mut self, count: usize, lost: u8, twice: u8) {
        for place in 0..count.min(self.job.sent.len() - self.sent) {
            let frame = self.job.sent[self.sent].clone();
            self.sent += 1;
            for gateway in 0..GATEWAYS {
                let bit = |mask: u8| mask >> ((place + gateway * 4) % 8) & 1 == 1;
                let times = if bit(lost) { 0 } else { 1 + usize::from(bit(twice)) };
                (0..times).for_each(|_| self.hear(gateway, frame.clone()));
            }
        }
    }

    fn read_back(&mut self, gateway: usize) {
        // As the hub does it: given up first, since what is read back is taken in after that.
        if std::mem::take(&mut self.gaps[gateway]) {
            self.logs[gateway].give_up_gap();
        }
        for place in self.remembered..self.sent {
            self.hear(gateway, self.job.sent[place].clone());
        }
        if self.remembered == 0 && !self.is_ended() {
            let mut fresh = Reader::new(gateway);
            while fresh.step(&self.job, &self.logs[gateway]) {}
            assert_eq!(fresh.text, self.job.newest_text(self.sent), "what was read back has no gap");
        }
    }

    fn act(&mut self, act: Act, readers: &mut [Reader; READERS]) {
        match act {
            Act::Send { count, lost, twice } => self.send(count, lost, twice),
            Act::Late { gateway, frame } if self.sent > 0 => {
                self.hear(gateway, self.job.sent[frame % self.sent].clone());
            }
            Act::Late { .. } => {}
            Act::ReadBack { gateway } => self.read_back(gateway),
            Act::Forget { percent } => self.remembered = self.remembered.max(self.sent * percent / 100),
            Act::Reconnect { gateway } => self.logs[gateway].hope(),
            Act::Begin { gateway } => {
                self.logs[gateway] = Log::default();
                let there = readers.iter_mut().filter(|reader| reader.gateway == Some(gateway));
                there.for_each(|reader| reader.come_back(&self.job, Some(gateway)));
            }
            Act::Look { gateway } if self.is_ended() => drop(self.logs[gateway].finish(self.job.outcome.clone())),
            Act::Look { .. } => {}
            Act::Read { reader, steps } => self.read(&mut readers[reader], steps),
            Act::ComeBack { reader, gateway } => {
                // Whoever comes after the end is given what is stored.
                readers[reader].come_back(&self.job, Some(gateway).filter(|_| !self.is_ended()));
            }
        }
    }

    fn read(&self, reader: &mut Reader, steps: usize) {
        let log = reader.gateway.map_or(&self.stored, |gateway| &self.logs[gateway]);
        for _ in 0..steps {
            if !reader.step(&self.job, log) {
                return;
            }
        }
    }
}

fn play(wanted: &Wanted, acts: Vec<Act>) {
    let mut site = Site::new(Job::of(wanted));
    let mut readers = [Reader::new(0), Reader::new(1), Reader::new(0)];
    for act in acts {
        site.act(act, &mut readers);
    }
    // At last each gateway finds the end, and each reader reads all that is there.
    for log in &mut site.logs {
        log.finish(site.job.outcome.clone());
    }
    for reader in &mut readers {
        site.read(reader, usize::MAX);
        assert_eq!(reader.ends, 1, "each has one end");
        assert!(reader.last_id.as_ref().is_some_and(|id| Position::parse(id, site.job.id).is_ok_and(Position::is_end)));
    }
}

#[test]
fn each_reader_has_the_text_of_one_run_and_the_stored_answer_at_the_end() {
    let case = (wanted(), prop::collection::vec(act(), 1..60));
    check(file!(), "frame ordering", 3_000, case, |(wanted, acts)| play(&wanted, acts));
}
