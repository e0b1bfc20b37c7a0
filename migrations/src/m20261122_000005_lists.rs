//! Lists of messages of one agent, and of one way in.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let by_agent = Index::create()
            .name("messages_account_id_agent_id_id")
            .table("messages")
            .col("account_id")
            .col("agent_id")
            .col("id")
            .take();
        manager.create_index(by_agent).await?;
        // Most messages come in by the API: they cost this one nothing.
        let database = manager.get_connection();
        database
            .execute_unprepared(
                "CREATE INDEX messages_account_id_channel_id ON messages (account_id, channel, id) \
                 WHERE channel <> 'api'",
            )
            .await?;
        Ok(())
    }
}
