//! The store itself: its settings, and what all parts of it share.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use tokio::{sync::Mutex, time::timeout};

use super::{error::StoreError, place::Place, sqlite_writer::SqliteWriter};
use crate::env::{self, EnvError};

/// How long a call of the store may take. A database that is frozen rather than down ends here.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where the database is.
#[derive(Clone)]
pub struct StoreConfig {
    /// `sqlite://path/to/file.db?mode=rwc` or `postgres://user:password@host:port/database`.
    pub url: String,
    /// The most connections that this process opens.
    pub max_connections: u32,
}

impl StoreConfig {
    /// Reads `DATABASE_URL` (a file under `.data`) and `FRONTDESK_DB_CONNECTIONS` (8; 1 to 1,000).
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self {
            url: env::text("DATABASE_URL").unwrap_or_else(|| "sqlite://.data/frontdesk.db?mode=rwc".to_owned()),
            max_connections: env::within("FRONTDESK_DB_CONNECTIONS", 8, 1..=1_000)?,
        })
    }
}

impl fmt::Debug for StoreConfig {
    /// Leaves the URL out: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

/// The database, through a pool of connections. Clones share the pool.
#[derive(Clone)]
pub struct Store {
    pub(super) db: DatabaseConnection,
    /// Whose turn it is to write on SQLite, with the connection for what is hot. SQLite's own waiting is a polling
    /// sleep, in no order; this queue is fair.
    pub(super) turn: Option<Arc<Mutex<SqliteWriter>>>,
    statements: Arc<AtomicU64>,
}

impl Store {
    /// Opens the database. On SQLite the file and its directory are made when they are not there.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let place = Place::parse(&config.url)?;
        let turn = match &place {
            Place::Sqlite(options) => Some(Arc::new(Mutex::new(SqliteWriter::new((**options).clone())))),
            Place::Postgres(_) => None,
        };
        let mut db = place.open(config.max_connections).await?;
        let statements = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&statements);
        db.set_metric_callback(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        Ok(Self { db, turn, statements })
    }

    /// How many statements were sent so far, without pings, the ends of transactions and the free ends of jobs.
    pub fn queries(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Whether the database answers and has our tables.
    pub async fn ping(&self) -> Result<(), StoreError> {
        within_patience(async {
            self.db.execute_unprepared("SELECT 1 FROM accounts LIMIT 1").await?;
            Ok(())
        })
        .await
    }

    /// Closes all connections, when those in use come back.
    pub async fn close(&self) -> Result<(), StoreError> {
        if let Some(turn) = &self.turn {
            turn.lock().await.close().await?;
        }
        Ok(self.db.close_by_ref().await?)
    }
}

/// The result of `call`, unless it takes too long.
pub(super) async fn within_patience<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match timeout(PATIENCE, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {PATIENCE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{account, on_each_database};

    #[tokio::test]
    async fn statements_are_counted_and_pings_are_not() {
        on_each_database(async |store| {
            let before = store.queries();
            store.ping().await.expect("an answer");
            assert_eq!(store.queries(), before);
            account(&store).await;
            assert_eq!(store.queries(), before + 1);
        })
        .await;
    }

    #[test]
    fn settings_do_not_show_the_url() {
        let config = StoreConfig { url: "postgres://desk:s3cret@host/desk".to_owned(), max_connections: 3 };
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let frozen = within_patience(std::future::pending::<Result<(), StoreError>>());
        assert!(frozen.await.expect_err("no answer").is_transient());
    }
}
