//! How the lines of a batch ended, in the order in which they did; and those that can be run again.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, FromQueryResult, JoinType, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
};
use uuid::Uuid;

use super::{
    connection::{Store, within_patience},
    entity::{batch_result, message},
    error::StoreError,
    stored::{self, StoredMessage},
};
use crate::domain::{
    batch::BatchLine,
    ids::{AgentId, BatchId},
    job::Turn,
    message::MessageStatus,
};

/// A page ends with the line whose answer takes it to so many bytes.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How many rows are read at once: one may have an answer of megabytes.
const PORTION: u64 = 20;

/// How a line of a batch ended.
#[derive(Clone, Debug)]
pub struct BatchResult {
    /// Its place among the lines of the batch that have ended, from 1.
    pub seq: u64,
    /// Which line of the body it was, from 1.
    pub line: u32,
    /// How its caller names it.
    pub custom_id: String,
    /// The message that it was.
    pub message: StoredMessage,
}

/// A line of a batch that ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryLine {
    /// Which line of the body it was, from 1.
    pub line: u32,
    /// How its caller names it.
    pub custom_id: String,
    /// Who was to answer.
    pub agent: AgentId,
    /// What was said to it.
    pub turns: Vec<Turn>,
}

#[derive(FromQueryResult)]
struct ResultRow {
    seq: i64,
    batch_line: Option<i32>,
    custom_id: Option<String>,
    #[sea_orm(nested)]
    message: stored::Row,
}

#[derive(FromQueryResult)]
struct RetryRow {
    batch_line: Option<i32>,
    custom_id: Option<String>,
    agent_id: Uuid,
    prompt: String,
}

impl Store {
    /// The lines of the batch that ended after the one with the place `after` and came to `status`, in the order in
    /// which they ended: at most `limit`, and no more once they have answers of 8 MiB. No page but the last one is
    /// empty. What has been seen stays as it is, and nothing ever comes before it.
    pub async fn batch_results(
        &self,
        id: BatchId,
        after: u64,
        status: Option<MessageStatus>,
        limit: usize,
    ) -> Result<Vec<BatchResult>, StoreError> {
        let (mut results, mut after, mut bytes) = (Vec::new(), after, 0);
        loop {
            let most = PORTION.min(u64::try_from(limit - results.len()).unwrap_or(u64::MAX));
            let portion = within_patience(self.results_portion(id, after, status, most)).await?;
            let is_last = portion.len() < usize::try_from(most).unwrap_or(usize::MAX);
            for result in portion {
                after = result.seq;
                let content = result.message.outcome.as_ref().and_then(|outcome| outcome.content.as_ref());
                bytes += content.map_or(0, String::len);
                results.push(result);
                if results.len() >= limit || bytes >= MOST_BYTES {
                    return Ok(results);
                }
            }
            if is_last {
                return Ok(results);
            }
        }
    }

    async fn results_portion(
        &self,
        id: BatchId,
        after: u64,
        status: Option<MessageStatus>,
        most: u64,
    ) -> Result<Vec<BatchResult>, StoreError> {
        use batch_result::Column;
        let of_message =
            batch_result::Entity::belongs_to(message::Entity).from(Column::MessageId).to(message::Column::Id).into();
        let mut select = stored::select_from(batch_result::Entity::find().select_only())
            .columns([Column::Seq])
            .columns([message::Column::BatchLine, message::Column::CustomId])
            .join(JoinType::InnerJoin, of_message)
            .filter(Column::BatchId.eq(id.0))
            .filter(Column::Seq.gt(i64::try_from(after).unwrap_or(i64::MAX)))
            .order_by_asc(Column::Seq)
            .limit(most);
        if let Some(status) = status {
            select = select.filter(message::Column::Status.eq(status.name()));
        }
        let rows = select.into_model::<ResultRow>().all(&self.db).await?;
        rows.into_iter().map(ResultRow::result).collect()
    }

    /// The lines of the batch after `after_line` that ended without an answer, in their order: at most `limit`. Those
    /// whose prompts were purged cannot be run again.
    pub async fn retryable_lines(
        &self,
        id: BatchId,
        after_line: u32,
        limit: usize,
    ) -> Result<Vec<RetryLine>, StoreError> {
        use message::Column;
        let last = BatchLine { batch: id, line: after_line, custom_id: String::new() }.message();
        let select = retryable(id)
            .select_only()
            .columns([Column::BatchLine, Column::CustomId, Column::AgentId, Column::Prompt])
            .filter(Column::Id.gt(last.0))
            .order_by_asc(Column::Id)
            .limit(u64::try_from(limit).unwrap_or(u64::MAX));
        within_patience(async {
            let rows = select.into_model::<RetryRow>().all(&self.db).await?;
            rows.into_iter().map(RetryRow::line).collect()
        })
        .await
    }

    /// How many lines [`Store::retryable_lines`] gives. Of a batch that was cancelled a moment ago, some may be missing:
    /// those that were on the queue are noted as their turn comes.
    pub async fn count_retryable(&self, id: BatchId) -> Result<u32, StoreError> {
        within_patience(async {
            let lines = retryable(id).count(&self.db).await?;
            u32::try_from(lines).map_err(|error| StoreError::unreadable("count", error))
        })
        .await
    }
}

/// Selects what ended without an answer and can be asked again.
fn retryable(id: BatchId) -> Select<message::Entity> {
    use message::Column;
    let ends = [MessageStatus::Failed, MessageStatus::Expired, MessageStatus::Cancelled];
    message::Entity::find()
        .filter(Column::BatchId.eq(id.0))
        .filter(Column::Status.is_in(ends.map(MessageStatus::name)))
        .filter(Column::PurgedAt.is_null())
}

fn line_number(line: Option<i32>) -> Result<u32, StoreError> {
    stored::count("line", line.unwrap_or_default().into())
}

impl ResultRow {
    fn result(self) -> Result<BatchResult, StoreError> {
        Ok(BatchResult {
            seq: u64::try_from(self.seq).map_err(|error| StoreError::unreadable("seq", error))?,
            line: line_number(self.batch_line)?,
            custom_id: self.custom_id.unwrap_or_default(),
            message: self.message.message()?,
        })
    }
}

impl RetryRow {
    fn line(self) -> Result<RetryLine, StoreError> {
        Ok(RetryLine {
            line: line_number(self.batch_line)?,
            custom_id: self.custom_id.unwrap_or_default(),
            agent: AgentId(self.agent_id),
            turns: stored::from_json("prompt", Some(self.prompt))?.unwrap_or_default(),
        })
    }
}
