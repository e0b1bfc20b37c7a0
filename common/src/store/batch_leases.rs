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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        domain::{batch::BatchStatus, ids::AccountId},
        store::testing::{cancelled, completed, failed, lines, new_batch, on_each_database, open},
    };

    #[tokio::test]
    async fn a_batch_is_one_gateways_until_its_lease_is_over() {
        on_each_database(async |store| {
            let new = new_batch(AccountId::new(), 5);
            let (first, second, now) = (GatewayId::new(), GatewayId::new(), Millis::now());
            let at = |seconds| now.plus(Duration::from_secs(seconds));
            store.open_batch(&new, first, at(10), u64::MAX).await.expect("a batch");
            let take = async |at, until| store.take_batch_over(new.id, second, at, until).await.expect("an answer");
            let renew = async |owner, until| store.renew_batch(new.id, owner, until).await.expect("an answer");
            let enqueued = async |owner| store.batch_enqueued(new.id, owner, at(40)).await.expect("an answer");
            assert_eq!(take(at(9), at(20)).await, None);
            assert_eq!((renew(first, at(15)).await, renew(second, at(99)).await), (Lease::Held, Lease::Lost));
            assert_eq!(take(at(14), at(20)).await, None);
            assert_eq!(take(at(15), at(30)).await, Some(new.slot));
            assert_eq!((renew(first, at(99)).await, renew(second, at(31)).await), (Lease::Lost, Lease::Held));
            assert_eq!(enqueued(first).await, None);
            let batch = enqueued(second).await.expect("its own");
            assert_eq!((batch.status, batch.enqueued_at), (BatchStatus::InProgress, Some(at(40))));
            assert_eq!(enqueued(second).await, Some(batch), "also when the first answer was lost");
            assert_eq!(take(at(99), at(100)).await, None);
            assert_eq!(renew(second, at(99)).await, Lease::Lost);
        })
        .await;
    }

    #[tokio::test]
    async fn a_batch_that_was_stopped_meanwhile_ends_when_its_gateway_has_noticed() {
        on_each_database(async |store| {
            let new = new_batch(AccountId::new(), 3);
            let owner = GatewayId::new();
            open(&store, &new, owner).await;
            store.finish(&[completed(&lines(&new, [1])[0], "done")]).await.expect("to finish");
            let now = Millis::now();
            let stopped = store.cancel_batch(new.id, now).await.expect("an answer").expect("it was open");
            assert_eq!((stopped.status, stopped.completed_at), (BatchStatus::Cancelling, None));
            assert_eq!((stopped.counts.completed, stopped.counts.cancelled), (1, 2));
            let again = store.cancel_batch(new.id, now).await.expect("an answer");
            assert_eq!(again.as_ref(), Some(&stopped));
            assert_eq!(store.renew_batch(new.id, owner, now).await.expect("an answer"), Lease::Stopped);
            let ended = store.batch_enqueued(new.id, owner, now).await.expect("an answer").expect("the batch");
            assert_eq!((ended.status, ended.enqueued_at), (BatchStatus::Cancelled, None));
            assert_eq!((ended.completed_at, ended.counts), (Some(now), stopped.counts));
            assert_eq!(store.cancel_batch(new.id, now).await.expect("an answer"), None);
            assert_eq!(store.renew_batch(new.id, owner, now).await.expect("an answer"), Lease::Stopped);
        })
        .await;
    }

    #[tokio::test]
    async fn a_batch_whose_lines_have_all_ended_is_completed_when_the_last_one_is_on_the_queue() {
        on_each_database(async |store| {
            let new = new_batch(AccountId::new(), 3);
            let (owner, now) = (GatewayId::new(), Millis::now());
            open(&store, &new, owner).await;
            let all = lines(&new, 1..=3);
            let ends = [completed(&all[0], "done"), failed(&all[1]), cancelled(&all[2])];
            store.finish(&ends).await.expect("to finish");
            let batch = store.batch(new.id).await.expect("an answer").expect("the batch");
            assert_eq!((batch.status, batch.counts.unfinished()), (BatchStatus::Enqueuing, 0));
            let batch = store.batch_enqueued(new.id, owner, now).await.expect("an answer").expect("the batch");
            assert_eq!(batch.status, BatchStatus::Completed);
            assert_eq!((batch.enqueued_at, batch.completed_at), (Some(now), Some(now)));
        })
        .await;
    }
}
