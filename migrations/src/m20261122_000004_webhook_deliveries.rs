//! Deliveries of events, every try of them, and the receivers that they are for. A worker takes a receiver for a
//! while and then some of what waits for it, so that one receiver's backlog is never in another's way.

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
        manager.create_table(targets(manager)).await?;
        manager.create_table(deliveries(manager)).await?;
        manager.create_table(tries(manager)).await?;
        let of_message = Index::create()
            .name("webhook_deliveries_message_id_event_target_id")
            .table("webhook_deliveries")
            .col("message_id")
            .col("event")
            .col("target_id")
            .unique()
            .take();
        manager.create_index(of_message).await?;
        for index in [
            "CREATE INDEX webhook_targets_failing_ready_at ON webhook_targets (failing, ready_at) \
             WHERE ready_at IS NOT NULL",
            "CREATE INDEX webhook_deliveries_target_id_next_at_id ON webhook_deliveries (target_id, next_at, id) \
             WHERE status = 'pending'",
            "CREATE INDEX webhook_deliveries_endpoint_id_id ON webhook_deliveries (endpoint_id, id) \
             WHERE endpoint_id IS NOT NULL",
        ] {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}

fn targets(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("webhook_targets")
        .col(id(manager, "id").not_null().primary_key())
        .col(number("ready_at"))
        .col(number("held_until").not_null())
        .col(id(manager, "claim"))
        .col(flag("proven").not_null())
        .col(flag("failing").not_null())
        .col(small("failures").not_null())
        .col(number("failing_since"))
        .take()
}

fn deliveries(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("webhook_deliveries")
        .col(id(manager, "id").not_null().primary_key())
        .col(id(manager, "account_id").not_null())
        .col(id(manager, "message_id"))
        .col(text("event").not_null())
        .col(id(manager, "endpoint_id"))
        .col(id(manager, "target_id").not_null())
        .col(text("callback_url"))
        .col(text("status").not_null())
        .col(small("tries").not_null())
        .col(small("step").not_null())
        .col(number("next_at").not_null())
        .col(number("created_at").not_null())
        .take()
}

fn tries(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("webhook_tries")
        .col(id(manager, "delivery_id").not_null())
        .col(small("n").not_null())
        .col(number("at").not_null())
        .col(small("status"))
        .col(text("error"))
        .col(number("duration_ms").not_null())
        .primary_key(Index::create().col("delivery_id").col("n"))
        .take()
}
