//! Accounts: who owns agents and keys, and what they may spend.

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
        let accounts = Table::create()
            .table("accounts")
            .col(id(manager, "id").not_null().primary_key())
            .col(text("name").not_null().unique_key())
            .col(text("email").not_null())
            .col(flag("email_verified").not_null())
            .col(text("channels").not_null())
            .col(number("balance").not_null())
            .col(number("created_at").not_null())
            .take();
        manager.create_table(accounts).await
    }
}
