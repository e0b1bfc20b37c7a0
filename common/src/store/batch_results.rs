//! How the lines of a batch ended, in the order in which they did; and those that can be run again.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, FromQueryResult, JoinType, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    connection::{Store, within_patience},
    entity::{batch, batch_result, message},
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
const PORTION: usize = 20;

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
    /// Whether its caller marked the beginning of a conversation.
    pub new_chat: bool,
    /// What the caller gave along.
    pub metadata: Option<Map<String, Value>>,
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
    new_chat: bool,
    metadata: Option<String>,
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
        while results.len() < limit && bytes < MOST_BYTES {
            let portion = within_patience(self.results_portion(id, after, status)).await?;
            let is_last = portion.len() < PORTION;
            for result in portion {
                if results.len() < limit && bytes < MOST_BYTES {
                    after = result.seq;
                    let content = result.message.outcome.as_ref().and_then(|outcome| outcome.content.as_ref());
                    bytes += content.map_or(0, String::len);
                    results.push(result);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(results)
    }

    async fn results_portion(
        &self,
        id: BatchId,
        after: u64,
        status: Option<MessageStatus>,
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
            .limit(PORTION as u64);
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
            .columns([Column::NewChat, Column::Metadata])
            .filter(Column::Id.gt(last.0))
            .order_by_asc(Column::Id)
            .limit(u64::try_from(limit).unwrap_or(u64::MAX));
        within_patience(async {
            let rows = select.into_model::<RetryRow>().all(&self.db).await?;
            rows.into_iter().map(RetryRow::line).collect()
        })
        .await
    }

    /// How many lines of the batch have a place among its results. Of a batch that was cancelled these can be fewer than
    /// all for a while: those that were on the queue are noted as their turn comes.
    pub async fn count_results(&self, id: BatchId) -> Result<u32, StoreError> {
        within_patience(async {
            let row = batch::Entity::find_by_id(id.0).one(&self.db).await?.ok_or(StoreError::Missing("batch"))?;
            stored::count("results", row.next_seq - 1)
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
            new_chat: self.new_chat,
            metadata: stored::from_json("metadata", self.metadata)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ids::AccountId, time::Millis},
        store::{
            listing::ListFilter,
            testing::{cancelled, completed, enqueued, failed, lines, new_batch, on_each_database},
        },
    };

    async fn seqs(store: &Store, id: BatchId, after: u64, status: Option<MessageStatus>, limit: usize) -> Vec<u64> {
        let page = store.batch_results(id, after, status, limit).await.expect("results");
        page.into_iter().map(|result| result.seq).collect()
    }

    #[tokio::test]
    async fn results_come_in_pages_in_the_order_of_the_ends() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let (new, other) = (new_batch(owner, 60), new_batch(owner, 60));
            enqueued(&store, &new).await;
            enqueued(&store, &other).await;
            let mut all = lines(&new, 1..=60);
            all.rotate_left(20);
            for (place, job) in all.iter().enumerate() {
                let end = if place % 20 == 7 { failed(job) } else { completed(job, &place.to_string()) };
                store.finish(&[end, completed(&lines(&other, [60 - place as u32])[0], "other")]).await.expect("ends");
            }
            let page = store.batch_results(new.id, 3, None, 50).await.expect("results");
            assert_eq!(page.len(), 50);
            for (place, result) in (3..).zip(&page) {
                assert_eq!((result.seq, result.message.id), (place as u64 + 1, all[place].id));
                assert_eq!(
                    (result.custom_id.as_str(), result.message.batch),
                    (&*format!("line-{}", result.line), Some(new.id.0))
                );
                let content = result.message.outcome.as_ref().and_then(|outcome| outcome.content.clone());
                assert!(content.is_none_or(|content| content == place.to_string()));
            }
            assert_eq!(seqs(&store, new.id, 58, None, 50).await, [59, 60]);
            assert!(seqs(&store, new.id, 60, None, 50).await.is_empty());
            assert_eq!(seqs(&store, new.id, 0, None, 2).await, [1, 2]);
            assert!(seqs(&store, new.id, 0, None, 0).await.is_empty());
            assert_eq!(seqs(&store, new.id, 8, Some(MessageStatus::Failed), 9).await, [28, 48]);
            assert!(seqs(&store, BatchId::new(), 0, None, 9).await.is_empty());
            // As messages, they are in the order of the lines.
            let filter = ListFilter { batch: Some(new.id.0), ..ListFilter::default() };
            let listed = store.messages(owner, &filter, 99).await.expect("a list").messages;
            let ids: Vec<_> = listed.iter().map(|message| message.id).collect();
            assert_eq!(ids, lines(&new, (1..=60).rev()).iter().map(|job| job.id).collect::<Vec<_>>());
        })
        .await;
    }

    #[tokio::test]
    async fn a_page_ends_after_so_many_bytes_and_the_next_one_goes_on() {
        on_each_database(async |store| {
            let new = new_batch(AccountId::new(), 5);
            enqueued(&store, &new).await;
            let long = "x".repeat(MOST_BYTES / 2);
            for job in lines(&new, 1..=5) {
                store.finish(&[completed(&job, &long)]).await.expect("to finish");
            }
            for (after, wanted) in [(0, vec![1, 2]), (2, vec![3, 4]), (4, vec![5]), (5, vec![])] {
                assert_eq!(seqs(&store, new.id, after, None, 9).await, wanted);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_message_that_was_forgotten_is_left_out() {
        on_each_database(async |store| {
            let new = new_batch(AccountId::new(), 3);
            enqueued(&store, &new).await;
            let all = lines(&new, 1..=3);
            for job in &all {
                store.finish(&[completed(job, "done")]).await.expect("to finish");
            }
            message::Entity::delete_by_id(all[1].id.0).exec(&store.db).await.expect("to forget it");
            assert_eq!(seqs(&store, new.id, 0, None, 9).await, [1, 3]);
        })
        .await;
    }

    #[tokio::test]
    async fn what_ended_without_an_answer_can_be_asked_again() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let new = new_batch(owner, 200);
            enqueued(&store, &new).await;
            let all = lines(&new, 1..=200);
            let ends = all.iter().enumerate().map(|(place, job)| match place % 4 {
                0 => failed(job),
                1 => cancelled(job),
                _ => completed(job, "done"),
            });
            store.finish(&ends.take(180).collect::<Vec<_>>()).await.expect("to finish");
            store.purge(owner, all[4].id).await.expect("to purge");
            assert_eq!(store.count_retryable(new.id).await.expect("a count"), 89);
            let (mut after, mut found) = (0, Vec::new());
            loop {
                let page = store.retryable_lines(new.id, after, 40).await.expect("lines");
                let Some(last) = page.last() else { break };
                after = last.line;
                found.extend(page);
            }
            let wanted = all.iter().enumerate().take(180).filter(|(place, _)| place % 4 < 2 && *place != 4);
            let wanted = wanted.map(|(place, job)| RetryLine {
                line: place as u32 + 1,
                custom_id: format!("line-{}", place + 1),
                agent: job.agent,
                turns: job.turns.clone(),
                new_chat: job.new_chat,
                metadata: job.metadata.clone(),
            });
            assert_eq!(found, wanted.collect::<Vec<_>>());
            // Those that had not ended come with their ends.
            store.cancel_batch(new.id, Millis::now()).await.expect("an answer").expect("it was open");
            assert_eq!(store.count_results(new.id).await.expect("a count"), 180);
            let rest: Vec<_> = all[180..].iter().map(|job| completed(job, "too late")).collect();
            store.finish(&rest).await.expect("to finish");
            assert_eq!(store.count_results(new.id).await.expect("a count"), 200);
            assert_eq!(store.count_retryable(new.id).await.expect("a count"), 109);
        })
        .await;
    }
}
