//! What a message brings along for its end, when its texts were blanked, and the lists that leave out what is usual.

use sea_orm_migration::prelude::*;

use crate::columns::{flag, number, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let callback = Table::alter().table("messages").add_column(text("callback")).take();
        manager.alter_table(callback).await?;
        let purged = Table::alter().table("messages").add_column(number("purged_at")).take();
        manager.alter_table(purged).await?;
        let endpoints =
            Table::alter().table("accounts").add_column(flag("has_endpoints").not_null().default(false)).take();
        manager.alter_table(endpoints).await?;
        // Most messages end as completed and belong to no batch: they cost these two nothing.
        let database = manager.get_connection();
        database
            .execute_unprepared(
                "CREATE INDEX messages_account_id_status_id ON messages (account_id, status, id) \
                 WHERE status <> 'completed'",
            )
            .await?;
        database
            .execute_unprepared(
                "CREATE INDEX messages_batch_id_id ON messages (batch_id, id) WHERE batch_id IS NOT NULL",
            )
            .await?;
        Ok(())
    }
}
