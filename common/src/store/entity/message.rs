//! The table `messages`. Rows are written by hand-made statements; this is for reading them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "messages")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    pub key_id: Uuid,
    pub agent_id: Uuid,
    pub agent_version: i32,
    pub channel: String,
    pub lane: String,
    pub status: String,
    /// The turns as JSON.
    pub prompt: String,
    pub content: Option<String>,
    pub model: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub usage_estimated: bool,
    pub credits_charged: i64,
    pub attempts: i64,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub error_retryable: Option<bool>,
    pub conversation_id: Option<Uuid>,
    pub batch_id: Option<Uuid>,
    pub batch_line: Option<i32>,
    pub custom_id: Option<String>,
    pub metadata: Option<String>,
    pub retry_of: Option<Uuid>,
    pub new_chat: bool,
    pub created_at: i64,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub expires_at: Option<i64>,
    /// A `Callback` as JSON.
    pub callback: Option<String>,
    pub purged_at: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
