//! Idempotency keys: which message the first request with a key made.

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
        let claims = Table::create()
            .table("idempotency_keys")
            .col(id(manager, "account_id").not_null())
            .col(text("key").not_null())
            .col(bytes("fingerprint").not_null())
            .col(id(manager, "message_id").not_null())
            .col(number("claimed_at").not_null())
            .primary_key(Index::create().col("account_id").col("key"))
            .take();
        manager.create_table(claims).await?;
        let by_time =
            Index::create().name("idempotency_keys_claimed_at").table("idempotency_keys").col("claimed_at").take();
        manager.create_index(by_time).await
    }
}
