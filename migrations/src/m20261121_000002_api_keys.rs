//! API keys, looked up by the hash of their secret.

use sea_orm_migration::prelude::*;

use crate::columns::{bytes, id, number, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let keys = Table::create()
            .table("api_keys")
            .col(id(manager, "id").not_null().primary_key())
            .col(id(manager, "account_id").not_null())
            .col(text("name").not_null())
            .col(bytes("hash").not_null().unique_key())
            .col(text("last_four").not_null())
            .col(text("agents"))
            .col(number("created_at").not_null())
            .col(number("revoked_at"))
            .foreign_key(ForeignKey::create().from("api_keys", "account_id").to("accounts", "id"))
            .take();
        manager.create_table(keys).await?;
        let by_account = Index::create().name("api_keys_account_id").table("api_keys").col("account_id").take();
        manager.create_index(by_account).await
    }
}
