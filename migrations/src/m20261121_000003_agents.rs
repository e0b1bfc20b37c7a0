//! Agents, and every version that they had: jobs pin the one that they were accepted with.

use sea_orm_migration::prelude::*;

use crate::columns::{id, number, small, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let agents = Table::create()
            .table("agents")
            .col(id(manager, "id").not_null().primary_key())
            .col(id(manager, "account_id").not_null())
            .col(small("version").not_null())
            .col(number("created_at").not_null())
            .col(number("removed_at"))
            .foreign_key(ForeignKey::create().from("agents", "account_id").to("accounts", "id"))
            .take();
        manager.create_table(agents).await?;
        let by_account = Index::create().name("agents_account_id").table("agents").col("account_id").take();
        manager.create_index(by_account).await?;

        let versions = Table::create()
            .table("agent_versions")
            .col(id(manager, "agent_id").not_null())
            .col(small("version").not_null())
            .col(text("spec").not_null())
            .primary_key(Index::create().col("agent_id").col("version"))
            .foreign_key(ForeignKey::create().from("agent_versions", "agent_id").to("agents", "id"))
            .take();
        manager.create_table(versions).await
    }
}
