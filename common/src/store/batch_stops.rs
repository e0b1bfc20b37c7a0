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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ids::{AccountId, GatewayId},
        store::{
            batches::NewBatch,
            testing::{completed, enqueued, lines, new_batch, on_each_database},
        },
    };

    #[tokio::test]
    async fn what_is_left_half_on_the_queue_is_cancelled_after_a_while() {
        on_each_database(async |store| {
            let (owner, now) = (AccountId::new(), Millis::now());
            let [lost, kept, stopped] = std::array::from_fn(|_| new_batch(owner, 4));
            let resumable = NewBatch { keyed: true, ..new_batch(owner, 4) };
            for (batch, until) in [(&lost, now), (&kept, now.plus(RESUME)), (&stopped, now), (&resumable, now)] {
                store.open_batch(batch, GatewayId::new(), until, u64::MAX).await.expect("a batch");
            }
            let whole = new_batch(owner, 4);
            enqueued(&store, &whole).await;
            store.finish(&[completed(&lines(&lost, [1])[0], "done")]).await.expect("to finish");
            store.cancel_batch(stopped.id, now).await.expect("an answer").expect("it was open");

            let abandoned = async |now| {
                let mut ids = store.abandon_batches(now).await.expect("a sweep");
                ids.sort_unstable();
                ids
            };
            assert_eq!(abandoned(now.minus(RESUME)).await, []);
            let mut wanted = [lost.id, stopped.id];
            wanted.sort_unstable();
            assert_eq!(abandoned(now).await, wanted);
            assert_eq!(abandoned(now).await, []);
            let batch = store.batch(lost.id).await.expect("an answer").expect("the batch");
            assert_eq!((batch.status, batch.completed_at), (BatchStatus::Cancelled, Some(now)));
            assert_eq!((batch.counts.completed, batch.counts.cancelled), (1, 3));
            let mut late = [kept.id, resumable.id];
            late.sort_unstable();
            assert_eq!(abandoned(now.plus(RESUME)).await, late);
            let whole = store.batch(whole.id).await.expect("an answer").expect("the batch");
            assert_eq!(whole.status, BatchStatus::InProgress);
        })
        .await;
    }

    #[tokio::test]
    async fn a_worker_learns_which_batches_were_stopped() {
        on_each_database(async |store| {
            let new: Vec<_> = (0..70).map(|_| new_batch(AccountId::new(), 1)).collect();
            for batch in &new {
                enqueued(&store, batch).await;
            }
            let stopped = [new[3].id, new[69].id];
            for id in stopped {
                store.cancel_batch(id, Millis::now()).await.expect("an answer").expect("it was open");
            }
            let ids: Vec<_> = new.iter().map(|batch| batch.id).chain([BatchId::new()]).collect();
            assert_eq!(store.stopped_batches(&ids).await.expect("an answer"), HashSet::from(stopped));
            assert_eq!(store.stopped_batches(&[]).await.expect("an answer"), HashSet::new());
        })
        .await;
    }

    #[tokio::test]
    async fn a_sweep_that_finds_nothing_is_one_indexed_read() {
        on_each_database(async |store| {
            enqueued(&store, &new_batch(AccountId::new(), 1)).await;
            let before = store.queries();
            store.abandon_batches(Millis::now()).await.expect("a sweep");
            assert_eq!(store.queries(), before + 1);
        })
        .await;
    }
}
