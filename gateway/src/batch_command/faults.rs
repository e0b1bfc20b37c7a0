//! Why prompts cannot be sent, in the words of the user's own file.

use std::{fmt, io, path::PathBuf};

use super::{spool::TooMuch, wire::InvalidLine};

/// As many faults are shown as the server names.
pub const MOST_FAULTS: usize = 100;

/// Why the prompts cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file cannot be read.
    #[error("could not read {name}")]
    Unreadable {
        /// How the user calls it.
        name: String,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The body cannot be written down.
    #[error("could not write {}", path.display())]
    Spool {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// There is no prompt in it.
    #[error("{0} holds no prompts")]
    Empty(String),
    /// There is too much in it.
    #[error("{0} holds {1}")]
    TooMuch(String, TooMuch),
    /// Its header is not one.
    #[error("{0}: {1}")]
    Header(String, String),
    /// Lines or rows of it make no sense.
    #[error(transparent)]
    Faults(Faults),
}

/// How the user's file counts what is a line of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The same way.
    Lines,
    /// As a spreadsheet: the header is row 1.
    Rows,
}

impl Numbering {
    /// What the user calls a line of the body.
    pub fn name(self, line: u64) -> String {
        match self {
            Self::Lines => format!("line {line}"),
            Self::Rows => format!("row {}", line + 1),
        }
    }
}

/// Lines or rows that make no sense.
#[derive(Debug, thiserror::Error)]
pub struct Faults {
    /// How the user calls the file.
    pub name: String,
    /// How it counts.
    pub numbering: Numbering,
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<InvalidLine>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing is run; {} has faults:", self.name)?;
        for fault in &self.first {
            write!(f, "\n  {}: {}", self.numbering.name(fault.line), fault.error)?;
        }
        let more = self.count.saturating_sub(self.first.len() as u64);
        if more > 0 { write!(f, "\n  and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_called_as_the_user_counts() {
        let first = vec![InvalidLine { line: 3, error: "is wrong".to_owned() }];
        let mut faults = Faults { name: "a.csv".to_owned(), numbering: Numbering::Rows, count: 1, first };
        assert_eq!(faults.to_string(), "nothing is run; a.csv has faults:\n  row 4: is wrong");
        faults.numbering = Numbering::Lines;
        faults.count = 8;
        assert!(faults.to_string().ends_with("\n  line 3: is wrong\n  and 7 more"), "{faults}");
    }
}
