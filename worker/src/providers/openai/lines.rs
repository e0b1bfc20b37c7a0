//! Bytes to whole lines, ahead of the crate that parses events.
//!
//! Left to itself that crate (eventsource-stream 0.2.3) panics on a byte order mark, holds back what ends in a lone
//! CR, goes silent on a byte that is no UTF-8, scans an unfinished line anew with every piece, and keeps events of any
//! size. Given only whole lines that end in LF, without a mark and in bounds, it is right at every split.

const MARK: &[u8] = "\u{feff}".as_bytes();

/// An event that is larger than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {0} bytes")]
pub(super) struct TooLarge(usize);

/// Turns pieces of any size into whole lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// The line that has begun and not ended.
    open: Vec<u8>,
    /// Whether the last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Whether the first line is still to come.
    at_start: bool,
    /// Bytes since the last empty line.
    event_bytes: usize,
    most: usize,
}

impl Lines {
    /// Takes events of at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { open: Vec::new(), after_cr: false, at_start: true, event_bytes: 0, most }
    }

    /// The lines that `piece` completes, each ending in LF; empty when it completes none.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<String, TooLarge> {
        let mut whole = String::new();
        for part in piece.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')) {
            let (body, end) = match part.split_last() {
                Some((end @ (b'\r' | b'\n'), body)) => (body, Some(*end)),
                _ => (part, None),
            };
            let closes_crlf = std::mem::take(&mut self.after_cr) && end == Some(b'\n') && body.is_empty();
            if closes_crlf {
                continue;
            }
            self.event_bytes += body.len();
            if self.event_bytes > self.most {
                return Err(TooLarge(self.most));
            }
            self.open.extend_from_slice(body);
            self.after_cr = end == Some(b'\r');
            if end.is_some() {
                self.close(&mut whole);
            }
        }
        Ok(whole)
    }

    fn close(&mut self, whole: &mut String) {
        let mut line = self.open.as_slice();
        if std::mem::take(&mut self.at_start) {
            // However many there are: the crate panics on each that is left.
            while let Some(rest) = line.strip_prefix(MARK) {
                line = rest;
            }
        }
        if line.is_empty() {
            self.event_bytes = 0;
        }
        whole.push_str(&String::from_utf8_lossy(line));
        whole.push('\n');
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> String {
        let mut lines = Lines::new(1_000);
        pieces.iter().map(|piece| lines.push(piece).expect("small enough")).collect()
    }

    #[test]
    fn every_end_of_line_is_one_at_every_split() {
        for text in ["data: ä€𝄞\n\nb\n", "data: ä€𝄞\r\n\r\nb\r\n", "data: ä€𝄞\r\rb\r", "\u{feff}data: ä€𝄞\r\n\rb\n"]
        {
            let bytes = text.as_bytes();
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(lines(&pieces), "data: ä€𝄞\n\nb\n", "{text:?} at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn no_mark_is_left_in_front() {
        assert_eq!(
            lines(&["\u{feff}\u{feff}\u{feff}data: a\u{feff}\n\u{feff}".as_bytes(), b"\n"]),
            "data: a\u{feff}\n\u{feff}\n"
        );
    }

    #[test]
    fn a_line_is_held_back_until_it_ends() {
        assert_eq!(lines(&[b"data: a"]), "");
        assert_eq!(lines(&[b"a\nb"]), "a\n");
    }

    #[test]
    fn what_is_no_utf_8_does_not_stop_the_stream() {
        assert_eq!(lines(&[b"a\xffb\n", b"c\n"]), "a\u{fffd}b\nc\n");
    }

    #[test]
    fn events_have_a_largest_size() {
        let mut lines = Lines::new(10);
        for _ in 0..5 {
            assert_eq!(lines.push(b"12345678\n\n"), Ok("12345678\n\n".to_owned()));
        }
        assert_eq!(lines.push(b"123456\n"), Ok("123456\n".to_owned()));
        assert_eq!(lines.push(b"12345"), Err(TooLarge(10)));
    }
}
