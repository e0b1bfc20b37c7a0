//! Endpoints that are told of events, and the secrets that sign the callbacks of messages, one an account.

use sea_orm_migration::prelude::*;

use crate::columns::{flag, id, number, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let endpoints = Table::create()
            .table("webhook_endpoints")
            .col(id(manager, "id").not_null().primary_key())
            .col(id(manager, "account_id").not_null())
            .col(text("url").not_null())
            .col(text("events").not_null())
            .col(flag("enabled").not_null())
            .col(text("disabled_reason"))
            .col(text("secret").not_null())
            .col(text("previous_secret"))
            .col(number("previous_until"))
            .col(number("created_at").not_null())
            .foreign_key(ForeignKey::create().from("webhook_endpoints", "account_id").to("accounts", "id"))
            .take();
        manager.create_table(endpoints).await?;
        let by_account =
            Index::create().name("webhook_endpoints_account_id").table("webhook_endpoints").col("account_id").take();
        manager.create_index(by_account).await?;

        let secrets = Table::create()
            .table("callback_secrets")
            .col(id(manager, "account_id").not_null().primary_key())
            .col(text("secret").not_null())
            .col(text("previous_secret"))
            .col(number("previous_until"))
            .take();
        manager.create_table(secrets).await
    }
}
