//! Stopping batches: by their callers, and those that nobody puts on the queue any more.

use std::{collections::HashSet, time::Duration};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, FromQueryResult as _, QueryFilter as _, QuerySelect as _,
    Statement, Value,
};
use uuid::Uuid;

use super::{
    batches,
    caused::{self, Event},
    connection::{Store, within_patience},
    entity::batch::{Column, Entity, Model},
    error::StoreError,
    sql,
};
use crate::domain::{
    batch::{Batch, BatchStatus},
    ids::BatchId,
    time::Millis,
};

/// How long a batch that was given up half on the queue waits for its caller to send it again.
const RESUME: Duration = Duration::from_mins(15);

const CANCELLED: &str = "UPDATE batches SET cancelled = total - completed - failed, \
     completed_at = CASE WHEN status = 'in_progress' THEN $1 END, \
     status = CASE WHEN status = 'in_progress' THEN 'cancelled' ELSE 'cancelling' END \
     WHERE id = $2 AND status IN ('enqueuing', 'in_progress') RETURNING *";

const ABANDONED: &str = "UPDATE batches SET cancelled = total - completed - failed, completed_at = $1, \
     status = 'cancelled', lease_until = NULL WHERE id = $2 AND status IN ('enqueuing', 'cancelling') \
     AND lease_until <= CASE WHEN keyed AND status = 'enqueuing' THEN $3 ELSE $1 END RETURNING *";

impl Store {
    /// Stops a batch: all that has not ended counts as cancelled from now on, however it ends. `None` when the batch
    /// had ended. Stopping it again is harmless.
    pub async fn cancel_batch(&self, id: BatchId, now: Millis) -> Result<Option<Batch>, StoreError> {
        within_patience(async {
            if let Some(stopped) = self.stop_batch(CANCELLED, vec![now.0.into(), id.0.into()]).await? {
                return Ok(Some(stopped));
            }
            let found = batches::find(&self.db, id).await?;
            Ok(found.filter(|batch| batch.status == BatchStatus::Cancelling))
        })
        .await
    }

    /// Cancels batches that their gateways have left half on the queue, or stopped and not ended; which those are. One
    /// that its caller can resume has some more time for that.
    pub async fn abandon_batches(&self, now: Millis) -> Result<Vec<BatchId>, StoreError> {
        let left = Entity::find()
            .select_only()
            .column(Column::Id)
            // In the words of the index: SQLite does not look into parameters.
            .filter(sea_orm::sea_query::Expr::cust("status IN ('enqueuing', 'cancelling')"))
            .filter(Column::LeaseUntil.lte(now.0));
        within_patience(async {
            let mut abandoned = Vec::new();
            for id in left.into_tuple::<Uuid>().all(&self.db).await? {
                let values = vec![now.0.into(), id.into(), now.minus(RESUME).0.into()];
                abandoned.extend(self.stop_batch(ABANDONED, values).await?.map(|batch| batch.id));
            }
            Ok(abandoned)
        })
        .await
    }

    /// The batch that `text` stopped, if it did.
    async fn stop_batch(&self, text: &str, values: Vec<Value>) -> Result<Option<Batch>, StoreError> {
        let write = self.write().await?;
        let statement = Statement::from_sql_and_values(write.get_database_backend(), text, values);
        let Some(row) = write.query_one_raw(statement).await? else { return Ok(None) };
        let row = Model::from_query_result(&row, "")?;
        caused::insert_deliveries(&write, &[], Event::of_batch(&row).as_slice()).await?;
        write.commit().await?;
        batches::from_row(row).map(Some)
    }

    /// Those of `ids` whose lines are not to be run.
    pub async fn stopped_batches(&self, ids: &[BatchId]) -> Result<HashSet<BatchId>, StoreError> {
        let is_stopped = BatchStatus::ALL.into_iter().filter(|status| status.is_stopped()).map(BatchStatus::name);
        let stopped = Entity::find().select_only().column(Column::Id).filter(Column::Status.is_in(is_stopped));
        within_patience(async {
            let mut found = HashSet::new();
            for portion in sql::portions(ids.len()) {
                let select = stopped.clone().filter(Column::Id.is_in(ids[portion].iter().map(|id| id.0)));
                found.extend(select.into_tuple::<Uuid>().all(&self.db).await?.into_iter().map(BatchId));
            }
            Ok(found)
        })
        .await
    }
}
