//! SQLite's own way to write what is hot: a transaction in as few trips to the thread of its connection as can be.
//!
//! Through the pool, a transaction of one statement takes four: its begin, the statement, the commit, and the ping with
//! which the pool takes a connection back. Each is a message to another thread and one back.

use futures_util::TryStreamExt as _;
use sea_orm::{
    Statement, Values,
    sqlx::{
        self, ConnectOptions as _, Connection as _, Executor as _, SqliteConnection,
        sqlite::{SqliteConnectOptions, SqliteRow},
    },
};
use sea_query_sqlx::SqlxValues;

use super::{connection::within_patience, error::StoreError};

/// A connection of its own, which sees its own last commit in its cache.
pub(super) struct SqliteWriter {
    options: SqliteConnectOptions,
    /// Absent before the first use, and after an error: a transaction that came to no end goes with its connection.
    connection: Option<SqliteConnection>,
}

impl SqliteWriter {
    /// Connects when there is something to write.
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self { options, connection: None }
    }

    /// Runs `statements` in one transaction, which is durable when this returns; gives the rows that they returned.
    /// After an error, and when the future is dropped, nothing of it is there, or (after
    /// [`StoreError::Unavailable`], and when dropped) perhaps all.
    pub(super) async fn run(&mut self, statements: Vec<Statement>) -> Result<Vec<SqliteRow>, StoreError> {
        let mut connection = self.take().await?;
        let mut rows = Vec::new();
        let last = statements.len().saturating_sub(1);
        for (place, statement) in statements.into_iter().enumerate() {
            let begin = if place == 0 { "BEGIN IMMEDIATE; " } else { "" };
            let commit = if place == last { "; COMMIT" } else { "" };
            rows.extend(run(&mut connection, [begin, commit], statement).await?);
        }
        self.connection = Some(connection);
        Ok(rows)
    }

    /// Begins a transaction with `first`, for statements that depend on one another's rows. Dropped without its commit,
    /// it leaves nothing behind.
    pub(super) async fn begin(&mut self, first: Statement) -> Result<(Begun<'_>, Vec<SqliteRow>), StoreError> {
        let mut connection = self.take().await?;
        let rows = run(&mut connection, ["BEGIN IMMEDIATE; ", ""], first).await?;
        Ok((Begun { writer: self, connection }, rows))
    }

    async fn take(&mut self) -> Result<SqliteConnection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Ok(self.options.connect().await?),
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self) -> Result<(), StoreError> {
        match self.connection.take() {
            Some(connection) => within_patience(async { Ok(connection.close().await?) }).await,
            None => Ok(()),
        }
    }
}

/// A transaction that has begun.
pub(super) struct Begun<'a> {
    writer: &'a mut SqliteWriter,
    connection: SqliteConnection,
}

impl Begun<'_> {
    /// Runs `statement`; gives the rows that it returned.
    pub(super) async fn run(&mut self, statement: Statement) -> Result<Vec<SqliteRow>, StoreError> {
        run(&mut self.connection, ["", ""], statement).await
    }

    /// Makes it durable.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    /// Takes it back. Dropping it does so too, at the price of the connection.
    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), StoreError> {
        self.connection.execute(how).await?;
        self.writer.connection = Some(self.connection);
        Ok(())
    }
}

/// Runs `statement` between two texts.
async fn run(
    connection: &mut SqliteConnection,
    [before, after]: [&str; 2],
    statement: Statement,
) -> Result<Vec<SqliteRow>, StoreError> {
    let sql = format!("{before}{}{after}", statement.sql);
    let values = SqlxValues(statement.values.unwrap_or(Values(Vec::new())));
    let mut answers = connection.fetch_many(sqlx::query_with(sqlx::AssertSqlSafe(sql), values));
    let mut rows = Vec::new();
    while let Some(answer) = answers.try_next().await? {
        rows.extend(answer.right());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sea_orm::DbBackend;
    use tokio::time::timeout;

    use super::*;
    use crate::store::{
        connection::Store,
        testing::{account, on_each_database},
    };

    fn statement(sql: &str) -> Statement {
        Statement::from_string(DbBackend::Sqlite, sql)
    }

    async fn verified(store: &Store) -> usize {
        store.accounts().await.expect("accounts").iter().filter(|account| account.email_verified).count()
    }

    #[tokio::test]
    async fn what_comes_to_no_end_leaves_nothing_and_the_next_one_is_whole() {
        on_each_database(async |store| {
            let Some(turn) = &store.turn else { return };
            account(&store).await;
            account(&store).await;
            let before = verified(&store).await;
            let change = || statement("UPDATE accounts SET email_verified = NOT email_verified RETURNING id");
            let mut writer = turn.lock().await;
            let refused = writer.run(vec![change(), statement("UPDATE accounts SET name = NULL")]).await;
            assert!(!refused.expect_err("a name is needed").is_transient());
            assert_eq!(verified(&store).await, before);
            // A long one whose caller goes away in its middle.
            let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000000) SELECT max(i) FROM n";
            let long = writer.run(vec![change(), statement(count)]);
            assert!(timeout(Duration::from_millis(50), long).await.is_err(), "it was meant to take longer");
            assert_eq!(verified(&store).await, before);
            assert_eq!(writer.run(vec![change()]).await.expect("a turn of its own").len(), 2);
            assert_eq!(verified(&store).await, 2 - before);
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_begun_is_there_after_its_commit_and_only_then() {
        on_each_database(async |store| {
            let Some(turn) = &store.turn else { return };
            account(&store).await;
            let change = || statement("UPDATE accounts SET email_verified = NOT email_verified RETURNING id");
            let mut writer = turn.lock().await;
            let (begun, rows) = writer.begin(change()).await.expect("to begin");
            assert_eq!(rows.len(), 1);
            begun.roll_back().await.expect("to take it back");
            drop(writer.begin(change()).await.expect("to begin"));
            assert_eq!(verified(&store).await, 0);
            let (mut begun, _) = writer.begin(change()).await.expect("to begin");
            begun.run(change()).await.expect("a second one");
            begun.run(change()).await.expect("a third one");
            assert_eq!(verified(&store).await, 0);
            begun.commit().await.expect("to commit");
            assert_eq!(verified(&store).await, 1);
        })
        .await;
    }
}
