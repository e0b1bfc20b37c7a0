//! What to run: the command line.

use std::time::Duration;

use ::tests::database::Database;
use anyhow::{Context as _, Result, bail};
use common::{env::parse_duration, sabotage::Bug};

use crate::rows::Row;

/// How it is called.
pub const USAGE: &str = "chaos [--only ROW,ROW] [--seed N] [--database sqlite|postgres] [--full] [--soak 4h] [--planted BUG,BUG|all] [--list]";

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The rows, in their order.
    pub rows: Vec<Row>,
    /// What all that is random comes from.
    pub seed: u64,
    /// Where messages are stored: in full size each row on all of these, else on one after the other.
    pub databases: Vec<Database>,
    /// Full sizes, and times that decide; else small ones.
    pub is_full: bool,
    /// The bugs to plant, each to be found by its row, instead of the rows.
    pub planted: Vec<Bug>,
    /// One row after the other, again and again for so long, with another seed each time.
    pub soak: Option<Duration>,
    /// Only say which rows there are.
    pub lists: bool,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// Says what cannot be understood.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            rows: Row::ALL.to_vec(),
            seed: rand::random_range(0..1_000_000),
            databases: vec![Database::Sqlite, Database::Postgres],
            is_full: false,
            planted: Vec::new(),
            soak: None,
            lists: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value: {USAGE}"));
            match name.as_str() {
                "--only" => options.rows = value()?.split(',').map(row).collect::<Result<_>>()?,
                "--seed" => options.seed = value()?.parse().context("--seed: a number")?,
                "--database" => options.databases = vec![database(&value()?)?],
                "--full" => options.is_full = true,
                "--planted" => options.planted = bugs(&value()?)?,
                "--soak" => options.soak = Some(length(&value()?)?),
                "--list" => options.lists = true,
                _ => bail!("{name} is unknown: {USAGE}"),
            }
        }
        Ok(options)
    }

    /// On which databases to run `row`, the one at `number` of all: none, when those that it needs were not chosen.
    pub fn databases_of(&self, row: Row, number: usize) -> Vec<Database> {
        let mut databases: Vec<_> = self.databases.iter().copied().filter(|database| row.runs_on(*database)).collect();
        if !self.is_full && !databases.is_empty() {
            databases = vec![databases[number % databases.len()]];
        }
        databases
    }
}

fn row(name: &str) -> Result<Row> {
    let found = Row::ALL.iter().copied().find(|row| row.name() == name);
    found.with_context(|| format!("--only: `{name}` is no row; --list tells which there are"))
}

fn bugs(names: &str) -> Result<Vec<Bug>> {
    if names == "all" {
        return Ok(Bug::ALL.to_vec());
    }
    let bug = |name: &str| Bug::ALL.iter().copied().find(|bug| bug.name() == name);
    names.split(',').map(|name| bug(name).with_context(|| format!("--planted: `{name}` is no bug"))).collect()
}

fn length(text: &str) -> Result<Duration> {
    parse_duration(text).with_context(|| format!("--soak: `{text}` is no length of time such as 30m or 4h"))
}

fn database(name: &str) -> Result<Database> {
    match name {
        "sqlite" => Ok(Database::Sqlite),
        "postgres" => Ok(Database::Postgres),
        _ => bail!("--database: `{name}` is neither sqlite nor postgres"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        Options::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_chooses() {
        let options = read("--only worker-killed,nats-killed --seed 7 --database postgres --full").expect("options");
        assert_eq!((options.rows.as_slice(), options.seed), ([Row::WorkerKilled, Row::NatsKilled].as_slice(), 7));
        assert_eq!((options.databases.as_slice(), options.is_full), ([Database::Postgres].as_slice(), true));
    }

    #[test]
    fn a_row_runs_on_each_database_in_full_size_and_else_in_turn() {
        let (small, full) = (read("").expect("options"), read("--full").expect("options"));
        let both = [Database::Sqlite, Database::Postgres];
        for (number, database) in both.into_iter().enumerate() {
            assert_eq!(small.databases_of(Row::NatsKilled, number), [database]);
            assert_eq!(small.databases_of(Row::DatabaseGone, number), [Database::Postgres]);
        }
        assert_eq!(full.databases_of(Row::NatsKilled, 0), both);
        let sqlite = read("--database sqlite").expect("options");
        assert_eq!(sqlite.databases_of(Row::DatabaseGone, 0), [], "SQLite has no route that could be gone");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in
            ["--only worker", "--only", "--seed x", "--database mysql", "--planted none", "--soak long", "--fast"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
