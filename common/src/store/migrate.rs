//! Bringing the tables up to date, by one process at a time.

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

use super::{connection::Store, error::StoreError};

/// The advisory lock that migrating processes hold on PostgreSQL: "frontdesk" on a telephone's keys.
const LOCK: i64 = 376_683_375;

impl Store {
    /// Applies the migrations that are missing. Any number of processes may do so at once: all work happens in one
    /// transaction on one connection, which holds the write lock (SQLite) or an advisory lock (PostgreSQL).
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let write = self.write().await?;
        if write.get_database_backend() == DbBackend::Postgres {
            let lock = format!("SELECT pg_advisory_xact_lock({LOCK})");
            write.execute_raw(Statement::from_string(DbBackend::Postgres, lock)).await?;
        }
        migrations::migrator::apply(&write).await?;
        write.commit().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::try_join_all;

    use crate::store::{connection::Store, testing::on_each_empty_database};

    #[tokio::test(flavor = "multi_thread")]
    async fn eight_processes_may_migrate_at_once() {
        on_each_empty_database(async |config| {
            let migrated = (0..8).map(|_| async {
                // A store of its own each: its own pool, its own queue of writers, as in a process of its own.
                let store = Store::connect(&config).await?;
                store.migrate().await?;
                store.ping().await?;
                store.close().await
            });
            try_join_all(migrated).await.expect("all of them migrate");
        })
        .await;
    }

    #[tokio::test]
    async fn a_newer_database_is_left_alone() {
        use sea_orm::ConnectionTrait as _;

        on_each_empty_database(async |config| {
            let store = Store::connect(&config).await.expect("to connect");
            store.migrate().await.expect("to migrate");
            let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m99991231_000001_more', 0)";
            store.db.execute_unprepared(newer).await.expect("a step of a later release");
            store.migrate().await.expect("to find nothing to do");
            store.close().await.expect("to close");
        })
        .await;
    }
}
