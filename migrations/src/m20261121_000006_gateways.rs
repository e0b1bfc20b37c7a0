//! Gateways that run: who has to confirm that a key was revoked.

use sea_orm_migration::prelude::*;

use crate::columns::{id, number, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let gateways = Table::create()
            .table("gateways")
            .col(id(manager, "id").not_null().primary_key())
            .col(text("address").not_null())
            .col(number("seen_at").not_null())
            .take();
        manager.create_table(gateways).await
    }
}
