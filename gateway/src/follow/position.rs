//! How far a reader of a message has come: the ids of its stream's events.

use std::fmt;

use common::domain::{ids::MessageId, reply::Attempt};

const FNV_32_BASIS: u32 = 0x811c_9dc5;
const FNV_32_PRIME: u32 = 0x0100_0193;

/// A running mark (FNV-1a) of the text that a reader was sent: tells whether another text begins the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextMark(u32);

impl Default for TextMark {
    fn default() -> Self {
        Self(FNV_32_BASIS)
    }
}

impl fmt::Display for TextMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl TextMark {
    /// The mark of the text so far and `more`.
    #[must_use]
    pub fn and(self, more: &[u8]) -> Self {
        Self(more.iter().fold(self.0, |mark, byte| (mark ^ u32::from(*byte)).wrapping_mul(FNV_32_PRIME)))
    }
}

/// How far a reader has come. Every gateway can go on from it, also after the end, when only the stored answer is left.
///
/// Written as `<attempt>.<n>.<at>`. The attempt names the run and ends with a seal, so that a position of another
/// message or one that was made up is told from one of ours without looking anything up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The run whose text was sent; for what was made from the stored answer a run of the sequence 0.
    pub attempt: Attempt,
    /// The last frame that was sent, or [`Position::END`].
    pub n: u32,
    /// How many bytes of that run's text were sent.
    pub at: usize,
    /// The mark of those bytes.
    pub mark: TextMark,
}

/// A text that is no position in this message's stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of an event of this message's stream")]
pub struct NoPosition;

impl Position {
    /// The `n` of the last event: there is nothing more to come.
    pub const END: u32 = u32::MAX;

    /// Whether the reader has seen the end.
    pub fn is_end(self) -> bool {
        self.n == Self::END
    }

    /// The text of this position in the stream of `message`.
    pub fn show(self, message: MessageId) -> String {
        let Self { attempt: Attempt { seq, delivery, restart }, n, at, mark } = self;
        format!("{seq}-{delivery}-{restart}-{mark}{}.{n}.{at}", self.check(message))
    }

    /// Reads back what [`Position::show`] wrote for the same message.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str, message: MessageId) -> Result<Self, NoPosition> {
        let position = Self::read(text).ok_or(NoPosition)?;
        // Also refuses every other way of writing the same numbers.
        if position.show(message) == text { Ok(position) } else { Err(NoPosition) }
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (attempt, n, at) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut parts = attempt.split('-');
        let attempt = Attempt {
            seq: parts.next()?.parse().ok()?,
            delivery: parts.next()?.parse().ok()?,
            restart: parts.next()?.parse().ok()?,
        };
        let mark = u32::from_str_radix(parts.next()?.get(..8)?, 16).ok()?;
        Some(Self { attempt, n, at, mark: TextMark(mark) })
    }

    fn check(self, message: MessageId) -> TextMark {
        let Self { attempt, n, at, mark } = self;
        TextMark::default()
            .and(message.0.as_bytes())
            .and(&attempt.seq.to_le_bytes())
            .and(&attempt.delivery.to_le_bytes())
            .and(&attempt.restart.to_le_bytes())
            .and(&n.to_le_bytes())
            .and(&(at as u64).to_le_bytes())
            .and(&mark.0.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        let attempt = Attempt { seq: 17, delivery: 2, restart: 1 };
        Position { attempt, n: 5, at: 120, mark: TextMark::default().and(b"so far") }
    }

    #[test]
    fn a_position_survives_its_text() {
        let message = MessageId::new();
        for position in [position(), Position { n: Position::END, at: usize::MAX, ..position() }] {
            assert_eq!(Position::parse(&position.show(message), message), Ok(position));
        }
        assert!(position().show(message).starts_with("17-2-1-") && position().show(message).ends_with(".5.120"));
    }

    #[test]
    fn another_messages_position_is_none() {
        assert_eq!(Position::parse(&position().show(MessageId::new()), MessageId::new()), Err(NoPosition));
    }

    #[test]
    fn a_changed_position_is_none() {
        let message = MessageId::new();
        let good = position().show(message);
        for (from, to) in [("17-", "18-"), ("-2-", "-3-"), ("-1-", "-0-"), (".5.", ".6."), (".120", ".99999")] {
            assert_eq!(Position::parse(&good.replacen(from, to, 1), message), Err(NoPosition), "{from}");
        }
    }

    #[test]
    fn garbage_is_no_position() {
        let message = MessageId::new();
        let good = position().show(message);
        let padded = good.replacen("17-", "+17-", 1);
        let more = format!("{good}.0");
        let upper = good.to_uppercase();
        let texts = ["", ".", "..", "1.2.3", "17-2-1.5.120", "17-2-1-é.5.120", "-1.-1.-1", "\0", "0x1-0-0-0.1.1"];
        for text in texts.into_iter().chain([padded.as_str(), more.as_str()]) {
            assert_eq!(Position::parse(text, message), Err(NoPosition), "{text}");
        }
        assert_eq!(Position::parse(&upper, message).is_ok(), upper == good);
    }

    #[test]
    fn marks_grow_with_the_text() {
        let whole = TextMark::default().and("Grüße".as_bytes());
        let split = TextMark::default().and(&"Grüße".as_bytes()[..3]).and(&"Grüße".as_bytes()[3..]);
        assert_eq!(whole, split);
        assert_ne!(whole, TextMark::default().and("Grüsse".as_bytes()));
    }
}
