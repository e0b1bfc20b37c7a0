//! The body on disk, so that the very same bytes can be sent again.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use common::domain::fingerprint::BodyHash;

use crate::batches::rules::{MOST_BYTES, MOST_LINES};

/// A body that is more than the server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Too many prompts.
    #[error("more than {MOST_LINES} prompts: split it, and send each part with an -o of its own")]
    Lines,
    /// Too many bytes.
    #[error("more than {} MB: split it, and send each part with an -o of its own", MOST_BYTES / 1_000_000)]
    Bytes,
}

/// A body that is being written.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    hash: BodyHash,
    bytes: u64,
    prompts: u32,
}

/// A body that has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// How long it is.
    pub bytes: u64,
    /// How many lines of it are not blank.
    pub prompts: u32,
}

impl Spool {
    /// An empty one at `path`; what was there is gone.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), hash: BodyHash::default(), bytes: 0, prompts: 0 })
    }

    /// Adds `line`, which has its end or is the last one.
    ///
    /// # Errors
    /// When it cannot be written. `Ok(Err(_))` when it is too much for the server.
    pub fn push(&mut self, line: &[u8]) -> io::Result<Result<(), TooMuch>> {
        self.bytes += line.len() as u64;
        self.prompts += u32::from(!line.trim_ascii().is_empty());
        if self.bytes > MOST_BYTES {
            return Ok(Err(TooMuch::Bytes));
        }
        if self.prompts > MOST_LINES {
            return Ok(Err(TooMuch::Lines));
        }
        self.hash.update(line);
        self.file.write_all(line).map(Ok)
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<Spooled> {
        self.file.flush()?;
        let sha256 = self.hash.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Spooled { sha256, bytes: self.bytes, prompts: self.prompts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_counted_and_hashed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("body");
        let mut spool = Spool::create(&path).expect("a file");
        for line in ["a\n", "\r\n", " \n", "b"] {
            spool.push(line.as_bytes()).expect("space").expect("not too much");
        }
        let spooled = spool.finish().expect("space");
        assert_eq!((spooled.bytes, spooled.prompts), (7, 2));
        assert_eq!(spooled.sha256, "ea983cc777463196090a90685c5ffeff83154620257cf116a0c2070d980a1d3a");
        assert_eq!(std::fs::read(&path).expect("the file"), b"a\n\r\n \nb");
    }

    #[test]
    fn more_than_the_server_takes_is_not_taken_here_either() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(&folder.path().join("body")).expect("a file");
        for _ in 0..MOST_LINES {
            spool.push(b"{}\n").expect("space").expect("not too much");
        }
        assert_eq!(spool.push(b"\n").expect("space"), Ok(()));
        assert_eq!(spool.push(b"{}").expect("space"), Err(TooMuch::Lines));
        spool.bytes = MOST_BYTES;
        assert_eq!(spool.push(b"\n").expect("space"), Err(TooMuch::Bytes));
    }
}
