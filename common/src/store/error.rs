//! What can go wrong in the store, told apart by what the caller should do about it.

use std::path::PathBuf;

use sea_orm::{
    DbErr, RuntimeErr, SqlErr,
    sqlx::{self, sqlite::SqliteError},
};

/// A failure of the store. Its texts, `Debug` included, hold no password, prompt or answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database's URL makes no sense.
    #[error("cannot use DATABASE_URL: {0}")]
    Url(&'static str),
    /// The directory for the SQLite file is not there and cannot be made.
    #[error("could not create the directory {} for the database: {reason}", path.display())]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The database does not let us in, and will not do so later.
    #[error("could not open the database {place}: {reason}")]
    Open {
        /// The file, or the host, port and name.
        place: String,
        /// What the database said.
        reason: String,
    },
    /// The database cannot be reached, is too busy or too slow: the same call may succeed later.
    /// What it would have written may nevertheless be there.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The name belongs to another one.
    #[error("the {what} `{name}` exists already")]
    Taken {
        /// What there is, such as `account`.
        what: &'static str,
        /// Its name or id.
        name: String,
    },
    /// What is to be changed is not there.
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// There are as many as there may be.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// A balance would leave the range in which sums are exact.
    #[error("the amount is too large")]
    TooLarge,
    /// A row that this release cannot read.
    #[error("could not read the stored {what}: {reason}")]
    Unreadable {
        /// Which column or table.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The database refused a statement; nothing of its transaction is left.
    #[error("the database refused a statement: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// A column that holds something else than we ever write there.
    pub(super) fn unreadable(what: &'static str, reason: impl ToString) -> Self {
        Self::Unreadable { what, reason: reason.to_string() }
    }

    /// What came of opening the database at `place`.
    pub(super) fn opening(place: &str, error: &sqlx::Error) -> Self {
        if is_passing(error) {
            return Self::Unavailable(format!("{place}: {error}"));
        }
        Self::Open { place: place.to_owned(), reason: error.to_string() }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        let passing = match &error {
            DbErr::ConnectionAcquire(_) => true,
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => is_passing(cause),
            _ => false,
        };
        // Only the text is kept: the database's own error value quotes whole rows in its details.
        if passing { Self::Unavailable(error.to_string()) } else { Self::Refused(error.to_string()) }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_passing(&error) { Self::Unavailable(error.to_string()) } else { Self::Refused(error.to_string()) }
    }
}

/// Whether `error` says that a unique value is there already.
pub(super) fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

/// Whether `error` says that the row it refers to is not there.
pub(super) fn is_orphan(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::ForeignKeyConstraintViolation(_)))
}

fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            match error.try_downcast_ref::<SqliteError>() {
                Some(_) => is_passing_on_sqlite(&code),
                None => is_passing_on_postgres(&code),
            }
        }
        _ => false,
    }
}

/// Busy, locked, out of memory, an I/O error, a full disk.
fn is_passing_on_sqlite(extended_code: &str) -> bool {
    extended_code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 10 | 13))
}

/// Connection trouble, resources used up, shutting down or starting, a deadlock that was broken, a lock time-out.
fn is_passing_on_postgres(code: &str) -> bool {
    ["08", "53", "57", "58", "40", "55P03"].iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for (code, passes) in [("5", true), ("517", true), ("13", true), ("14", false), ("2067", false), ("", false)] {
            assert_eq!(is_passing_on_sqlite(code), passes, "{code}");
        }
        for (code, passes) in [("57P01", true), ("40P01", true), ("53300", true), ("23505", false), ("28P01", false)] {
            assert_eq!(is_passing_on_postgres(code), passes, "{code}");
        }
    }
}
