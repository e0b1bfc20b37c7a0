//! A body while it is made of what the user has.

use std::{io, path::Path};

use super::{
    faults::{Faults, InputError, Numbering},
    spool::{Spool, Spooled},
    wire::InvalidLine,
};

/// The lines of a body, on their way to its file.
#[derive(Debug)]
pub struct Body<'a> {
    /// How the user calls what it is made of.
    name: String,
    numbering: Numbering,
    path: &'a Path,
    spool: Spool,
}

impl<'a> Body<'a> {
    /// An empty one at `path`, made of what the user calls `name` and counts so.
    pub fn create(name: String, numbering: Numbering, path: &'a Path) -> Result<Self, InputError> {
        let spool = Spool::create(path).map_err(|cause| no_space(path, cause))?;
        Ok(Self { name, numbering, path, spool })
    }

    /// Adds a line, which has its end or is the last one.
    pub fn push(&mut self, line: &[u8]) -> Result<(), InputError> {
        let pushed = self.spool.push(line).map_err(|cause| no_space(self.path, cause))?;
        pushed.map_err(|too_much| InputError::TooMuch(self.name.clone(), too_much))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When there is nothing in it, or when it cannot be written.
    pub fn finish(self) -> Result<Spooled, InputError> {
        let spooled = self.spool.finish().map_err(|cause| no_space(self.path, cause))?;
        if spooled.prompts == 0 { Err(InputError::Empty(self.name)) } else { Ok(spooled) }
    }

    /// What it is made of cannot be read.
    pub fn unreadable(&self, cause: io::Error) -> InputError {
        InputError::Unreadable { name: self.name.clone(), cause }
    }

    /// What it is made of has no usable header.
    pub fn bad_header(&self, what: String) -> InputError {
        InputError::Header(self.name.clone(), what)
    }

    /// These lines make no sense.
    pub fn bad_lines(&self, count: u64, first: Vec<InvalidLine>) -> InputError {
        InputError::Faults(Faults { name: self.name.clone(), numbering: self.numbering, count, first })
    }
}

fn no_space(path: &Path, cause: io::Error) -> InputError {
    InputError::Spool { path: path.to_owned(), cause }
}
