//! Rows of deliveries: new ones, and reading them back.

use std::{collections::BTreeSet, time::Duration};

use sea_orm::{ConnectionTrait as _, Statement, Value};
use uuid::Uuid;

use super::{
    entity::webhook_delivery,
    error::StoreError,
    sql::{self, Insert},
    stored,
    targets::{self, TargetId, Urgency},
    write::Write,
};
use crate::domain::{
    delivery::{Delivery, DeliveryStatus},
    event::EventKind,
    ids::{AccountId, BatchId, DeliveryId, EndpointId, MessageId},
    time::Millis,
};

const NEW: Insert = Insert {
    head: "webhook_deliveries (id, account_id, message_id, event, endpoint_id, target_id, callback_url, status, \
           tries, step, next_at, created_at)",
    columns: 12,
    tail: "ON CONFLICT (message_id, event, target_id) DO NOTHING",
};

/// How long the news of a cancelled message wait: what its run has used is known, and charged, once that has stopped.
const CANCELLED_PAUSE: Duration = Duration::from_secs(2);

const WAITING: &str = "message_id = $1 AND event = $2 AND status = 'pending' AND tries = 0 AND next_at > $3";

/// A delivery to be.
pub(super) struct NewDelivery {
    pub(super) account: AccountId,
    /// The message or batch that the event is of, which have ids of their own; none for a test.
    pub(super) of: Option<Uuid>,
    pub(super) event: EventKind,
    pub(super) target: TargetId,
    pub(super) endpoint: Option<EndpointId>,
    pub(super) callback_url: Option<String>,
    /// When the event happened.
    pub(super) at: Millis,
}

impl NewDelivery {
    /// When it is due: at once, unless more about its message will be known in a moment.
    pub(super) fn due(&self) -> Millis {
        if self.event == EventKind::MessageCancelled { self.at.plus(CANCELLED_PAUSE) } else { self.at }
    }
}

/// Makes the news of a cancelled message due at `now`, as all is known about it.
pub(super) async fn hurry(write: &Write, message: MessageId, now: Millis) -> Result<(), StoreError> {
    let run = |text: String| {
        let values: [Value; 3] = [message.0.into(), EventKind::MessageCancelled.name().into(), now.0.into()];
        Statement::from_sql_and_values(write.get_database_backend(), text, values)
    };
    let rows = write.query_all_raw(run(format!("SELECT target_id FROM webhook_deliveries WHERE {WAITING}"))).await?;
    let targets = rows.iter().map(|row| row.try_get_by_index(0).map(TargetId)).collect::<Result<BTreeSet<_>, _>>()?;
    // The receivers before their deliveries, as everywhere.
    targets::wake(write, targets, now, Urgency::InTurn).await?;
    write.execute_raw(run(format!("UPDATE webhook_deliveries SET next_at = $3 WHERE {WAITING}"))).await?;
    Ok(())
}

/// Writes new deliveries.
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
                delivery.of.into(),
                delivery.event.name().into(),
                delivery.endpoint.map(|id| id.0).into(),
                delivery.target.0.into(),
                sql::text(delivery.callback_url.as_deref()),
                DeliveryStatus::Pending.name().into(),
                0.into(),
                0.into(),
                delivery.due().0.into(),
                delivery.at.0.into(),
            ]);
        }
        write.execute_raw(NEW.statement(write.get_database_backend(), values)).await?;
    }
    Ok(ids)
}

/// The delivery that `row` tells of.
pub(super) fn from_row(row: webhook_delivery::Model) -> Result<Delivery, StoreError> {
    let event: EventKind = stored::parsed("event", &row.event)?;
    Ok(Delivery {
        id: DeliveryId(row.id),
        account: AccountId(row.account_id),
        message: row.message_id.filter(|_| event.is_of_message()).map(MessageId),
        batch: row.message_id.filter(|_| event.is_of_batch()).map(BatchId),
        event,
        endpoint: row.endpoint_id.map(EndpointId),
        status: stored::parsed("status", &row.status)?,
        tries: stored::count("tries", row.tries.into())?,
        step: stored::count("step", row.step.into())?,
        next_at: Millis(row.next_at),
        created_at: Millis(row.created_at),
    })
}
