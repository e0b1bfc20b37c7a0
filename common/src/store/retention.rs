//! Forgetting finished messages and batches that are old, a few rows at a time.

use std::time::{Duration, Instant};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Statement, Value,
};
use uuid::Uuid;

use super::{
    connection::{Store, within_patience},
    entity::{
        batch_result,
        message::{Column, Entity},
    },
    error::StoreError,
    listing::first_id,
    write::Write,
};
use crate::domain::{ids::MessageId, time::Millis};

/// Only what has ended has a `completed_at`. Lines are forgotten with their batch; what a webhook that is still under
/// way says is read when it is sent.
const FORGET: &str = "DELETE FROM messages WHERE id > $1 AND id <= $2 AND completed_at < $3 \
     AND (batch_id IS NULL OR NOT EXISTS (SELECT 1 FROM batches WHERE batches.id = messages.batch_id)) \
     AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_deliveries.message_id = messages.id \
     AND webhook_deliveries.status = 'pending')";

const OLD_BATCH: &str = "SELECT id FROM batches WHERE id < $1 AND completed_at < $2 \
     AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_deliveries.message_id = batches.id \
     AND webhook_deliveries.status = 'pending') ORDER BY id LIMIT 1";

/// A line whose own webhook is still under way goes later, as the messages of no batch do.
const FORGET_LINES: &str = "DELETE FROM messages WHERE id IN \
     (SELECT message_id FROM batch_results WHERE batch_id = $1 AND seq <= $2) \
     AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_deliveries.message_id = messages.id \
     AND webhook_deliveries.status = 'pending')";

const FORGET_RESULTS: &str = "DELETE FROM batch_results WHERE batch_id = $1 AND seq <= $2";

const FORGET_BATCH: &str = "DELETE FROM batches WHERE id = $1";

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// How many messages are gone.
    pub messages: u64,
    /// How long the deletion took, without its commit: that is what fewer at a time would make shorter.
    pub took: Duration,
}

impl Store {
    /// Looks at the `most` oldest messages after `after`, and forgets those of them that ended before `before`; their
    /// entries in the ledger stay. Gives the last one that was looked at; `None` when there is none so old.
    ///
    /// A message's id tells when it was made, so that the primary key finds the old ones: no index of its own slows
    /// down the ends of jobs. Nobody waits for the look; a write waits for as long as one step's deletion takes.
    pub async fn forget_messages(
        &self,
        before: Millis,
        after: Option<MessageId>,
        most: u64,
    ) -> Result<Option<(MessageId, Forgotten)>, StoreError> {
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
            let begun = Instant::now();
            let messages = run(&write, FORGET, vec![after.into(), last.into(), before.0.into()]).await?;
            let took = begun.elapsed();
            write.commit().await?;
            Ok(Some((MessageId(last), Forgotten { messages, took })))
        })
        .await
    }

    /// Forgets up to `most` lines of the oldest batch that ended before `before`, with their results; and with the last
    /// of them the batch. `None` when there is no such batch.
    pub async fn forget_lines(&self, before: Millis, most: u64) -> Result<Option<Forgotten>, StoreError> {
        use batch_result::{Column, Entity};
        within_patience(async {
            let values: [Value; 2] = [first_id(before).into(), before.0.into()];
            let old = Statement::from_sql_and_values(self.db.get_database_backend(), OLD_BATCH, values);
            let Some(row) = self.db.query_one_raw(old).await? else { return Ok(None) };
            let batch: Uuid = row.try_get_by_index(0)?;
            let look = Entity::find().select_only().column(Column::Seq).filter(Column::BatchId.eq(batch));
            let seqs: Vec<i64> = look.order_by_asc(Column::Seq).limit(most).into_tuple().all(&self.db).await?;
            let write = self.write().await?;
            let begun = Instant::now();
            let messages = if let Some(last) = seqs.last() {
                let messages = run(&write, FORGET_LINES, vec![batch.into(), (*last).into()]).await?;
                run(&write, FORGET_RESULTS, vec![batch.into(), (*last).into()]).await?;
                messages
            } else {
                run(&write, FORGET_BATCH, vec![batch.into()]).await?;
                0
            };
            let took = begun.elapsed();
            write.commit().await?;
            Ok(Some(Forgotten { messages, took }))
        })
        .await
    }
}

