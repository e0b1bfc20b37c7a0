//! One reader's way through a message: what to tell it next, so that its text is the stored answer, byte for byte.

use std::sync::Arc;

use common::domain::{
    message::MessageStatus,
    reply::{Attempt, Outcome},
};

use super::{
    log::Log,
    position::{Position, TextMark},
};

/// The most bytes of text in one step.
const STEP_LIMIT: usize = 16 * 1024;

/// What a reader is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The message is accepted.
    Queued,
    /// A worker has begun.
    Started {
        /// Where the reader is now.
        position: Position,
    },
    /// More text.
    Delta {
        /// Where the reader is with it.
        position: Position,
        /// The text.
        text: String,
    },
    /// What was told so far no longer counts: the text starts again.
    Restarted {
        /// Where the reader is now.
        position: Position,
    },
    /// The end. Nothing comes after it.
    End {
        /// Where the reader is with it.
        position: Position,
        /// How the message ended.
        outcome: Arc<Outcome>,
    },
}

/// Where one reader is, and what it was told.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    is_told_queued: bool,
    is_told_end: bool,
    /// Whether what was told is known to be the beginning of the stored answer.
    is_checked: bool,
    /// The run that it is told of; absent until it is told that one began.
    attempt: Option<Attempt>,
    n: u32,
    at: usize,
    mark: TextMark,
}

impl Cursor {
    /// A reader that was told nothing, or everything up to `after`.
    pub fn new(after: Option<Position>) -> Self {
        let Some(Position { attempt, n, at, mark }) = after else { return Self::default() };
        Self { is_told_queued: true, attempt: Some(attempt), n, at, mark, ..Self::default() }
    }

    /// The next thing to tell; `None` when `log` has nothing more, for now or for ever.
    pub fn next(&mut self, log: &Log) -> Option<Step> {
        if self.is_told_end {
            return None;
        }
        if !self.is_told_queued {
            self.is_told_queued = true;
            return Some(Step::Queued);
        }
        match log.end() {
            Some(outcome) => Some(self.towards_end(log, outcome)),
            None => self.live(log),
        }
    }

    /// Whether it was told the end.
    pub fn is_over(&self) -> bool {
        self.is_told_end
    }

    fn live(&mut self, log: &Log) -> Option<Step> {
        let newest = log.attempt()?;
        match self.attempt {
            None => return Some(self.start(newest)),
            // Another gateway has told it of a run that has not come here yet.
            Some(told) if told > newest => return None,
            Some(told) if told < newest && self.at > 0 => return Some(self.restart(newest)),
            Some(_) => self.attempt = Some(newest),
        }
        let piece = log.piece_after(self.at)?;
        let text = log.text(self.at, piece.end)?;
        Some(self.say(&text[..text.floor_char_boundary(STEP_LIMIT)], piece.n))
    }

    /// The whole answer is known: goes on with it if what was told is its beginning, else starts again.
    fn towards_end(&mut self, log: &Log, outcome: &Arc<Outcome>) -> Step {
        // A run of the stored answer: its own is not stored, and the end of the live one may have been missed.
        let stored = Attempt { seq: 0, delivery: outcome.attempts, restart: 0 };
        let Some(told) = self.attempt else {
            if outcome.started_at.is_some() || log.attempt().is_some() {
                return self.start(log.attempt().unwrap_or(stored));
            }
            return self.end(stored, outcome);
        };
        let content = match (outcome.status, &outcome.content) {
            (MessageStatus::Completed, Some(content)) => content.as_str(),
            _ => return self.end(told, outcome),
        };
        if !self.is_checked {
            self.is_checked = true;
            if self.at > 0 && !self.goes_on_in(content, told, outcome) {
                return self.restart(stored);
            }
        }
        match &content[self.at..] {
            "" => self.end(told, outcome),
            rest => self.say(&rest[..rest.floor_char_boundary(STEP_LIMIT)], self.n.saturating_add(1)),
        }
    }

