//! The lines of batches among the ends of a group: counted, and noted in the order in which they are stored.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult as _, Statement, Value};
use uuid::Uuid;

use super::{
    caused::Event,
    entity::batch::Model,
    error::StoreError,
    messages::Finish,
    sql::{self, Insert, Update},
    write::Write,
};
use crate::domain::{batch::BatchStatus, message::MessageStatus, reply::Outcome, time::Millis};

const RESULTS: Insert = Insert { head: "batch_results (batch_id, seq, message_id)", columns: 3, tail: "" };

const MOVED: Update = Update {
    head: "batches SET completed = column2, failed = column3, cancelled = column4, next_seq = column5, \
           status = column6, completed_at = column7",
    columns: 7,
    tail: "batches.id = column1",
};

/// The batches that a group's lines belong to, as they stand in its transaction: until its end nobody else changes
/// them. So places in the results are handed out in the order in which they become visible.
pub(super) struct Batches(BTreeMap<Uuid, Model>);

impl Batches {
    /// Takes the batches of `group` for the rest of the transaction.
    pub(super) async fn lock(write: &Write, group: &[&Finish]) -> Result<Self, StoreError> {
        let ids = ids_of(group);
        let mut rows = BTreeMap::new();
        for portion in sql::portions(ids.len()) {
            for row in write.query_all_raw(locked(write.get_database_backend(), &ids[portion])).await? {
                let row = Model::from_query_result(&row, "")?;
                rows.insert(row.id, row);
            }
        }
        Ok(Self(rows))
    }

    /// `finish` as it is to be stored: a line of a batch that was stopped is cancelled, however it ended.
    pub(super) fn stored<'a>(&self, finish: &'a Finish) -> Cow<'a, Finish> {
        let outcome = &finish.outcome;
        let batch = finish.job.batch.as_ref().and_then(|line| self.0.get(&line.batch.0));
        let is_stopped = batch.and_then(status).is_some_and(BatchStatus::is_stopped);
        if !is_stopped || outcome.status == MessageStatus::Cancelled {
            return Cow::Borrowed(finish);
        }
        let outcome = Outcome {
            attempts: outcome.attempts,
            started_at: outcome.started_at,
            ..Outcome::cancelled(outcome.completed_at)
        };
        Cow::Owned(Finish { job: finish.job.clone(), outcome })
    }

    /// Counts the ends of `winners`, and notes them in their order; gives the batches that have ended with them.
    pub(super) async fn count(mut self, write: &Write, winners: &[&Finish]) -> Result<Vec<Event>, StoreError> {
        let backend = write.get_database_backend();
        let (touched, results) = self.note(winners);
        for portion in sql::portions(results.len()) {
            let values = results[portion].iter().flatten().cloned().collect();
            write.execute_raw(RESULTS.statement(backend, values)).await?;
        }
        let touched: Vec<_> = touched.iter().filter_map(|id| self.0.get(id)).collect();
        for portion in sql::portions(touched.len()) {
            write.execute_raw(moved(backend, &touched[portion])).await?;
        }
        Ok(touched.into_iter().filter_map(Event::of_batch).collect())
    }

    /// Moves what `winners` move, for now only here: the batches that those belong to, and the rows of their results.
    fn note(&mut self, winners: &[&Finish]) -> (BTreeSet<Uuid>, Vec<[Value; 3]>) {
        let (mut touched, mut results) = (BTreeSet::new(), Vec::with_capacity(winners.len()));
        for finish in winners {
            let Some(line) = &finish.job.batch else { continue };
            // A batch that was forgotten meanwhile counts nothing.
            let Some(row) = self.0.get_mut(&line.batch.0) else { continue };
            results.push([line.batch.0.into(), row.next_seq.into(), finish.job.id.0.into()]);
            note_end(row, finish.outcome.status);
            touched.insert(line.batch.0);
        }
        (touched, results)
    }
}

/// Whether a batch has just come to its end is seen by its status and the moment, which go together.
fn note_end(row: &mut Model, end: MessageStatus) {
    row.next_seq += 1;
    let status = status(row);
    if !matches!(status, Some(BatchStatus::Enqueuing | BatchStatus::InProgress)) {
        return;
    }
    match end {
        MessageStatus::Queued | MessageStatus::InProgress => {}
        MessageStatus::Completed => row.completed += 1,
        MessageStatus::Failed | MessageStatus::Expired => row.failed += 1,
        MessageStatus::Cancelled => row.cancelled += 1,
    }
    let have_all_ended = row.completed + row.failed + row.cancelled >= row.total;
    if status == Some(BatchStatus::InProgress) && have_all_ended {
        row.status = BatchStatus::Completed.name().to_owned();
        row.completed_at = Some(Millis::now().0);
    }
}

/// `None` for one that only a newer release knows.
fn status(row: &Model) -> Option<BatchStatus> {
    row.status.parse().ok()
}

/// The batches of the lines in `group`, in order.
fn ids_of(group: &[&Finish]) -> Vec<Uuid> {
    let ids: BTreeSet<_> =
        group.iter().filter_map(|finish| finish.job.batch.as_ref()).map(|line| line.batch.0).collect();
    ids.into_iter().collect()
}

/// Reads batches, and keeps others from changing them. In one order everywhere: PostgreSQL locks row by row, and two
/// orders would be a deadlock. On SQLite nobody else writes at all.
fn locked(backend: DbBackend, ids: &[Uuid]) -> Statement {
    let places: Vec<_> = (1..=ids.len()).map(|place| format!("${place}")).collect();
    let lock = if backend == DbBackend::Sqlite { "" } else { " FOR UPDATE" };
    let text = format!("SELECT * FROM batches WHERE id IN ({}) ORDER BY id{lock}", places.join(","));
    Statement::from_sql_and_values(backend, text, ids.iter().map(|id| Value::from(*id)))
}

/// Writes what has moved.
fn moved(backend: DbBackend, batches: &[&Model]) -> Statement {
    let mut values = Vec::with_capacity(batches.len() * MOVED.columns);
    for row in batches {
        values.extend([
            row.id.into(),
            row.completed.into(),
            row.failed.into(),
            row.cancelled.into(),
            row.next_seq.into(),
            row.status.as_str().into(),
            row.completed_at.into(),
        ]);
    }
    MOVED.statement(backend, values)
}
