//! Batches: making one, reading them, and how much of an account's work has not ended.

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Statement, sea_query::OnConflict,
};

use super::{
    connection::{Store, within_patience},
    entity::batch::{ActiveModel, Column, Entity, Model},
    error::StoreError,
    stored,
    write::Write,
};
use crate::domain::{
    batch::{Batch, BatchCounts, BatchStatus},
    ids::{AccountId, BatchId, GatewayId, KeyId},
    time::Millis,
};

const UNFINISHED_LINES: &str = "SELECT CAST(COALESCE(SUM(total - completed - failed - cancelled), 0) AS BIGINT) \
     FROM batches WHERE account_id = $1 AND status IN ('enqueuing', 'in_progress')";

/// `status <> 'completed'` says it in the words of the index.
const UNFINISHED_OTHERS: &str = "SELECT COUNT(*) FROM messages WHERE account_id = $1 \
     AND status IN ('queued', 'in_progress') AND status <> 'completed' AND batch_id IS NULL";

/// A batch to be.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Its identifier.
    pub id: BatchId,
    /// Whose it is.
    pub account: AccountId,
    /// With which key it came in.
    pub key: KeyId,
    /// How many lines it has.
    pub total: u32,
    /// How many lines of the body made no sense and were left out on demand.
    pub skipped: u32,
    /// Where in the queue its lines stand.
    pub slot: u8,
    /// Whether its caller can resume it.
    pub keyed: bool,
    /// The batch whose lines without an answer it runs again.
    pub retry_of: Option<BatchId>,
    /// Whether the account had endpoints when it was accepted: its end then looks for them.
    pub notifies: bool,
    /// When it was accepted.
    pub created_at: Millis,
}

/// What came of making a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is there now, and its lines are to be put on the queue.
    New(Batch),
    /// It was there before.
    Known(Batch),
    /// The account has as much work as it may have.
    QueueFull {
        /// How many of its jobs have not ended.
        unfinished: u64,
    },
}

/// Which batches of an account are wanted; by default all.
#[derive(Clone, Debug, Default)]
pub struct BatchFilter {
    /// Those that stand there.
    pub status: Option<BatchStatus>,
    /// Those that came in with this key.
    pub key: Option<KeyId>,
    /// Those that are older than this one: where the page before ended.
    pub before: Option<BatchId>,
}

impl Store {
    /// Makes a batch whose lines `owner` puts on the queue, and which is its own until `until`; unless it is there, or
    /// the account would have more than `limit` jobs that have not ended.
    pub async fn open_batch(
        &self,
        new: &NewBatch,
        owner: GatewayId,
        until: Millis,
        limit: u64,
    ) -> Result<Opened, StoreError> {
        within_patience(async {
            if let Some(known) = find(&self.db, new.id).await? {
                return Ok(Opened::Known(known));
            }
            // Nobody waits for this look; what comes in meanwhile is not worth that.
            let others = count(&self.db, UNFINISHED_OTHERS, new.account).await?;
            let write = self.write().await?;
            take_turn(&write, new.account).await?;
            let unfinished = others + count(&*write, UNFINISHED_LINES, new.account).await?;
            if unfinished + u64::from(new.total) > limit {
                return Ok(Opened::QueueFull { unfinished });
            }
            let once = OnConflict::column(Column::Id).do_nothing().to_owned();
            let insert = Entity::insert(row_of(new, owner, until)?).on_conflict(once);
            let is_new = insert.exec_without_returning(&*write).await? > 0;
            let batch = find(&*write, new.id).await?.ok_or(StoreError::Missing("batch"))?;
            write.commit().await?;
            Ok(if is_new { Opened::New(batch) } else { Opened::Known(batch) })
        })
        .await
    }

    /// A batch, if there is one.
    pub async fn batch(&self, id: BatchId) -> Result<Option<Batch>, StoreError> {
        within_patience(find(&self.db, id)).await
    }

    /// The newest `limit` batches of the account that pass `filter`, newest first, and whether there are more.
    pub async fn batches(
        &self,
        account: AccountId,
        filter: &BatchFilter,
        limit: usize,
    ) -> Result<(Vec<Batch>, bool), StoreError> {
        let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut select =
            Entity::find().filter(Column::AccountId.eq(account.0)).order_by_desc(Column::Id).limit(one_more);
        if let Some(status) = filter.status {
            select = select.filter(Column::Status.eq(status.name()));
        }
        if let Some(key) = filter.key {
            select = select.filter(Column::KeyId.eq(key.0));
        }
        if let Some(id) = filter.before {
            select = select.filter(Column::Id.lt(id.0));
        }
        within_patience(async {
            let mut rows = select.all(&self.db).await?;
            let has_more = rows.len() > limit;
            rows.truncate(limit);
            Ok((rows.into_iter().map(from_row).collect::<Result<_, _>>()?, has_more))
        })
        .await
    }

