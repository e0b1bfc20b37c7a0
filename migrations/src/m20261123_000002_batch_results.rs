//! In which order the lines of batches ended. No foreign keys: messages and batches are forgotten on their own.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

use crate::columns::{id, number};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut results = Table::create()
            .table("batch_results")
            .col(id(manager, "batch_id").not_null())
            .col(number("seq").not_null())
            .col(id(manager, "message_id").not_null())
            .primary_key(Index::create().col("batch_id").col("seq"))
            .take();
        if manager.get_database_backend() == DbBackend::Sqlite {
            // Each row is in the key's tree and nowhere else: half the work of a line's end.
            results.extra("WITHOUT ROWID");
        }
        manager.create_table(results).await
    }
}