/// How many rows `text` changed.
async fn run(write: &Write, text: &str, values: Vec<Value>) -> Result<u64, StoreError> {
    let statement = Statement::from_sql_and_values(write.get_database_backend(), text, values);
    Ok(write.execute_raw(statement).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::{
        domain::{
            batch::{BatchLine, BatchStatus},
            event::EventKind,
            ids::{AccountId, BatchId, GatewayId, KeyId},
            job::Job,
        },
        store::{
            batches::NewBatch,
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
        while let Some((last, step)) = store.forget_messages(before, after, most).await.expect("a step") {
            after = Some(last);
            steps.push(step.messages);
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
    async fn what_a_webhook_still_needs_stays() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            endpoint(&store, owner, &[]).await;
            let told = ended(40, &old(40, &notifying(owner)));
            let calls_back = ended(41, &old(41, &calling_back(owner, "https://example.com/done")));
            store.finish(&[told, calls_back]).await.expect("to finish");
            assert_eq!(forget(&store, 30, 9).await, [0]);
            deliver_all(&store).await;
            assert_eq!(forget(&store, 30, 9).await, [2]);
        })
        .await;
    }

    async fn deliver_all(store: &Store) {
        store.db.execute_unprepared("UPDATE webhook_deliveries SET status = 'delivered'").await.expect("to deliver");
    }

    /// A batch of `lines` that all ended; the batch itself did so `days` ago.
    async fn batch(store: &Store, owner: AccountId, lines: u32, days: u64) -> BatchId {
        let at = Millis::now().minus(Duration::from_hours(24 * 40));
        let id = BatchId(Uuid::from_u128(first_id(at).as_u128() | u128::from(days)));
        let (key, gateway) = (KeyId::new(), GatewayId::new());
        let new = NewBatch {
            id,
            account: owner,
            key,
            total: lines,
            skipped: 0,
            slot: 0,
            keyed: false,
            retry_of: None,
            notifies: true,
            created_at: at,
        };
        store.open_batch(&new, gateway, Millis::now().plus(Duration::from_mins(1)), 1_000).await.expect("a batch");
        let line = |number| {
            let line = BatchLine { batch: id, line: number, custom_id: number.to_string() };
            ended(
                40,
                &Arc::new(Job { id: line.message(), batch: Some(line), created_at: at, ..Job::clone(&job(owner)) }),
            )
        };
        store.finish(&(1..=lines).map(line).collect::<Vec<_>>()).await.expect("to finish");
        let enqueued = store.batch_enqueued(id, gateway, Millis::now().minus(Duration::from_hours(24 * days))).await;
        assert_eq!(enqueued.expect("an answer").expect("the batch").status, BatchStatus::Completed);
        id
    }

    #[tokio::test]
    async fn a_batch_goes_with_all_its_lines_once_it_is_old_itself() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            endpoint(&store, owner, &[EventKind::BatchCompleted]).await;
            let (old, young) = (batch(&store, owner, 5, 39).await, batch(&store, owner, 2, 1).await);
            let before = Millis::now().minus(Duration::from_hours(24 * 30));
            assert_eq!(forget(&store, 30, 9).await, [0], "lines are not forgotten one by one");
            let step = async || store.forget_lines(before, 2).await.expect("a step").map(|step| step.messages);
            assert_eq!(step().await, None, "its webhook is under way");
            deliver_all(&store).await;
            assert_eq!([step().await, step().await, step().await], [Some(2), Some(2), Some(1)]);
            assert!(store.batch_results(old, 0, None, 9).await.expect("results").is_empty());
            assert!(store.batch(old).await.expect("an answer").is_some(), "until nothing hangs on it");
            assert_eq!([step().await, step().await], [Some(0), None]);
            assert!(store.batch(old).await.expect("an answer").is_none());
            assert_eq!(store.batch_results(young, 0, None, 9).await.expect("results").len(), 2);
            assert_eq!((left(&store).await.len(), store.ledger(owner, 9).await.expect("the ledger").len()), (2, 7));
        })
        .await;
    }

    #[tokio::test]
    async fn a_line_that_outlives_its_batch_goes_by_itself() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            batch(&store, owner, 1, 39).await;
            store.db.execute_unprepared("DELETE FROM batches").await.expect("to lose it");
            assert_eq!(forget(&store, 30, 9).await, [1]);
        })
        .await;
    }
}
