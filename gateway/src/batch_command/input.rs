//! The prompts: what the user has, as a body that the server takes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use common::domain::ids::AgentId;

use super::{
    args::SubmitArgs,
    body::Body,
    faults::{InputError, Numbering},
    lines, rows,
    spool::Spooled,
};
use crate::batches::rules::MOST_BYTES;

/// Prompts that have not been read yet.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    agent: Option<AgentId>,
    numbering: Numbering,
}

impl Input {
    /// What the command line names.
    pub fn of(args: &SubmitArgs) -> Self {
        let named_csv = args.input.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let numbering = if args.csv || named_csv { Numbering::Rows } else { Numbering::Lines };
        Self { path: args.input.clone(), agent: args.agent, numbering }
    }

    /// Whether it is standard input.
    pub fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// How the user calls it.
    pub fn name(&self) -> String {
        if self.is_stdin() { "standard input".to_owned() } else { self.path.display().to_string() }
    }

    /// How it counts.
    pub fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Reads it to its end, and writes the body to `path`: always the same one for the same prompts.
    ///
    /// # Errors
    /// When it cannot be read or written, or when it makes no sense here already. The server judges the rest.
    pub fn spool(&self, path: &Path) -> Result<Spooled, InputError> {
        let reader = self.open().map_err(|cause| InputError::Unreadable { name: self.name(), cause })?;
        let mut body = Body::create(self.name(), self.numbering, path)?;
        match self.numbering {
            Numbering::Lines => lines::copy(reader, self.agent, &mut body)?,
            Numbering::Rows => rows::convert(reader, self.agent, &mut body)?,
        }
        body.finish()
    }

    fn open(&self) -> io::Result<Box<dyn BufRead>> {
        // What is longer is refused; without a limit something without lines would fill the memory first.
        let limit = MOST_BYTES + 1;
        Ok(if self.is_stdin() {
            Box::new(io::stdin().lock().take(limit))
        } else {
            Box::new(BufReader::with_capacity(1 << 16, File::open(&self.path)?).take(limit))
        })
    }
}
