//! Where the database is and how it is opened, on each of the two kinds.

use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection,
    sqlx::{
        ConnectOptions as _, Connection as _,
        postgres::PgConnectOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use tokio::time::{Instant, sleep, timeout};

use super::error::StoreError;

/// How long a SQLite statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long opening may take, and waiting for a free connection.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A PostgreSQL connection that was idle for this long is tried before it is used.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// A database's URL, understood.
pub(super) enum Place {
    /// A file on this host.
    Sqlite(Box<SqliteConnectOptions>),
    /// A server.
    Postgres(Box<PgConnectOptions>),
}

impl Place {
    /// What `url` means. The errors do not quote it, because it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => sqlite_place(url),
            "postgres" | "postgresql" => {
                let options: PgConnectOptions = url.parse().map_err(|_| {
                    StoreError::Url("not a PostgreSQL URL (the form is postgres://user:password@host:port/database)")
                })?;
                Ok(Self::Postgres(Box::new(options.disable_statement_logging())))
            }
            _ => Err(StoreError::Url("it has to begin with sqlite: or postgres:")),
        }
    }

    /// Opens it, with at most `max_connections` connections.
    pub(super) async fn open(self, max_connections: u32) -> Result<DatabaseConnection, StoreError> {
        match self {
            Self::Sqlite(options) => open_sqlite(*options, max_connections).await,
            Self::Postgres(options) => open_postgres(*options, max_connections).await,
        }
    }
}

fn sqlite_place(url: &str) -> Result<Place, StoreError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(StoreError::Url("a database in memory cannot be shared by the gateway and the workers"));
    }
    let options: SqliteConnectOptions = url
        .parse()
        .map_err(|_| StoreError::Url("not a SQLite URL (the form is sqlite://directory/file.db?mode=rwc)"))?;
    if options.get_filename().as_os_str().is_empty() {
        return Err(StoreError::Url("it names no file (the form is sqlite://directory/file.db?mode=rwc)"));
    }
    let options = if url.contains("mode=") { options } else { options.create_if_missing(true) };
    Ok(Place::Sqlite(Box::new(
        options
            .journal_mode(SqliteJournalMode::Wal)
            // A result must outlive a loss of power.
            .synchronous(SqliteSynchronous::Full)
            // In pages of 4 KiB. Each checkpoint writes and syncs the whole file again; the default makes one for a
            // thousand ends of jobs.
            .pragma("wal_autocheckpoint", "8000")
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .disable_statement_logging(),
    )))
}

async fn open_sqlite(options: SqliteConnectOptions, max_connections: u32) -> Result<DatabaseConnection, StoreError> {
    let file = options.get_filename().to_owned();
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory)
        .map_err(|error| StoreError::Directory { path: directory.to_owned(), reason: error.to_string() })?;
    {
        // The switch to WAL does not honour the busy time-out: of two processes that make the file, one would fail.
        let _alone = lock(directory).await?;
        let probe = options.connect().await;
        let probe = probe.map_err(|error| StoreError::opening(&file.display().to_string(), &error))?;
        // An error on closing is of no interest: the pool opens its own.
        let _ = probe.close().await;
    }
    let mut pool = pool_options("sqlite:frontdesk", max_connections);
    pool.test_before_acquire(false).idle_timeout(None).max_lifetime(None);
    pool.map_sqlx_sqlite_opts(move |_| options.clone());
    Ok(Database::connect(pool).await?)
}

async fn open_postgres(options: PgConnectOptions, max_connections: u32) -> Result<DatabaseConnection, StoreError> {
    let name = options.get_database().unwrap_or(options.get_username());
    let place = format!("{}:{}/{name}", options.get_host(), options.get_port());
    // A pool hides the reason why it cannot connect; a connection of its own tells it.
    let probe = timeout(OPEN_TIMEOUT, options.connect()).await;
    let probe = probe.map_err(|_| StoreError::Unavailable(format!("{place}: no answer within {OPEN_TIMEOUT:?}")))?;
    let probe = probe.map_err(|error| StoreError::opening(&place, &error))?;
    let _ = probe.close().await;
    let mut pool = pool_options("postgres://frontdesk", max_connections);
    pool.test_before_acquire_if_idle_for(TRY_AFTER_IDLE);
    pool.map_sqlx_postgres_opts(move |_| options.clone());
    Ok(Database::connect(pool).await?)
}

/// `kind` only says which driver it is: sea-orm writes its URL into errors and traces, so the true one, which
/// may hold a password, goes straight to the driver.
fn pool_options(kind: &str, max_connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(kind);
    options
        .max_connections(max_connections)
        .acquire_timeout(OPEN_TIMEOUT)
        .connect_lazy(true)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    options
}

/// An exclusive lock on `directory`, across processes, until the file is dropped.
async fn lock(directory: &Path) -> Result<File, StoreError> {
    let unlockable = |error: std::io::Error| StoreError::Open {
        place: directory.display().to_string(),
        reason: format!("could not lock the directory: {error}"),
    };
    let file = File::open(directory).map_err(unlockable)?;
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Unavailable(format!("{} is locked", directory.display())));
            }
            Err(TryLockError::Error(error)) => return Err(unlockable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        connection::{Store, StoreConfig},
        testing::on_each_database,
    };

    async fn error_of(url: &str) -> StoreError {
        let opened = Store::connect(&StoreConfig { url: url.to_owned(), max_connections: 1 }).await;
        opened.err().unwrap_or_else(|| panic!("{url} was opened"))
    }

    #[tokio::test]
    async fn a_wrong_url_is_told_without_its_password() {
        for url in [
            "",
            "frontdesk.db",
            "mysql://desk:s3cret@localhost/desk",
            "postgres://desk:s3cret@localhost:notaport/desk",
            "sqlite::memory:",
            "sqlite://x.db?mode=s3cret",
            "sqlite://",
        ] {
            let error = error_of(url).await;
            assert!(matches!(error, StoreError::Url(_)), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_transient_and_keeps_the_password_to_itself() {
        let error = error_of("postgres://desk:s3cret@127.0.0.1:1/desk").await;
        assert!(error.is_transient(), "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("127.0.0.1:1/desk") && !text.contains("s3cret"), "{text}");
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("a file where the directory should be");
        let error = error_of(&format!("sqlite://{}/below/frontdesk.db?mode=rwc", file.display())).await;
        assert!(matches!(error, StoreError::Directory { .. }), "{error}");
        assert!(error.to_string().contains("file/below"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("letter.db");
        std::fs::write(&file, "Dear reader, this is no database. ".repeat(100)).expect("a file");
        let error = error_of(&format!("sqlite://{}", file.display())).await;
        assert!(matches!(error, StoreError::Open { .. }), "{error}");
        assert!(error.to_string().contains("letter.db"), "{error}");
    }

    #[tokio::test]
    async fn sqlite_is_set_to_survive_a_loss_of_power() {
        use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

        on_each_database(async |store| {
            if store.db.get_database_backend() != DbBackend::Sqlite {
                return;
            }
            for (pragma, wanted) in [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")] {
                let statement = Statement::from_string(DbBackend::Sqlite, format!("PRAGMA {pragma}"));
                let row = store.db.query_one_raw(statement).await.expect("an answer").expect("a row");
                let text = row.try_get_by_index::<String>(0);
                let value = text.or_else(|_| row.try_get_by_index::<i64>(0).map(|n| n.to_string()));
                assert_eq!(value.expect("a value"), wanted, "{pragma}");
            }
        })
        .await;
    }
}
