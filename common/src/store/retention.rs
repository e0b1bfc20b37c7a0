//! Forgetting finished messages that are old, a few at a time.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Statement,
};
use uuid::Uuid;

use super::{
    connection::{Store, within_patience},
    entity::message::{Column, Entity},
    error::StoreError,
    listing::first_id,
};
use crate::domain::{ids::MessageId, time::Millis};

/// Only what has ended has a `completed_at`. Lines of batches are forgotten with their batch; what a webhook that is
/// still under way says is read when it is sent.
const FORGET: &str = "DELETE FROM messages WHERE id > $1 AND id <= $2 AND completed_at < $3 AND batch_id IS NULL \
     AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_deliveries.message_id = messages.id \
     AND webhook_deliveries.status = 'pending')";

/// What was looked at in one step, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Where the next step goes on.
    pub last: MessageId,
    /// How many messages are gone.
    pub forgotten: u64,
}

impl Store {
    /// Looks at the `most` oldest messages after `after`, and forgets those of them that ended before `before`; their
    /// entries in the ledger stay. `None` when there is none so old.
    ///
    /// A message's id tells when it was made, so that the primary key finds the old ones: no index of its own slows
    /// down the ends of jobs. Nobody waits for the look; a write waits for as long as one step's deletion takes.
    pub async fn forget_messages(
        &self,
        before: Millis,
        after: Option<MessageId>,
        most: u64,
    ) -> Result<Option<Looked>, StoreError> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        let look = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::Id.gt(after))
            .filter(Column::Id.lt(first_id(before)))
            .order_by_asc(Column::Id)
            .limit(most);
        within_patience(async {
            let ids: Vec<Uuid> = look.into_tuple().all(&self.db).await?;
            let Some(last) = ids.last().copied() else { return Ok(None) };
            let write = self.write().await?;
            let values = [after.into(), last.into(), before.0.into()];
            let forget = Statement::from_sql_and_values(write.get_database_backend(), FORGET, values);
            let forgotten = write.execute_raw(forget).await?.rows_affected();
            write.commit().await?;
            Ok(Some(Looked { last: MessageId(last), forgotten }))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc, time::Duration};

    use sea_orm::{ColumnTrait as _, QueryFilter as _};

    use super::*;
    use crate::{
        domain::{ids::AccountId, job::Job},
        store::{
            messages::Finish,
            testing::{account, calling_back, completed, endpoint, job, notifying, on_each_database, started},
        },
    };

    /// A job that was accepted `days` ago.
    fn old(days: u64, job: &Arc<Job>) -> Arc<Job> {
        let at = Millis::now().minus(Duration::from_hours(24 * days));
        let made = first_id(at).as_u128() | (job.id.0.as_u128() & u128::from(u64::MAX));
        Arc::new(Job { id: MessageId(Uuid::from_u128(made)), created_at: at, ..Job::clone(job) })
    }

    /// Its end, `days` ago.
    fn ended(days: u64, job: &Arc<Job>) -> Finish {
        let mut finish = completed(job, "done");
        finish.outcome.completed_at = Millis::now().minus(Duration::from_hours(24 * days));
        finish
    }

    /// Takes all steps of `most` messages; how many messages each step forgot.
    async fn forget(store: &Store, days: u64, most: u64) -> Vec<u64> {
        let before = Millis::now().minus(Duration::from_hours(24 * days));
        let (mut after, mut steps) = (None, Vec::new());
        while let Some(looked) = store.forget_messages(before, after, most).await.expect("a step") {
            after = Some(looked.last);
            steps.push(looked.forgotten);
        }
        steps
    }

    async fn left(store: &Store) -> BTreeSet<MessageId> {
        Entity::find().all(&store.db).await.expect("rows").into_iter().map(|row| MessageId(row.id)).collect()
    }

    #[tokio::test]
    async fn what_ended_long_ago_goes_in_steps_and_its_bill_stays() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let ends: Vec<_> = (0..7).map(|n| ended(40 + n, &old(40 + n, &job(owner)))).collect();
            store.finish(&ends).await.expect("to finish");
            let young: Vec<_> = (0..3).map(|_| completed(&job(owner), "done")).collect();
            store.finish(&young).await.expect("to finish");
            assert_eq!(forget(&store, 100, 3).await, Vec::<u64>::new());
            assert_eq!(forget(&store, 30, 3).await, [3, 3, 1]);
            assert_eq!(left(&store).await, young.iter().map(|finish| finish.job.id).collect());
            assert_eq!(forget(&store, 30, 3).await, Vec::<u64>::new());
            assert_eq!(store.ledger(owner, 99).await.expect("the ledger").len(), 10);
            assert_eq!(store.balance(owner).await.expect("a balance"), -70);
        })
        .await;
    }

    #[tokio::test]
    async fn what_has_not_ended_or_only_lately_stays_however_old_it_is() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let (queued, begun) = (old(50, &job(owner)), old(49, &job(owner)));
            store.mark_queued(std::slice::from_ref(&queued)).await.expect("its row");
            store.mark_started(&[started(&begun)]).await.expect("its row");
            let lately = ended(1, &old(48, &job(owner)));
            let long_ago = ended(47, &old(47, &job(owner)));
            store.finish(&[lately.clone(), long_ago]).await.expect("to finish");
            assert_eq!(forget(&store, 30, 2).await, [0, 1]);
            assert_eq!(left(&store).await, [queued.id, begun.id, lately.job.id].into());
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_batch_or_a_webhook_still_needs_stays() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            endpoint(&store, owner, &[]).await;
            let told = ended(40, &old(40, &notifying(owner)));
            let calls_back = ended(41, &old(41, &calling_back(owner, "https://example.com/done")));
            let line = ended(42, &old(42, &job(owner)));
            store.finish(&[told.clone(), calls_back.clone(), line.clone()]).await.expect("to finish");
            let of_batch = Entity::update_many()
                .col_expr(Column::BatchId, sea_orm::sea_query::Expr::value(Uuid::nil()))
                .filter(Column::Id.eq(line.job.id.0));
            of_batch.exec(&store.db).await.expect("to make it a line");
            assert_eq!(forget(&store, 30, 9).await, [0]);
            store
                .db
                .execute_unprepared("UPDATE webhook_deliveries SET status = 'delivered'")
                .await
                .expect("to deliver");
            assert_eq!(forget(&store, 30, 9).await, [2]);
            assert_eq!(left(&store).await, [line.job.id].into());
        })
        .await;
    }
}
