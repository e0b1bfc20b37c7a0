//! The table `webhook_targets`: receivers, and when something is due for each.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_targets")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// When it may be taken; absent while nothing is pending for it. Never before `held_until`.
    pub ready_at: Option<i64>,
    /// The end of the present lease, or of a pause after a failure.
    pub held_until: i64,
    /// Who has it; absent when nobody has.
    pub claim: Option<Uuid>,
    /// Whether it has ever taken anything.
    pub proven: bool,
    /// Whether the last try failed.
    pub failing: bool,
    /// How many tries have failed since the last success.
    pub failures: i32,
    /// When the first of these was.
    pub failing_since: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