    /// Where another run ended the message, it starts again even if the texts agree: the reader is told that its
    /// worker died.
    fn goes_on_in(&self, content: &str, told: Attempt, outcome: &Outcome) -> bool {
        let is_same_run = told.seq == 0 || outcome.attempts <= told.delivery;
        let is_beginning =
            content.is_char_boundary(self.at) && TextMark::default().and(&content.as_bytes()[..self.at]) == self.mark;
        is_same_run && is_beginning
    }

    fn start(&mut self, attempt: Attempt) -> Step {
        self.begin(attempt);
        Step::Started { position: self.position(attempt) }
    }

    fn restart(&mut self, attempt: Attempt) -> Step {
        self.begin(attempt);
        Step::Restarted { position: self.position(attempt) }
    }

    fn begin(&mut self, attempt: Attempt) {
        (self.attempt, self.n, self.at, self.mark) = (Some(attempt), 0, 0, TextMark::default());
    }

    fn say(&mut self, text: &str, n: u32) -> Step {
        self.n = n.min(Position::END - 1);
        self.at += text.len();
        self.mark = self.mark.and(text.as_bytes());
        Step::Delta { position: self.position(self.attempt.unwrap_or_default()), text: text.to_owned() }
    }

    fn end(&mut self, attempt: Attempt, outcome: &Arc<Outcome>) -> Step {
        self.is_told_end = true;
        let position = Position { n: Position::END, ..self.position(attempt) };
        Step::End { position, outcome: outcome.clone() }
    }

    fn position(&self, attempt: Attempt) -> Position {
        Position { attempt, n: self.n, at: self.at, mark: self.mark }
    }
}

#[cfg(test)]
mod tests {
    use common::domain::{
        ids::MessageId,
        message::Usage,
        reply::{Frame, FrameBody},
        time::Millis,
    };

    use super::*;
    use crate::follow::log::Change;

    const TEXT: &str = "Grüße, 世界! 🦀 — und noch ein paar Wörter, damit es etwas zu schneiden gibt.";

