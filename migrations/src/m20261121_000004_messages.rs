//! Messages. No foreign keys: a job that ran is stored, whatever became of its key or its agent.

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
        let messages = Table::create()
            .table("messages")
            .col(id(manager, "id").not_null().primary_key())
            .col(id(manager, "account_id").not_null())
            .col(id(manager, "key_id").not_null())
            .col(id(manager, "agent_id").not_null())
            .col(small("agent_version").not_null())
            .col(text("channel").not_null())
            .col(text("lane").not_null())
            .col(text("status").not_null())
            .col(text("prompt").not_null())
            .col(text("content"))
            .col(text("model"))
            .col(number("input_tokens").not_null().default(0))
            .col(number("output_tokens").not_null().default(0))
            .col(flag("usage_estimated").not_null().default(false))
            .col(number("credits_charged").not_null().default(0))
            .col(number("attempts").not_null().default(0))
            .col(text("error_code"))
            .col(text("error_message"))
            .col(flag("error_retryable"))
            .col(id(manager, "conversation_id"))
            .col(id(manager, "batch_id"))
            .col(small("batch_line"))
            .col(text("metadata"))
            .col(id(manager, "retry_of"))
            .col(flag("new_chat").not_null())
            .col(number("created_at").not_null())
            .col(number("started_at"))
            .col(number("completed_at"))
            .col(number("expires_at"))
            .take();
        manager.create_table(messages).await?;
        let by_account =
            Index::create().name("messages_account_id_id").table("messages").col("account_id").col("id").take();
        manager.create_index(by_account).await
    }
}
