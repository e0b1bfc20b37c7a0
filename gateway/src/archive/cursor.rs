//! Where a page of a list ended, as a text that means nothing to callers.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::follow::position::TextMark;

/// The id of the last entry of a page: the next one begins after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor(pub Uuid);

/// A text that is no cursor of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NoCursor;

impl fmt::Display for PageCursor {
    /// The id and a check on it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = TextMark::default().and(self.0.as_bytes());
        write!(f, "{}{check}", self.0.simple())
    }
}

impl FromStr for PageCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let id = text.get(..32).and_then(|id| Uuid::try_parse(id).ok()).ok_or(NoCursor)?;
        let cursor = Self(id);
        if cursor.to_string() == text { Ok(cursor) } else { Err(NoCursor) }
    }
}

#[cfg(test)]
mod tests {
    use common::domain::ids::MessageId;

    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_nothing_else_is_one() {
        let cursor = PageCursor(MessageId::new().0);
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
        let garbled = text.replacen(|c: char| c.is_ascii_digit(), "f", 1);
        let id = cursor.0.to_string();
        let short = &text[..39];
        for wrong in ["", "abc", "é", id.as_str(), short, garbled.as_str(), &text.to_uppercase(), &format!("{text}0")]
        {
            assert_eq!(wrong.parse::<PageCursor>(), Err(NoCursor), "{wrong}");
        }
    }
}
