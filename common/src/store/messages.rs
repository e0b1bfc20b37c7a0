//! Messages before their end, and reading them.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};

use super::{
    connection::{Store, within_patience},
    entity::message::{self, Column},
    error::StoreError,
    rows::{self, COLUMNS, HEAD, State},
    sql::{self, Insert},
    stored::{self, StoredMessage},
    write::Write,
};
use crate::{
    domain::{
        account::MicroCredits,
        ids::MessageId,
        job::{Job, Turn},
        message::MessageStatus,
        reply::Outcome,
        time::Millis,
    },
    sabotage::{self, Point},
};

const QUEUED: Insert = Insert { head: HEAD, columns: COLUMNS, tail: "ON CONFLICT (id) DO NOTHING" };

const BEGUN: Insert = Insert {
    head: HEAD,
    columns: COLUMNS,
    tail: "ON CONFLICT (id) DO UPDATE SET status = excluded.status, started_at = excluded.started_at, attempts = \
           CASE WHEN messages.attempts < excluded.attempts THEN excluded.attempts ELSE messages.attempts END \
           WHERE messages.status = 'queued'",
};

const COUNTED: Insert = Insert {
    head: HEAD,
    columns: COLUMNS,
    tail: "ON CONFLICT (id) DO UPDATE SET status = excluded.status, started_at = excluded.started_at, attempts = \
           CASE WHEN messages.attempts < excluded.attempts THEN excluded.attempts ELSE messages.attempts + 1 END \
           WHERE messages.status IN ('queued', 'in_progress') RETURNING attempts",
};

/// A job that a worker has begun.
#[derive(Clone, Debug)]
pub struct StartedJob {
    /// The job.
    pub job: Arc<Job>,
    /// When.
    pub started_at: Millis,
    /// How often it was begun, this time included.
    pub attempts: u32,
}

/// A job and how it ended.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The job.
    pub job: Arc<Job>,
    /// How it ended. Its charge is not looked at: storing the end makes it, from the job's price and what was used.
    pub outcome: Outcome,
}

/// Whether an end was the one that counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    /// It was the first: its outcome is the message's.
    Won {
        /// What the account was charged.
        credits_charged: MicroCredits,
    },
    /// The message had ended before; this is its outcome.
    Lost(Outcome),
}

/// What [`Store::count_start`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// The job may run.
    Begun {
        /// How often it was begun, this time included.
        starts: u32,
    },
    /// The job is over; this is how it ended.
    Ended(Outcome),
}

impl Store {
    /// A message, if it has a row.
    pub async fn message(&self, id: MessageId) -> Result<Option<StoredMessage>, StoreError> {
        within_patience(async { Ok(stored::find(&self.db, &[id]).await?.into_iter().next()) }).await
    }

    /// What was said to the agent: the prompt of a message that has a row. Empty once it was purged.
    pub async fn turns(&self, id: MessageId) -> Result<Option<Vec<Turn>>, StoreError> {
        let select = message::Entity::find_by_id(id.0).select_only().column(Column::Prompt);
        within_patience(async {
            let prompt = select.into_tuple::<String>().one(&self.db).await?;
            stored::from_json("prompt", prompt)
        })
        .await
    }

    /// The outcomes of those of `ids` that have ended, in no order.
    pub async fn outcomes(&self, ids: &[MessageId]) -> Result<Vec<(MessageId, Outcome)>, StoreError> {
        within_patience(stored::outcomes(&self.db, ids)).await
    }

