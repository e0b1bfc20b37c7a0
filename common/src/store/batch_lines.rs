//! The lines of batches among the ends of a group: counted, and noted in the order in which they are stored.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult as _, QueryResult, Statement, Value};
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

/// The most rows of results in one statement: they are short.
const MOST_RESULTS: usize = 256;

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

/// What ends move in their batches.
#[derive(Default)]
pub(super) struct Moves {
    /// The batches.
    touched: BTreeSet<Uuid>,
    /// Rows of results.
    results: Vec<[Value; 3]>,
}

impl Batches {
    /// Takes the batches of `group` for the rest of the transaction.
    pub(super) async fn lock(write: &Write, group: &[&Finish]) -> Result<Self, StoreError> {
        let mut rows = Vec::new();
        for look in looks(write.get_database_backend(), group) {
            rows.extend(write.query_all_raw(look).await?);
        }
        Self::read(rows)
    }

    /// The batches that the rows of [`looks`] tell of.
    pub(super) fn read(rows: impl IntoIterator<Item = QueryResult>) -> Result<Self, StoreError> {
        let rows = rows.into_iter().map(|row| Model::from_query_result(&row, "").map(|row| (row.id, row)));
        Ok(Self(rows.collect::<Result<_, _>>()?))
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

    /// Whether one of them may end with so many lines, and its account is to be told of it.
    pub(super) fn may_tell(&self, lines: usize) -> bool {
        self.0.values().any(|row| {
            let left = i64::from(row.total) - i64::from(row.completed + row.failed + row.cancelled);
            row.notifies && left <= i64::try_from(lines).unwrap_or(i64::MAX)
        })
    }

    /// Counts the ends of `winners`, and notes them in their order; gives the batches that have ended with them.
    pub(super) async fn count(mut self, write: &Write, winners: &[&Finish]) -> Result<Vec<Event>, StoreError> {
        let moves = self.note(winners);
        for statement in self.statements(write.get_database_backend(), &moves) {
            write.execute_raw(statement).await?;
        }
        Ok(moves.touched.iter().filter_map(|id| self.0.get(id)).filter_map(Event::of_batch).collect())
    }

    /// Counts the ends of `winners`, for now only here.
    pub(super) fn note(&mut self, winners: &[&Finish]) -> Moves {
        let mut moves = Moves::default();
        for finish in winners {
            let Some(line) = &finish.job.batch else { continue };
            // A batch that was forgotten meanwhile counts nothing.
            let Some(row) = self.0.get_mut(&line.batch.0) else { continue };
            moves.results.push([row.id.into(), row.next_seq.into(), finish.job.id.0.into()]);
            moves.touched.insert(row.id);
            note_end(row, finish.outcome.status);
        }
        moves
    }

    /// What writes `moves`.
    pub(super) fn statements(&self, backend: DbBackend, moves: &Moves) -> Vec<Statement> {
        let mut statements = Vec::new();
        for portion in sql::portions_of(moves.results.len(), MOST_RESULTS) {
            let values = moves.results[portion].iter().flatten().cloned().collect();
            statements.push(RESULTS.statement(backend, values));
        }
        let touched: Vec<_> = moves.touched.iter().filter_map(|id| self.0.get(id)).collect();
        statements.extend(sql::portions(touched.len()).map(|portion| moved(backend, &touched[portion])));
        statements
    }
}

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

/// What reads the batches that the lines in `group` belong to, in order.
pub(super) fn looks(backend: DbBackend, group: &[&Finish]) -> Vec<Statement> {
    let ids: BTreeSet<_> =
        group.iter().filter_map(|finish| finish.job.batch.as_ref()).map(|line| line.batch.0).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    sql::portions(ids.len()).map(|portion| locked(backend, &ids[portion])).collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::{join, join_all};

    use super::*;
    use crate::{
        domain::{
            batch::{Batch, BatchCounts},
            ids::{AccountId, BatchId, GatewayId},
            job::Job,
        },
        store::{
            connection::Store,
            messages::Committed,
            testing::{
                account, cancelled, completed, enqueued, failed, free, job, lines, new_batch, on_each_database,
                on_each_empty_database, open, started,
            },
        },
    };

    async fn look(store: &Store, id: BatchId) -> Batch {
        store.batch(id).await.expect("an answer").expect("the batch")
    }

    fn counts(batch: &Batch) -> [u32; 3] {
        let BatchCounts { completed, failed, cancelled, .. } = batch.counts;
        [completed, failed, cancelled]
    }

    fn expired(job: &Arc<Job>) -> Finish {
        let Finish { job, outcome } = failed(job);
        Finish { job, outcome: Outcome { status: MessageStatus::Expired, attempts: 0, started_at: None, ..outcome } }
    }

    #[tokio::test]
    async fn each_first_end_counts_and_the_last_one_completes_the_batch() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let new = new_batch(owner, 5);
            enqueued(&store, &new).await;
            let all = lines(&new, 1..=5);
            store.mark_started(&[started(&all[1])]).await.expect("its row");
            let first = [completed(&all[0], "done"), failed(&all[1]), completed(&job(owner), "of no batch")];
            store.finish(&first).await.expect("to finish");
            assert_eq!(counts(&look(&store, new.id).await), [1, 1, 0]);
            let again = [failed(&all[0]), completed(&all[1], "too late"), expired(&all[2]), cancelled(&all[3])];
            let committed = store.finish(&again).await.expect("to finish");
            assert_eq!(committed[0], Committed::Lost(first[0].outcome.clone()));
            assert_eq!(committed[3], Committed::Won { credits_charged: 0 });
            let batch = look(&store, new.id).await;
            assert_eq!((counts(&batch), batch.status, batch.completed_at), ([1, 2, 1], BatchStatus::InProgress, None));
            store.finish(&[completed(&all[4], "done")]).await.expect("to finish");
            let batch = look(&store, new.id).await;
            assert_eq!((counts(&batch), batch.status), ([2, 2, 1], BatchStatus::Completed));
            assert!(batch.completed_at.is_some_and(|at| at >= new.created_at));
            // Two ended for seven micro-credits each, beside one of no batch, a failed one and an expired one.
            assert_eq!(store.balance(owner).await.expect("a balance"), -7 * 5);
        })
        .await;
    }

    #[tokio::test]
    async fn an_end_in_a_stopped_batch_is_a_cancelled_one_and_counts_nothing() {
        on_each_database(async |store| {
            for price in [7, 0] {
                let owner = account(&store).await.id;
                let new = new_batch(owner, 4);
                enqueued(&store, &new).await;
                let all = if price == 0 { free(lines(&new, 1..=4)) } else { lines(&new, 1..=4) };
                store.finish(&[completed(&all[0], "in time")]).await.expect("to finish");
                let stopped = store.cancel_batch(new.id, Millis::now()).await.expect("an answer").expect("it was open");
                assert_eq!((counts(&stopped), stopped.status), ([1, 0, 3], BatchStatus::Cancelled));
                let late = completed(&all[1], "too late");
                let ends = [late.clone(), cancelled(&all[2]), completed(&all[0], "once more")];
                let committed = store.finish(&ends).await.expect("to finish");
                let Committed::Lost(outcome) = &committed[0] else { panic!("{committed:?}") };
                assert_eq!((outcome.status, &outcome.content), (MessageStatus::Cancelled, &None));
                assert_eq!((outcome.attempts, outcome.completed_at), (1, late.outcome.completed_at));
                assert_eq!(committed[1], Committed::Won { credits_charged: 0 });
                assert!(matches!(&committed[2], Committed::Lost(first) if first.content.as_deref() == Some("in time")));
                assert_eq!(look(&store, new.id).await, stopped);
                // What the run has used is charged apart, and once.
                assert_eq!(store.balance(owner).await.expect("a balance"), -price);
                for charges in [true, false] {
                    let usage = late.outcome.usage;
                    let charged = store.charge_cancelled(&all[1], usage, Some("demo"), Millis::now()).await;
                    assert_eq!(charged.expect("an answer"), charges);
                }
                assert_eq!(store.balance(owner).await.expect("a balance"), -2 * price);
                let results = store.batch_results(new.id, 0, None, 9).await.expect("results");
                assert_eq!(results.iter().map(|result| result.seq).collect::<Vec<_>>(), [1, 2, 3]);
                assert_eq!(results[0].line, 1);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn lines_of_a_batch_that_is_gone_end_all_the_same() {
        on_each_database(async |store| {
            let new = new_batch(AccountId::new(), 1);
            let committed = store.finish(&[completed(&lines(&new, [1])[0], "done")]).await.expect("to finish");
            assert_eq!(committed, [Committed::Won { credits_charged: 7 }]);
            assert!(store.batch_results(new.id, 0, None, 9).await.expect("results").is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn a_group_takes_few_statements_however_many_lines_it_has() {
        on_each_database(async |store| {
            let (one, other) = (new_batch(AccountId::new(), 500), new_batch(AccountId::new(), 500));
            enqueued(&store, &one).await;
            enqueued(&store, &other).await;
            let all: Vec<_> = free(lines(&one, 1..=500)).into_iter().zip(free(lines(&other, 1..=500))).collect();
            let ends = |pairs: &[(Arc<Job>, Arc<Job>)]| {
                pairs.iter().flat_map(|(one, other)| [completed(one, "done"), failed(other)]).collect::<Vec<_>>()
            };
            let before = store.queries();
            store.finish(&ends(&all[..128])).await.expect("to finish");
            // The batches are read and moved, and of the rest a statement takes 64 or more. SQLite's own way is not
            // counted at all.
            assert!(store.queries() - before <= 3 + 2 * 4, "{}", store.queries() - before);
            store.finish(&ends(&all[128..])).await.expect("to finish");
            for (batch, wanted) in [(one, [500, 0, 0]), (other, [0, 500, 0])] {
                let batch = look(&store, batch.id).await;
                assert_eq!((counts(&batch), batch.status), (wanted, BatchStatus::Completed));
            }
        })
        .await;
    }

    /// Ends every line three times, in portions, from two processes.
    async fn end_all(stores: &[Store], all: &[Arc<Job>]) -> usize {
        let ending =
            (0..3).flat_map(|round| stores.iter().map(move |store| (round, store))).map(async |(round, store)| {
                let mut won = 0;
                let mut order: Vec<_> = all.iter().collect();
                order.rotate_left(round * 31);
                for portion in order.chunks(17) {
                    let ends: Vec<_> = portion
                        .iter()
                        .enumerate()
                        .map(|(place, job)| if place % 3 == 0 { failed(job) } else { completed(job, "done") })
                        .collect();
                    let committed = store.finish(&ends).await.expect("to finish");
                    won += committed.iter().filter(|committed| matches!(committed, Committed::Won { .. })).count();
                }
                won
            });
        join_all(ending).await.into_iter().sum()
    }

    /// Reads until the batch has ended and its `total` results were seen: those come in order, once each, and what was
    /// counted never becomes less.
    async fn watch(store: &Store, id: BatchId, total: usize) -> Batch {
        let (mut after, mut seen, mut before) = (0, BTreeSet::new(), [0; 3]);
        loop {
            let batch = look(store, id).await;
            let page = store.batch_results(id, after, None, 50).await.expect("results");
            let now = counts(&batch);
            assert!(before.iter().zip(now).all(|(before, now)| *before <= now), "{before:?} became {now:?}");
            before = now;
            for result in &page {
                assert_eq!(result.seq, after + 1, "nothing is skipped that comes later");
                assert_eq!(result.custom_id, format!("line-{}", result.line));
                assert!(seen.insert(result.line), "{} came twice", result.line);
                after = result.seq;
            }
            if page.is_empty() && batch.status.is_terminal() && seen.len() == total {
                return batch;
            }
        }
    }

    /// Runs `test` with two processes' stores of one database, on each, and with what the jobs cost.
    async fn on_two_stores(test: impl AsyncFn(&[Store], bool)) {
        on_each_empty_database(async |config| {
            let mut stores = Vec::new();
            for _ in 0..2 {
                let store = Store::connect(&config).await.expect("to connect");
                store.migrate().await.expect("to migrate");
                stores.push(store);
            }
            for is_free in [false, true] {
                test(&stores, is_free).await;
            }
            for store in stores {
                store.close().await.expect("to close");
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_workers_end_at_once_is_counted_once_and_read_in_one_order() {
        on_two_stores(async |stores, is_free| {
            let owner = account(&stores[0]).await.id;
            let (new, other) = (new_batch(owner, 200), new_batch(owner, 200));
            let gateway = GatewayId::new();
            open(&stores[0], &new, gateway).await;
            enqueued(&stores[0], &other).await;
            // Both batches are in every group.
            let pairs = lines(&new, 1..=200).into_iter().zip(lines(&other, 1..=200));
            let all: Vec<_> = pairs.flat_map(|(one, other)| [other, one]).collect();
            let all = if is_free { free(all) } else { all };
            let ending = async {
                let enqueued = stores[1].batch_enqueued(new.id, gateway, Millis::now());
                let (won, enqueued) = join(end_all(stores, &all), enqueued).await;
                assert!(enqueued.expect("an answer").is_some());
                won
            };
            let watching = join(watch(&stores[0], new.id, 200), watch(&stores[1], other.id, 200));
            let (won, (one, two)) = join(ending, watching).await;
            assert_eq!(won, 400);
            for batch in [one, two] {
                assert_eq!((batch.status, batch.counts.unfinished()), (BatchStatus::Completed, 0));
                assert_eq!(batch, look(&stores[0], batch.id).await);
            }
            let price = if is_free { 0 } else { 7 };
            assert_eq!(stores[0].balance(owner).await.expect("a balance"), -price * 400);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whatever_ends_while_its_batch_is_stopped_the_counts_are_exact() {
        on_two_stores(async |stores, is_free| {
            let owner = account(&stores[0]).await.id;
            let new = new_batch(owner, 200);
            enqueued(&stores[0], &new).await;
            let all = if is_free { free(lines(&new, 1..=200)) } else { lines(&new, 1..=200) };
            let stopping = async {
                while counts(&look(&stores[1], new.id).await) == [0; 3] {}
                stores[1].cancel_batch(new.id, Millis::now()).await.expect("an answer")
            };
            let (_, stopped) = join(end_all(stores, &all), stopping).await;
            let batch = watch(&stores[0], new.id, 200).await;
            // Unless all had ended by then.
            let wanted = stopped.as_ref().map_or(BatchStatus::Completed, |_| BatchStatus::Cancelled);
            assert_eq!((batch.status, stopped.is_none_or(|stopped| stopped == batch)), (wanted, true));
            let mut stored = [0; 3];
            for result in stores[0].batch_results(new.id, 0, None, 999).await.expect("results") {
                match result.message.status {
                    MessageStatus::Completed => stored[0] += 1,
                    MessageStatus::Failed => stored[1] += 1,
                    _ => stored[2] += 1,
                }
            }
            assert_eq!(counts(&batch), stored);
            let price = if is_free { 0 } else { 7 };
            assert_eq!(stores[0].balance(owner).await.expect("a balance"), -price * i64::from(stored[0] + stored[1]));
        })
        .await;
    }
}
