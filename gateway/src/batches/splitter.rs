//! A body that comes in pieces, cut into its lines.

use super::rules::LINE_BYTES;

/// What some tools write at the beginning of a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// How much of a line is kept: more is too long, whatever its end and its beginning.
const KEPT: usize = LINE_BYTES + BYTE_ORDER_MARK.len() + 2;

/// One line of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which one, from 1; blank ones count.
    pub number: u32,
    /// What it says, without its end; `None` when it is too long.
    pub text: Option<&'a [u8]>,
}

/// Cuts a body into lines. Holds one line at most, and of a line that is too long only the beginning.
#[derive(Debug, Default)]
pub struct Splitter {
    /// How many lines have ended.
    ended: u32,
    /// The beginning of the next one.
    begun: Vec<u8>,
}

impl Splitter {
    /// Gives the lines that end within `bytes` to `take`. Blank ones are left out.
    ///
    /// # Errors
    /// The first error of `take`.
    pub fn split<E>(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            self.ended = self.ended.saturating_add(1);
            if self.begun.is_empty() {
                give(self.ended, line, &mut take)?;
            } else {
                self.keep(line);
                let whole = std::mem::take(&mut self.begun);
                give(self.ended, &whole, &mut take)?;
            }
            bytes = rest;
        }
        self.keep(bytes);
        Ok(())
    }

    /// Gives the last line, if it has no end of its own.
    ///
    /// # Errors
    /// That of `take`.
    pub fn finish<E>(self, mut take: impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
        give(self.ended.saturating_add(1), &self.begun, &mut take)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn give<E>(number: u32, line: &[u8], take: &mut impl FnMut(Line<'_>) -> Result<(), E>) -> Result<(), E> {
    let line = if number == 1 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > LINE_BYTES {
        return take(Line { number, text: None });
    }
    if line.trim_ascii().is_empty() { Ok(()) } else { take(Line { number, text: Some(line) }) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The lines of `body` when it comes in pieces of `size` bytes.
    fn lines(body: &[u8], size: usize) -> Vec<(u32, Option<String>)> {
        let mut found = Vec::new();
        let mut take = |line: Line<'_>| {
            found.push((line.number, line.text.map(|text| String::from_utf8_lossy(text).into_owned())));
            Ok::<_, Infallible>(())
        };
        let mut splitter = Splitter::default();
        for piece in body.chunks(size) {
            let Ok(()) = splitter.split(piece, &mut take);
        }
        let Ok(()) = splitter.finish(&mut take);
        found
    }

    fn said(lines: &[(u32, &str)]) -> Vec<(u32, Option<String>)> {
        lines.iter().map(|(number, text)| (*number, Some((*text).to_owned()))).collect()
    }

    #[test]
    fn lines_end_in_every_way_and_are_the_same_wherever_the_body_is_cut() {
        let body = "\u{feff}one\r\n\n \t\r\ntwo\r\nth\rree\n\u{feff}four".as_bytes();
        for size in 1..=body.len() {
            assert_eq!(
                lines(body, size),
                said(&[(1, "one"), (4, "two"), (5, "th\rree"), (6, "\u{feff}four")]),
                "{size}"
            );
        }
        for empty in ["", "\n", "\r\n\r\n", "\u{feff}", "\u{feff}\r\n ", " "] {
            assert_eq!(lines(empty.as_bytes(), 1), [], "{empty:?}");
        }
    }

    #[test]
    fn a_line_has_65536_bytes_at_most() {
        let longest = "x".repeat(LINE_BYTES);
        for (body, first) in [
            (format!("{longest}\r\nnext"), Some(&longest)),
            (format!("\u{feff}{longest}\nnext"), Some(&longest)),
            (format!("\u{feff}{longest}\r\nnext"), Some(&longest)),
            (format!("{longest}x\r\nnext"), None),
            (format!("\u{feff}{longest}x\nnext"), None),
            (format!("{}\nnext", longest.repeat(5)), None),
        ] {
            for size in [7, 4_096, LINE_BYTES, LINE_BYTES + 1, body.len()] {
                let found = lines(body.as_bytes(), size);
                assert_eq!(found, [(1, first.cloned()), (2, Some("next".to_owned()))], "{size}");
            }
        }
    }

    #[test]
    fn little_is_kept_of_a_line_without_an_end() {
        let mut splitter = Splitter::default();
        for _ in 0..1_000 {
            let Ok(()) = splitter.split(&[b'x'; 10_000], |_| Ok::<_, Infallible>(()));
        }
        assert_eq!(splitter.begun.len(), KEPT);
    }
}
