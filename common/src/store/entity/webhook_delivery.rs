//! The table `webhook_deliveries`.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_deliveries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    /// Of the message, or of the batch when the event is one's.
    pub message_id: Option<Uuid>,
    pub event: String,
    /// Absent for the callback of a message.
    pub endpoint_id: Option<Uuid>,
    pub target_id: Uuid,
    /// Absent for an endpoint.
    pub callback_url: Option<String>,
    pub status: String,
    pub tries: i32,
    pub step: i32,
    pub next_at: i64,
    pub created_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
