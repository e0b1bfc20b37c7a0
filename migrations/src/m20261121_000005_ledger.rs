//! The ledger: one entry for each finished message and each grant. The amounts of an account add up to its balance.

use sea_orm_migration::prelude::*;

use crate::columns::{flag, id, number, small, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ledger = Table::create()
            .table("ledger")
            .col(id(manager, "id").not_null().primary_key())
            .col(id(manager, "account_id").not_null())
            .col(id(manager, "key_id"))
            .col(id(manager, "agent_id"))
            .col(small("day").not_null())
            .col(text("kind").not_null())
            .col(text("model"))
            .col(number("input_tokens").not_null().default(0))
            .col(number("output_tokens").not_null().default(0))
            .col(flag("estimated").not_null().default(false))
            .col(number("amount").not_null())
            .col(text("note"))
            .col(number("created_at").not_null())
            .take();
        manager.create_table(ledger).await?;
        let by_account = Index::create()
            .name("ledger_account_id_created_at")
            .table("ledger")
            .col("account_id")
            .col("created_at")
            .take();
        manager.create_index(by_account).await
    }
}