    /// How many jobs of the account have not ended: lines of batches, and others that have a row.
    pub async fn unfinished(&self, account: AccountId) -> Result<u64, StoreError> {
        within_patience(async {
            let lines = count(&self.db, UNFINISHED_LINES, account).await?;
            Ok(lines + count(&self.db, UNFINISHED_OTHERS, account).await?)
        })
        .await
    }
}

/// Lets nobody else make a batch of this account until `write` is over. On SQLite nobody else writes at all.
async fn take_turn(write: &Write, account: AccountId) -> Result<(), StoreError> {
    let backend = write.get_database_backend();
    if backend != DbBackend::Sqlite {
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
        let values = [format!("batches of {account}").into()];
        write.query_one_raw(Statement::from_sql_and_values(backend, lock, values)).await?;
    }
    Ok(())
}

async fn count<C: ConnectionTrait>(db: &C, text: &str, account: AccountId) -> Result<u64, StoreError> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), text, [account.0.into()]);
    let row = db.query_one_raw(statement).await?.ok_or(StoreError::Missing("count"))?;
    u64::try_from(row.try_get_by_index::<i64>(0)?).map_err(|error| StoreError::unreadable("count", error))
}

fn row_of(new: &NewBatch, owner: GatewayId, until: Millis) -> Result<ActiveModel, StoreError> {
    let number = |number: u32| i32::try_from(number).map_err(|_| StoreError::TooMany("lines"));
    Ok(ActiveModel {
        id: Set(new.id.0),
        account_id: Set(new.account.0),
        key_id: Set(new.key.0),
        status: Set(BatchStatus::Enqueuing.name().to_owned()),
        total: Set(number(new.total)?),
        completed: Set(0),
        failed: Set(0),
        cancelled: Set(0),
        skipped: Set(number(new.skipped)?),
        slot: Set(new.slot.into()),
        next_seq: Set(1),
        keyed: Set(new.keyed),
        notifies: Set(new.notifies),
        retry_of: Set(new.retry_of.map(|id| id.0)),
        lease_owner: Set(Some(owner.0)),
        lease_until: Set(Some(until.0)),
        created_at: Set(new.created_at.0),
        enqueued_at: Set(None),
        completed_at: Set(None),
    })
}

/// The batch `id`, as it stands in `db`.
pub(super) async fn find<C: ConnectionTrait>(db: &C, id: BatchId) -> Result<Option<Batch>, StoreError> {
    Entity::find_by_id(id.0).one(db).await?.map(from_row).transpose()
}

