//! Secrets that sign beside the one before, when they were rotated more than once within the time of that.

use sea_orm_migration::prelude::*;

use crate::columns::{number, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["webhook_endpoints", "callback_secrets"] {
            for column in [text("older_secret"), number("older_until")] {
                manager.alter_table(Table::alter().table(table).add_column(column).take()).await?;
            }
        }
        Ok(())
    }
}
