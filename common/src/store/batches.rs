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
