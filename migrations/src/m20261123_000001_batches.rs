//! Batches: how many lines each has, how they ended, and who puts them on the queue.

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
        let batches = Table::create()
            .table("batches")
            .col(id(manager, "id").not_null().primary_key())
            .col(id(manager, "account_id").not_null())
            .col(id(manager, "key_id").not_null())
            .col(text("status").not_null())
            .col(small("total").not_null())
            .col(small("completed").not_null())
            .col(small("failed").not_null())
            .col(small("cancelled").not_null())
            .col(small("skipped").not_null())
            .col(small("slot").not_null())
            .col(number("next_seq").not_null())
            .col(flag("keyed").not_null())
            .col(flag("notifies").not_null())
            .col(id(manager, "retry_of"))
            .col(id(manager, "lease_owner"))
            .col(number("lease_until"))
            .col(number("created_at").not_null())
            .col(number("enqueued_at"))
            .col(number("completed_at"))
            .take();
        manager.create_table(batches).await?;
        let by_account =
            Index::create().name("batches_account_id_id").table("batches").col("account_id").col("id").take();
        manager.create_index(by_account).await?;
        for index in [
            "CREATE INDEX batches_account_id_open ON batches (account_id) \
             WHERE status IN ('enqueuing', 'in_progress')",
            "CREATE INDEX batches_lease_until ON batches (lease_until) WHERE status IN ('enqueuing', 'cancelling')",
        ] {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}
