//! Rows of deliveries: new ones, and reading them back.

use sea_orm::{ConnectionTrait as _, Value};

use super::{
    entity::webhook_delivery,
    error::StoreError,
    sql::{self, Insert},
    stored,
    targets::TargetId,
    write::Write,
};
use crate::domain::{
    delivery::{Delivery, DeliveryStatus},
    event::EventKind,
    ids::{AccountId, DeliveryId, EndpointId, MessageId},
    time::Millis,
};

const NEW: Insert = Insert {
    head: "webhook_deliveries (id, account_id, message_id, event, endpoint_id, target_id, callback_url, status, \
           tries, step, next_at, created_at)",
    columns: 12,
    tail: "ON CONFLICT (message_id, event, target_id) DO NOTHING",
};

/// A delivery to be.
pub(super) struct NewDelivery {
    pub(super) account: AccountId,
    pub(super) message: Option<MessageId>,
    pub(super) event: EventKind,
    pub(super) target: TargetId,
    pub(super) endpoint: Option<EndpointId>,
    pub(super) callback_url: Option<String>,
    /// When the event happened.
    pub(super) at: Millis,
}

/// Writes new deliveries, due at once.
pub(super) async fn insert(write: &Write, new: &[NewDelivery]) -> Result<Vec<DeliveryId>, StoreError> {
    let mut ids = Vec::with_capacity(new.len());
    for portion in sql::portions(new.len()) {
        let mut values: Vec<Value> = Vec::with_capacity(portion.len() * NEW.columns);
        for delivery in &new[portion] {
            let id = DeliveryId::new();
            ids.push(id);
            values.extend([
                id.0.into(),
                delivery.account.0.into(),
                delivery.message.map(|id| id.0).into(),
                delivery.event.name().into(),
                delivery.endpoint.map(|id| id.0).into(),
                delivery.target.0.into(),
                sql::text(delivery.callback_url.as_deref()),
                DeliveryStatus::Pending.name().into(),
                0.into(),
                0.into(),
                delivery.at.0.into(),
                delivery.at.0.into(),
            ]);
        }
        write.execute_raw(NEW.statement(write.get_database_backend(), values)).await?;
    }
    Ok(ids)
}

/// The delivery that `row` tells of.
pub(super) fn from_row(row: webhook_delivery::Model) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        id: DeliveryId(row.id),
        account: AccountId(row.account_id),
        message: row.message_id.map(MessageId),
        event: stored::parsed("event", &row.event)?,
        endpoint: row.endpoint_id.map(EndpointId),
        status: stored::parsed("status", &row.status)?,
        tries: stored::count("tries", row.tries.into())?,
        step: stored::count("step", row.step.into())?,
        next_at: Millis(row.next_at),
        created_at: Millis(row.created_at),
    })
}
