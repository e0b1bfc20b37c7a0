//! Why a `gateway batch` did not do what it was asked, and the exit code that says so.

use std::{io, path::PathBuf, process::ExitCode};

use super::{client_error::ClientError, faults::InputError};

/// The end of a command that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// It does not say what it needs to.
    #[error("{0}")]
    Usage(String),
    /// The input, or what is beside the results, does not allow it.
    #[error("{0}")]
    Refused(String),
    /// The prompts cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The server refused it, or could not be reached.
    #[error(transparent)]
    Server(#[from] ClientError),
    /// A file could not be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        cause: io::Error,
    },
    /// Somebody asked the process to end; the exit code that tells of it.
    #[error("interrupted")]
    Interrupted(u8),
    /// The result could not be printed.
    #[error("could not write the result")]
    Output(#[from] io::Error),
}

impl BatchError {
    /// Turns what the system says of a file into an error that names it.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::File { what, path, cause }
    }

    /// 1 failed, 2 wrong usage, 3 not found, 4 refused, 128 and the signal.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Refused(_) | Self::Input(_) => 4,
            Self::Server(ClientError::Refused(refusal)) if refusal.status == 404 => 3,
            Self::Server(ClientError::Refused(_)) => 4,
            Self::Interrupted(code) => *code,
            Self::Server(_) | Self::File { .. } | Self::Output(_) => 1,
        })
    }
}
