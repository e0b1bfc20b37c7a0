//! Write transactions: the one way to change anything.

use std::ops::Deref;

use sea_orm::{DatabaseTransaction, SqliteTransactionMode, TransactionOptions, TransactionTrait as _};
use tokio::sync::OwnedMutexGuard;

use super::{connection::Store, error::StoreError, sqlite_writer::SqliteWriter};

/// A transaction that may write. Dropped without [`Write::commit`], it leaves nothing behind.
pub(super) struct Write {
    // Declared first, so that the roll-back is under way before the next writer has its turn.
    transaction: DatabaseTransaction,
    _turn: Option<OwnedMutexGuard<SqliteWriter>>,
}

impl Store {
    /// Begins to write. On SQLite the transaction takes the write lock at once: one that reads first and locks
    /// later fails with "database is locked" when another has written between.
    pub(super) async fn write(&self) -> Result<Write, StoreError> {
        let turn = match &self.turn {
            Some(turn) => Some(turn.clone().lock_owned().await),
            None => None,
        };
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = self.db.begin_with_options(immediate).await?;
        Ok(Write { transaction, _turn: turn })
    }
}

impl Write {
    /// Makes it durable.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

impl Deref for Write {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.transaction
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use crate::{
        lifecycle::Lifecycle,
        store::{
            connection::Store,
            testing::{account, completed, job, on_each_empty_database},
        },
    };

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn four_processes_write_without_locking_each_other_out() {
        on_each_empty_database(async |config| {
            let stores: Vec<Store> = join_all((0..4).map(|_| async {
                let store = Store::connect(&config).await.expect("to connect");
                store.migrate().await.expect("to migrate");
                store
            }))
            .await;
            let account = account(&stores[0]).await.id;
            let tasks = Lifecycle::new();
            let writers = stores.iter().flat_map(|store| [store.clone(), store.clone()]).map(|store| {
                tasks.spawn(async move {
                    for _ in 0..25 {
                        let group: Vec<_> = (0..7).map(|_| completed(&job(account), "done")).collect();
                        store.finish(&group).await.expect("no lock that lasts");
                        store.grant(account, 1, "").await.expect("no lock that lasts");
                    }
                })
            });
            join_all(writers).await.into_iter().for_each(|writer| writer.expect("no panic"));
            let (grants, charges) = (8 * 25, 8 * 25 * 7 * 7);
            assert_eq!(stores[0].balance(account).await.expect("a balance"), grants - charges);
            for store in stores {
                store.close().await.expect("to close");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_dropped_write_leaves_nothing_and_lets_the_next_one_in() {
        use sea_orm::ConnectionTrait as _;

        use crate::store::testing::on_each_database;

        on_each_database(async |store| {
            account(&store).await;
            {
                let write = store.write().await.expect("a turn");
                write.execute_unprepared("DELETE FROM accounts").await.expect("to delete");
            }
            account(&store).await;
            assert_eq!(store.accounts().await.expect("accounts").len(), 2);
        })
        .await;
    }
}
