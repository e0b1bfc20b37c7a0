//! Receivers of webhooks that have ever taken anything are found apart from those that have not.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in [
            "CREATE INDEX webhook_targets_failing_proven_ready_at ON webhook_targets (failing, proven, ready_at) \
             WHERE ready_at IS NOT NULL",
            "DROP INDEX webhook_targets_failing_ready_at",
        ] {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