/// The batch that `row` tells of.
pub(super) fn from_row(row: Model) -> Result<Batch, StoreError> {
    let count = |what, number: i32| stored::count(what, number.into());
    Ok(Batch {
        id: BatchId(row.id),
        account: AccountId(row.account_id),
        key: KeyId(row.key_id),
        status: stored::parsed("status", &row.status)?,
        counts: BatchCounts {
            total: count("total", row.total)?,
            completed: count("completed", row.completed)?,
            failed: count("failed", row.failed)?,
            cancelled: count("cancelled", row.cancelled)?,
        },
        skipped: count("skipped", row.skipped)?,
        retry_of: row.retry_of.map(BatchId),
        created_at: Millis(row.created_at),
        enqueued_at: row.enqueued_at.map(Millis),
        completed_at: row.completed_at.map(Millis),
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures_util::future::join_all;

    use super::*;
    use crate::store::testing::{
        cancelled, completed, enqueued, failed, job, lines, new_batch, on_each_database, open, started,
    };

    fn soon() -> Millis {
        Millis::now().plus(Duration::from_mins(1))
    }

    #[tokio::test]
    async fn a_batch_is_made_once_and_known_from_then_on() {
        on_each_database(async |store| {
            let (owner, retry_of) = (AccountId::new(), Some(BatchId::new()));
            let new = NewBatch { skipped: 3, retry_of, keyed: true, ..new_batch(owner, 5) };
            assert_eq!(store.batch(new.id).await.expect("an answer"), None);
            let made = open(&store, &new, GatewayId::new()).await;
            assert_eq!((made.id, made.account, made.key), (new.id, owner, new.key));
            assert_eq!((made.status, made.skipped, made.retry_of), (BatchStatus::Enqueuing, 3, retry_of));
            assert_eq!(made.counts, BatchCounts { total: 5, ..BatchCounts::default() });
            assert_eq!((made.created_at, made.enqueued_at, made.completed_at), (new.created_at, None, None));
            // Also when the account has no room any more.
            let again = store.open_batch(&new, GatewayId::new(), soon(), 0).await.expect("an answer");
            assert_eq!(again, Opened::Known(made.clone()));
            assert_eq!(store.batch(new.id).await.expect("an answer"), Some(made));
        })
        .await;
    }

    #[tokio::test]
    async fn an_account_has_so_many_unfinished_jobs_and_no_more() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let (one, other) = (new_batch(owner, 10), new_batch(owner, 5));
            enqueued(&store, &one).await;
            let of_one = lines(&one, 1..=10);
            store.finish(&[completed(&of_one[0], "done"), failed(&of_one[1])]).await.expect("to finish");
            // A line that runs is counted with its batch.
            store.mark_started(&[started(&of_one[2])]).await.expect("its row");
            let (queued, running, over) = (job(owner), job(owner), job(owner));
            store.mark_queued(&[queued]).await.expect("its row");
            store.mark_started(&[started(&running)]).await.expect("its row");
            store.finish(&[cancelled(&over)]).await.expect("to finish");
            assert_eq!(store.unfinished(owner).await.expect("a count"), 10);
            let open =
                async |limit| store.open_batch(&other, GatewayId::new(), soon(), limit).await.expect("an answer");
            assert_eq!(open(14).await, Opened::QueueFull { unfinished: 10 });
            assert!(matches!(open(15).await, Opened::New(_)));
            assert_eq!(store.unfinished(owner).await.expect("a count"), 15);
            for id in [one.id, other.id] {
                store.cancel_batch(id, Millis::now()).await.expect("to cancel").expect("it was open");
            }
            assert_eq!(store.unfinished(owner).await.expect("a count"), 2);
            assert_eq!(store.unfinished(AccountId::new()).await.expect("a count"), 0);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn batches_that_come_at_once_do_not_pass_the_limit_together() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let opening = (0..8).map(async |_| {
                store.open_batch(&new_batch(owner, 10), GatewayId::new(), soon(), 35).await.expect("an answer")
            });
            let opened = join_all(opening).await;
            assert_eq!(opened.iter().filter(|opened| matches!(opened, Opened::New(_))).count(), 3, "{opened:?}");
            assert_eq!(store.unfinished(owner).await.expect("a count"), 30);
        })
        .await;
    }

    #[tokio::test]
    async fn pages_are_newest_first_and_join_up() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let new: Vec<_> = (0..5).map(|_| Arc::new(new_batch(owner, 1))).collect();
            for batch in &new {
                enqueued(&store, batch).await;
            }
            enqueued(&store, &new_batch(AccountId::new(), 1)).await;
            store.cancel_batch(new[3].id, Millis::now()).await.expect("to cancel");
            let listed = async |filter, limit| {
                let (batches, has_more) = store.batches(owner, &filter, limit).await.expect("a list");
                (batches.into_iter().map(|batch| batch.id).collect::<Vec<_>>(), has_more)
            };
            let ids: Vec<_> = new.iter().rev().map(|batch| batch.id).collect();
            assert_eq!(listed(BatchFilter::default(), 2).await, (ids[..2].to_vec(), true));
            let rest = BatchFilter { before: Some(ids[1]), ..BatchFilter::default() };
            assert_eq!(listed(rest.clone(), 3).await, (ids[2..].to_vec(), false));
            assert_eq!(listed(rest, 2).await, (ids[2..4].to_vec(), true));
            let stopped = BatchFilter { status: Some(BatchStatus::Cancelled), ..BatchFilter::default() };
            assert_eq!(listed(stopped, 9).await, (vec![new[3].id], false));
            let own = BatchFilter { key: Some(new[2].key), ..BatchFilter::default() };
            assert_eq!(listed(own, 9).await, (vec![new[2].id], false));
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_open_is_found_by_indexes() {
        on_each_database(async |store| {
            let backend = store.db.get_database_backend();
            if backend != DbBackend::Sqlite {
                return;
            }
            for (text, index) in [
                (UNFINISHED_LINES, "batches_account_id_open (account_id=?)"),
                (UNFINISHED_OTHERS, "messages_account_id_status_id (account_id=? AND status=?)"),
            ] {
                let plan = format!("EXPLAIN QUERY PLAN {text}");
                let plan = Statement::from_sql_and_values(backend, plan, [AccountId::new().0.into()]);
                let steps = store.db.query_all_raw(plan).await.expect("a plan");
                let steps: Vec<String> = steps.iter().map(|step| step.try_get("", "detail").expect("a step")).collect();
                assert!(steps.iter().any(|step| step.contains(index)), "{steps:?}");
            }
        })
        .await;
    }
}
