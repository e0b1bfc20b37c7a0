//! Write transactions: the one way to change anything.

use std::ops::Deref;

use sea_orm::{DatabaseTransaction, SqliteTransactionMode, TransactionOptions, TransactionTrait as _};
use tokio::sync::OwnedMutexGuard;

use super::{connection::Store, error::StoreError};

/// A transaction that may write. Dropped without [`Write::commit`], it leaves nothing behind.
pub(super) struct Write {
    // Declared first, so that the roll-back is under way before the next writer has its turn.
    transaction: DatabaseTransaction,
    _turn: Option<OwnedMutexGuard<()>>,
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
    #[tokio::test]
    async fn a_dropped_write_leaves_nothing_and_lets_the_next_one_in() {
        use sea_orm::ConnectionTrait as _;

        use crate::store::testing::{account, on_each_database};

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
