//! A database of the test's own, of each kind.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite,
    /// A database on the server that `FRONTDESK_TEST_POSTGRES` names.
    Postgres,
}

impl Database {
    /// Makes an empty one and returns its URL.
    pub fn make(self, folder: &Path) -> Result<String> {
        match self {
            Self::Sqlite => Ok(format!("sqlite://{}/frontdesk.db?mode=rwc", folder.display())),
            Self::Postgres => make_on_postgres(),
        }
    }
}

fn make_on_postgres() -> Result<String> {
    let server = common::env::text("FRONTDESK_TEST_POSTGRES")
        .context("FRONTDESK_TEST_POSTGRES is not set: run `make test`, which starts a server")?;
    let name = format!("test_{}", common::domain::ids::MessageId::new().0.simple());
    psql(&server, &format!("CREATE DATABASE {name}"))?;
    let (base, _) = server.rsplit_once('/').context("FRONTDESK_TEST_POSTGRES has no database in it")?;
    Ok(format!("{base}/{name}"))
}

/// Runs one statement with the ordinary client.
pub fn psql(url: &str, statement: &str) -> Result<String> {
    let out =
        Command::new("psql").args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, "-c", statement]).output();
    let out = out.context("psql has to be installed")?;
    ensure!(out.status.success(), "psql: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// What `statement` finds in the database at `url`: a line a row, its columns separated by `|`.
pub fn query(url: &str, statement: &str) -> Result<String> {
    let Some(file) = url.strip_prefix("sqlite://") else { return psql(url, statement) };
    let file = file.split('?').next().unwrap_or_default();
    // Python is there wherever `make test` runs; the sqlite3 program is not.
    let out = Command::new("python3").args(["-c", READ_SQLITE, file, statement]).output();
    let out = out.context("python3 has to be installed")?;
    ensure!(out.status.success(), "sqlite: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

const READ_SQLITE: &str = r#"
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None).execute(sys.argv[2]):
    print("|".join("" if value is None else str(value) for value in row))
"#;