    /// Counts that a worker begins `job` once more, unless it is over. A job without a row was begun once before:
    /// the row of a first start is written behind, and may have been lost with its worker.
    pub async fn count_start(&self, job: &Job) -> Result<Start, StoreError> {
        within_patience(async {
            let mut values = Vec::with_capacity(COLUMNS);
            rows::push(&mut values, job, &State::Begun { attempts: 2, started_at: Millis::now() })?;
            let write = self.write().await?;
            let statement = COUNTED.statement(write.get_database_backend(), values);
            let counted = write.query_all_raw(statement).await?;
            let Some(row) = counted.first() else {
                let stored = stored::outcomes(&*write, &[job.id]).await?;
                let (_, outcome) = stored.into_iter().next().ok_or(StoreError::Missing("message"))?;
                return Ok(Start::Ended(outcome));
            };
            let starts = stored::count("attempts", row.try_get_by_index(0)?)?;
            write.commit().await?;
            Ok(Start::Begun { starts })
        })
        .await
    }

    /// Takes back what [`Store::count_start`] counted, for a job that goes back to the queue through no fault of its
    /// own. A job that is over stays as it is.
    pub async fn forget_start(&self, id: MessageId) -> Result<(), StoreError> {
        let update = message::Entity::update_many()
            .col_expr(Column::Attempts, Expr::col(Column::Attempts).sub(1))
            .col_expr(Column::Status, Expr::value(MessageStatus::Queued.name()))
            .filter(Column::Id.eq(id.0))
            .filter(Column::Status.eq(MessageStatus::InProgress.name()))
            .filter(Column::Attempts.gt(0));
        within_patience(async {
            let write = self.write().await?;
            update.exec(&*write).await?;
            write.commit().await
        })
        .await
    }

    /// Writes `queued` rows for listings. A job that has a row already is left as it is.
    pub async fn mark_queued(&self, jobs: &[Arc<Job>]) -> Result<(), StoreError> {
        let rows = jobs.iter().map(|job| (job, State::Queued)).collect();
        sabotage::reach(Point::BeforeRows);
        self.note(&QUEUED, rows).await?;
        sabotage::reach(Point::AfterRows);
        Ok(())
    }

    /// Writes `in_progress` rows for listings. A job that is noted as running or over is left as it is.
    pub async fn mark_started(&self, started: &[StartedJob]) -> Result<(), StoreError> {
        let begun = |start: &StartedJob| State::Begun { attempts: start.attempts, started_at: start.started_at };
        let rows = started.iter().map(|start| (&start.job, begun(start))).collect();
        self.note(&BEGUN, rows).await
    }

