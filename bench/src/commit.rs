//! One bare durable commit: a row in SQLite with the journal and the flushing that the product uses.

use std::{path::Path, time::Duration};

use anyhow::Result;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement, Value};
use tokio::time::Instant;

use crate::{
    load::Lengths,
    sample::Sample,
    window::{Tally, Window},
};

/// About as much as the terminal row of a short answer.
const ROW: usize = 300;

/// Commits one row after the other for the given time.
///
/// # Errors
/// When the file cannot be written.
pub async fn run(folder: &Path, lengths: Lengths) -> Result<Sample> {
    let database = open(folder).await?;
    let window = Window::after(lengths.warm_up.min(Duration::from_millis(200)), lengths.measure);
    let sample = window.watch([None; 3], commits(&database, window)).await?;
    database.close().await?;
    Ok(Sample { cpu: [None; 4], ..sample })
}

async fn open(folder: &Path) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(format!("sqlite://{}/commit.db?mode=rwc", folder.display()));
    options.max_connections(1).sqlx_logging(false);
    let database = Database::connect(options).await?;
    for statement in [
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE ends (id INTEGER PRIMARY KEY, end TEXT)",
    ] {
        database.execute_unprepared(statement).await?;
    }
    Ok(database)
}

async fn commits(database: &DatabaseConnection, window: Window) -> Result<Tally> {
    let insert = "INSERT INTO ends (end) VALUES (?)";
    let row = "x".repeat(ROW);
    let mut tally = Tally::default();
    while window.is_open() {
        let asked = Instant::now();
        let values = [Value::from(row.clone())];
        database.execute_raw(Statement::from_sql_and_values(database.get_database_backend(), insert, values)).await?;
        tally.count(window, asked, Ok(()));
    }
    Ok(tally)
}
