//! The table `batches`.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "batches")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    pub key_id: Uuid,
    pub status: String,
    pub total: i32,
    pub completed: i32,
    pub failed: i32,
    pub cancelled: i32,
    pub skipped: i32,
    /// Where in the queue its lines stand.
    pub slot: i32,
    /// What the next line that ends gets as its place in the results.
    pub next_seq: i64,
    /// Whether its caller can resume it.
    pub keyed: bool,
    /// Whether its account had endpoints when it was accepted.
    pub notifies: bool,
    pub retry_of: Option<Uuid>,
    /// The gateway that puts its lines on the queue, or did.
    pub lease_owner: Option<Uuid>,
    pub lease_until: Option<i64>,
    pub created_at: i64,
    pub enqueued_at: Option<i64>,
    pub completed_at: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