    async fn note(&self, insert: &Insert, mut rows: Vec<(&Arc<Job>, State<'_>)>) -> Result<(), StoreError> {
        within_patience(async {
            // In one order everywhere: PostgreSQL locks row by row, and two orders would be a deadlock.
            rows.sort_unstable_by_key(|(job, _)| job.id);
            // One statement cannot touch a row twice.
            rows.dedup_by_key(|(job, _)| job.id);
            let write = self.write().await?;
            for portion in sql::portions(rows.len()) {
                note_portion(&write, insert, &rows[portion]).await?;
            }
            write.commit().await
        })
        .await
    }
}

async fn note_portion(write: &Write, insert: &Insert, rows: &[(&Arc<Job>, State<'_>)]) -> Result<(), StoreError> {
    let mut values = Vec::with_capacity(rows.len() * COLUMNS);
    for (job, state) in rows {
        rows::push(&mut values, job, state)?;
    }
    write.execute_raw(insert.statement(write.get_database_backend(), values)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{event::Callback, ids::AccountId},
        store::testing::{completed, job, on_each_database, started},
    };

    #[tokio::test]
    async fn a_begun_job_has_a_row_without_an_outcome() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let jobs: Vec<_> = (0..100).map(|_| job(owner)).collect();
            let rows: Vec<_> = jobs.iter().rev().map(started).collect();
            store.mark_started(&rows).await.expect("rows");
            store.mark_started(&rows).await.expect("nothing new");
            let row = store.message(jobs[42].id).await.expect("an answer").expect("the row");
            assert_eq!((row.status, row.account, row.agent), (MessageStatus::InProgress, owner, jobs[42].agent));
            assert_eq!((row.outcome, row.created_at), (None, jobs[42].created_at));
            assert!(store.message(MessageId::new()).await.expect("an answer").is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_queued_row_keeps_what_came_along_and_is_begun() {
        on_each_database(async |store| {
            let callback = Callback { url: "https://example.com/done".to_owned(), events: Vec::new() };
            let one = Arc::new(Job {
                callback: Some(callback.clone()),
                retry_of: Some(MessageId::new()),
                ..Job::clone(&job(AccountId::new()))
            });
            store.mark_queued(&[one.clone(), one.clone()]).await.expect("its row, once");
            let row = async || store.message(one.id).await.expect("an answer").expect("the row");
            let queued = row().await;
            assert_eq!((queued.status, queued.attempts, queued.started_at), (MessageStatus::Queued, 0, None));
            assert_eq!((queued.callback, queued.retry_of), (Some(callback), one.retry_of));
            assert_eq!(queued.expires_at, Some(one.start_by));
            store.mark_started(&[started(&one)]).await.expect("to note it");
            store.mark_queued(std::slice::from_ref(&one)).await.expect("nothing to do");
            let begun = row().await;
            assert_eq!((begun.status, begun.attempts), (MessageStatus::InProgress, 1));
            assert!(begun.started_at.is_some());
            assert_eq!(store.count_start(&one).await.expect("an answer"), Start::Begun { starts: 2 });
            assert_eq!(begun.object().attempts, 1);
        })
        .await;
    }

    #[tokio::test]
    async fn a_row_that_comes_late_does_not_reopen_a_message() {
        on_each_database(async |store| {
            let one = job(AccountId::new());
            store.finish(&[completed(&one, "done")]).await.expect("to finish");
            store.mark_started(&[started(&one)]).await.expect("nothing to do");
            store.forget_start(one.id).await.expect("nothing to do");
            let row = store.message(one.id).await.expect("an answer").expect("the row");
            assert_eq!(row.status, MessageStatus::Completed);
            assert_eq!(row.outcome.expect("its end").content.as_deref(), Some("done"));
        })
        .await;
    }

    #[tokio::test]
    async fn starts_are_counted_until_the_end() {
        on_each_database(async |store| {
            let one = job(AccountId::new());
            let count = async || store.count_start(&one).await.expect("an answer");
            assert_eq!(count().await, Start::Begun { starts: 2 }, "the first one left no row");
            store.mark_started(&[started(&one)]).await.expect("its row, late");
            assert_eq!(count().await, Start::Begun { starts: 3 });
            store.forget_start(one.id).await.expect("to take it back");
            assert_eq!(count().await, Start::Begun { starts: 3 });
            let end = completed(&one, "done");
            store.finish(std::slice::from_ref(&end)).await.expect("to finish");
            assert_eq!(count().await, Start::Ended(end.outcome));
        })
        .await;
    }

    #[tokio::test]
    async fn a_start_that_was_noted_counts_as_one() {
        on_each_database(async |store| {
            let one = job(AccountId::new());
            store.mark_started(&[started(&one)]).await.expect("its row");
            assert_eq!(store.count_start(&one).await.expect("an answer"), Start::Begun { starts: 2 });
        })
        .await;
    }

    #[tokio::test]
    async fn only_ends_are_found_among_many() {
        on_each_database(async |store| {
            let jobs: Vec<_> = (0..150).map(|_| job(AccountId::new())).collect();
            let ends: Vec<_> = jobs[..70].iter().map(|job| completed(job, &job.id.to_string())).collect();
            store.finish(&ends).await.expect("to finish");
            store.mark_started(&jobs[70..].iter().map(started).collect::<Vec<_>>()).await.expect("rows");
            let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
            let found = store.outcomes(&ids).await.expect("outcomes");
            assert_eq!(found.len(), 70);
            assert!(found.iter().all(|(id, outcome)| outcome.content == Some(id.to_string())));
            assert!(store.outcomes(&[]).await.expect("outcomes").is_empty());
        })
        .await;
    }
}
