//! Who puts the lines of a batch on the queue: one gateway at a time, for as long as it says that it still does.

use sea_orm::{ConnectionTrait as _, EntityTrait as _, FromQueryResult as _, Statement, Value};

use super::{
    batches,
    caused::{self, Event},
    connection::{Store, within_patience},
    entity::batch::{Entity, Model},
    error::StoreError,
};
use crate::domain::{
    batch::Batch,
    ids::{BatchId, GatewayId},
    time::Millis,
};

const TAKEN: &str = "UPDATE batches SET lease_owner = $1, lease_until = $2 \
     WHERE id = $3 AND status = 'enqueuing' AND lease_until <= $4 RETURNING slot";

const RENEWED: &str = "UPDATE batches SET lease_until = $1 WHERE id = $2 AND lease_owner = $3 AND status = 'enqueuing'";

const ENQUEUED: &str = "UPDATE batches SET lease_until = NULL, \
     enqueued_at = CASE WHEN status = 'enqueuing' THEN $1 ELSE enqueued_at END, \
     completed_at = CASE WHEN status = 'cancelling' OR completed + failed + cancelled >= total THEN $1 END, \
     status = CASE WHEN status = 'cancelling' THEN 'cancelled' \
     WHEN completed + failed + cancelled >= total THEN 'completed' ELSE 'in_progress' END \
     WHERE id = $2 AND lease_owner = $3 AND status IN ('enqueuing', 'cancelling') RETURNING *";

/// Whether a gateway may go on putting a batch on the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It may.
    Held,
    /// The batch was stopped: [`Store::batch_enqueued`] ends it.
    Stopped,
    /// Another gateway does, or the batch is on the queue already.
    Lost,
}

impl Store {
    /// Makes `owner` the gateway that puts the batch on the queue, until `until`, when it is still to be put there and
    /// nobody does; gives the slot that it stands in.
    pub async fn take_batch_over(
        &self,
        id: BatchId,
        owner: GatewayId,
        now: Millis,
        until: Millis,
    ) -> Result<Option<u8>, StoreError> {
        let values = [owner.0.into(), until.0.into(), id.0.into(), now.0.into()];
        within_patience(async {
            let write = self.write().await?;
            let statement = Statement::from_sql_and_values(write.get_database_backend(), TAKEN, values);
            let Some(row) = write.query_one_raw(statement).await? else { return Ok(None) };
            let slot: i32 = row.try_get_by_index(0)?;
            write.commit().await?;
            u8::try_from(slot).map(Some).map_err(|error| StoreError::unreadable("slot", error))
        })
        .await
    }

    /// Keeps the batch for `owner` until `until`.
    pub async fn renew_batch(&self, id: BatchId, owner: GatewayId, until: Millis) -> Result<Lease, StoreError> {
        let values: [Value; 3] = [until.0.into(), id.0.into(), owner.0.into()];
        within_patience(async {
            let write = self.write().await?;
            let statement = Statement::from_sql_and_values(write.get_database_backend(), RENEWED, values);
            if write.execute_raw(statement).await?.rows_affected() > 0 {
                write.commit().await?;
                return Ok(Lease::Held);
            }
            let found = Entity::find_by_id(id.0).one(&*write).await?.filter(|row| row.lease_owner == Some(owner.0));
            let stopped = found.map(|row| batches::from_row(row).map(|batch| batch.status.is_stopped())).transpose()?;
            Ok(if stopped == Some(true) { Lease::Stopped } else { Lease::Lost })
        })
        .await
    }

    /// Notes that `owner` puts no more of the batch on the queue: all lines are there, or it was stopped. The batch as
    /// it stands then; `None` when another gateway has taken it over. Saying it again is harmless.
    pub async fn batch_enqueued(
        &self,
        id: BatchId,
        owner: GatewayId,
        now: Millis,
    ) -> Result<Option<Batch>, StoreError> {
        let values: [Value; 3] = [now.0.into(), id.0.into(), owner.0.into()];
        within_patience(async {
            let write = self.write().await?;
            let statement = Statement::from_sql_and_values(write.get_database_backend(), ENQUEUED, values);
            let Some(row) = write.query_one_raw(statement).await? else {
                let found = Entity::find_by_id(id.0).one(&*write).await?;
                return found.filter(|row| row.lease_owner == Some(owner.0)).map(batches::from_row).transpose();
            };
            let row = Model::from_query_result(&row, "")?;
            caused::insert_deliveries(&write, &[], Event::of_batch(&row).as_slice()).await?;
            write.commit().await?;
            batches::from_row(row).map(Some)
        })
        .await
    }
}