    /// Numbers that are the same in every run of a test.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }
    }

    /// A reader as a client would write it.
    #[derive(Default)]
    struct Client {
        text: String,
        last_id: Option<String>,
        restarts: usize,
        end: Option<Arc<Outcome>>,
    }

    impl Client {
        fn hear(&mut self, message: MessageId, step: Step) {
            let position = match step {
                Step::Queued => return,
                Step::Started { position } => position,
                Step::Delta { position, text } => {
                    self.text.push_str(&text);
                    assert_eq!(position.at, self.text.len());
                    position
                }
                Step::Restarted { position } => {
                    self.restarts += 1;
                    self.text.clear();
                    position
                }
                Step::End { position, outcome } => {
                    self.end = Some(outcome);
                    position
                }
            };
            self.last_id = Some(position.show(message));
        }

        /// Reads all that is there.
        fn read(&mut self, message: MessageId, cursor: &mut Cursor, log: &Log) {
            while let Some(step) = cursor.next(log) {
                self.hear(message, step);
            }
        }

        /// Comes back after a cut.
        fn come_back(&self, message: MessageId) -> Cursor {
            let after = self.last_id.as_ref().map(|id| Position::parse(id, message).expect("our own id"));
            Cursor::new(after)
        }
    }

    fn completed(content: &str, attempts: u32) -> Outcome {
        Outcome {
            status: MessageStatus::Completed,
            content: Some(content.to_owned()),
            model: None,
            usage: Usage::default(),
            credits_charged: 0,
            failure: None,
            attempts,
            started_at: Some(Millis(1)),
            completed_at: Millis(2),
        }
    }

    /// The frames of one run that says `text`, cut anywhere.
    fn frames(id: MessageId, attempt: Attempt, text: &str, dice: &mut Dice) -> Vec<Frame> {
        let mut frames = vec![Frame { id, attempt, n: 0, body: FrameBody::Started {} }];
        let mut at = 0;
        while at < text.len() {
            let end = text.ceil_char_boundary(at + 1 + dice.below(9));
            let text = text[at..end].to_owned();
            frames.push(Frame { id, attempt, n: frames.len() as u32, body: FrameBody::Delta { at, text } });
            at = end;
        }
        frames
    }

    fn delta(id: MessageId, delivery: u32, n: u32, at: usize, text: &str) -> Frame {
        let attempt = Attempt { seq: 7, delivery, restart: 0 };
        Frame { id, attempt, n, body: FrameBody::Delta { at, text: text.to_owned() } }
    }

    #[test]
    fn in_whatever_order_frames_come_the_text_is_the_stored_answer() {
        for seed in 0..500 {
            let (mut dice, id) = (Dice(seed), MessageId::new());
            let attempt = Attempt { seq: 7, delivery: 1, restart: 0 };
            let frames = frames(id, attempt, TEXT, &mut dice);
            let (mut log, mut cursor, mut client) = (Log::default(), Cursor::default(), Client::default());
            // Twice as many as there are, in any order: some never, some often.
            for _ in 0..frames.len() * 2 {
                log.apply(frames[dice.below(frames.len())].clone());
                if dice.below(3) == 0 {
                    client.read(id, &mut cursor, &log);
                    assert!(TEXT.starts_with(&client.text), "{seed}: {}", client.text);
                }
            }
            log.finish(completed(TEXT, 1));
            client.read(id, &mut cursor, &log);
            assert_eq!((client.text.as_str(), client.restarts), (TEXT, 0), "{seed}");
            assert!(client.end.is_some() && cursor.is_over(), "{seed}");
        }
    }

    #[test]
    fn cut_anywhere_and_come_back_to_any_gateway_the_text_is_the_stored_answer() {
        for seed in 0..500 {
            let (mut dice, id) = (Dice(seed), MessageId::new());
            let lost = &TEXT[..TEXT.ceil_char_boundary(dice.below(TEXT.len()))];
            let runs = [
                frames(id, Attempt { seq: 7, delivery: 1, restart: 0 }, lost, &mut dice),
                frames(id, Attempt { seq: 7, delivery: 2, restart: 0 }, TEXT, &mut dice),
            ];
            let sent: Vec<Frame> = runs.concat();
            let mut client = Client::default();
            for (index, _) in sent.iter().enumerate() {
                // Another gateway, which has read back some of what was sent, and not the newest.
                let mut log = Log::default();
                let from = dice.below(index + 1);
                for frame in &sent[from..=index] {
                    log.apply(frame.clone());
                }
                let mut cursor = client.come_back(id);
                for _ in 0..dice.below(4) {
                    let Some(step) = cursor.next(&log) else { break };
                    client.hear(id, step);
                }
            }
            client.read(id, &mut client.come_back(id), &Log::ended(completed(TEXT, 2)));
            assert_eq!(client.text, TEXT, "{seed}");
            assert!(client.end.is_some() && client.restarts <= 1, "{seed}: {}", client.restarts);
        }
    }

    #[test]
    fn a_worker_that_died_shows_as_one_restart() {
        let id = MessageId::new();
        let (mut log, mut cursor, mut client) = (Log::default(), Cursor::default(), Client::default());
        log.apply(delta(id, 1, 0, 0, "half"));
        client.read(id, &mut cursor, &log);
        assert_eq!(log.apply(delta(id, 2, 0, 0, "a who")), Change::More);
        client.read(id, &mut cursor, &log);
        assert_eq!(log.apply(delta(id, 1, 1, 4, " late")), Change::None);
        log.finish(completed("a whole one", 2));
        client.read(id, &mut cursor, &log);
        assert_eq!((client.text.as_str(), client.restarts), ("a whole one", 1));
    }

    #[test]
    fn an_end_of_another_run_restarts_even_where_the_texts_agree() {
        let id = MessageId::new();
        let (mut log, mut cursor, mut client) = (Log::default(), Cursor::default(), Client::default());
        log.apply(delta(id, 1, 0, 0, "the same "));
        client.read(id, &mut cursor, &log);
        let stored = Log::ended(completed("the same answer", 2));
        client.read(id, &mut client.come_back(id), &stored);
        assert_eq!((client.text.as_str(), client.restarts), ("the same answer", 1));
    }

    #[test]
    fn a_gap_is_told_and_filled_by_reading_back() {
        let id = MessageId::new();
        let mut log = Log::default();
        assert_eq!(log.apply(delta(id, 1, 0, 0, "ab")), Change::More);
        assert_eq!(log.apply(delta(id, 1, 2, 4, "ef")), Change::Gap);
        assert_eq!(log.apply(delta(id, 1, 1, 2, "cd")), Change::More);
        assert_eq!(log.apply(delta(id, 1, 2, 4, "ef")), Change::More);
        assert_eq!(log.apply(delta(id, 1, 2, 4, "ef")), Change::None);
        assert_eq!(log.text(0, 6), Some("abcdef"));
    }

    #[test]
    fn where_the_beginning_is_gone_who_has_seen_it_goes_on_and_the_others_get_it_with_the_end() {
        let id = MessageId::new();
        let mut whole = Log::default();
        whole.apply(delta(id, 1, 0, 0, "ab"));
        whole.apply(delta(id, 1, 1, 2, "cd"));
        let (mut seen, mut fresh) = (Client::default(), Client::default());
        seen.read(id, &mut Cursor::default(), &whole);

        let mut log = Log::default();
        assert_eq!(log.apply(delta(id, 1, 1, 2, "cd")), Change::Gap);
        log.give_up_gap();
        for (n, at, text, change) in [
            (1, 2, "cd", Change::More),
            (2, 4, "ef", Change::More),
            (4, 8, "ij", Change::Gap),
            (0, 0, "ab", Change::None),
        ] {
            assert_eq!(log.apply(delta(id, 1, n, at, text)), change, "{text}");
        }
        let (mut back, mut first) = (seen.come_back(id), Cursor::default());
        seen.read(id, &mut back, &log);
        fresh.read(id, &mut first, &log);
        assert_eq!((seen.text.as_str(), fresh.text.as_str()), ("abcdef", ""));
        log.finish(completed("abcdefghij", 1));
        for (client, cursor) in [(&mut seen, &mut back), (&mut fresh, &mut first)] {
            client.read(id, cursor, &log);
            assert_eq!((client.text.as_str(), client.restarts), ("abcdefghij", 0));
        }
    }

    #[test]
    fn another_run_is_read_back_anew() {
        let id = MessageId::new();
        let mut log = Log::default();
        log.give_up_gap();
        assert_eq!(log.apply(delta(id, 1, 1, 2, "cd")), Change::Gap);
        log.give_up_gap();
        assert_eq!(log.apply(delta(id, 1, 1, 2, "cd")), Change::More);
        assert_eq!(log.apply(delta(id, 2, 1, 2, "cd")), Change::Gap);
    }

    #[test]
    fn who_has_seen_the_end_is_told_nothing_twice() {
        let id = MessageId::new();
        let log = Log::ended(completed("hello", 1));
        let mut client = Client::default();
        client.read(id, &mut Cursor::default(), &log);
        let last = Position::parse(client.last_id.as_ref().expect("an id"), id).expect("our own");
        assert!(last.is_end());
    }

    #[test]
    fn a_message_that_never_began_is_not_told_to_have_started() {
        let outcome = Outcome { status: MessageStatus::Expired, content: None, started_at: None, ..completed("", 0) };
        let log = Log::ended(outcome);
        let mut cursor = Cursor::default();
        assert_eq!(cursor.next(&log), Some(Step::Queued));
        assert!(matches!(cursor.next(&log), Some(Step::End { .. })));
        assert_eq!(cursor.next(&log), None);
    }

    #[test]
    fn a_long_answer_comes_in_steps() {
        let id = MessageId::new();
        let long = TEXT.repeat(1_000);
        let mut log = Log::default();
        log.apply(delta(id, 1, 0, 0, &long[..long.len() / 2]));
        let (mut cursor, mut client) = (Cursor::default(), Client::default());
        client.read(id, &mut cursor, &log);
        assert_eq!(client.text.len(), long.len() / 2);
        log.finish(completed(&long, 1));
        while let Some(step) = cursor.next(&log) {
            assert!(!matches!(&step, Step::Delta { text, .. } if text.len() > STEP_LIMIT));
            client.hear(id, step);
        }
        assert!(client.text == long);
    }
}
