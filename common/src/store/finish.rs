//! The end of jobs: stored result, ledger and balance in one transaction, many jobs at a time.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use sea_orm::{
    ConnectionTrait as _, DbBackend, QueryResult, Statement, Value,
    sqlx::{Row as _, sqlite::SqliteRow},
};

use super::{
    batch_lines::{self, Batches},
    caused,
    connection::{Store, within_patience},
    credits::{BALANCE_LIMIT, LedgerKind},
    error::StoreError,
    messages::{Committed, Finish},
    rows::{self, COLUMNS, HEAD, State},
    sql::{self, Insert, InsertSome},
    sqlite_writer::Begun,
    stored,
    write::Write,
};
use crate::{
    domain::{
        account::MicroCredits,
        ids::{AccountId, MessageId},
        message::MessageStatus,
        reply::Outcome,
    },
    sabotage::{self, Bug},
};

/// An end takes the place of what its message's row says.
macro_rules! in_its_place {
    () => {
        "ON CONFLICT (id) DO UPDATE SET status = excluded.status, content = excluded.content, \
         model = excluded.model, input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens, \
         usage_estimated = excluded.usage_estimated, credits_charged = excluded.credits_charged, \
         attempts = excluded.attempts, error_code = excluded.error_code, error_message = excluded.error_message, \
         error_retryable = excluded.error_retryable, started_at = excluded.started_at, \
         completed_at = excluded.completed_at"
    };
}

/// What becomes of an end whose message has a row.
macro_rules! unless_ended {
    () => {
        concat!(in_its_place!(), " WHERE messages.status IN ('queued', 'in_progress')")
    };
}

const ENDED: Insert = Insert { head: HEAD, columns: COLUMNS, tail: concat!(unless_ended!(), " RETURNING id") };

const CHARGED: Insert = Insert {
    head: "ledger (id, account_id, key_id, agent_id, day, kind, model, input_tokens, output_tokens, estimated, \
           amount, created_at)",
    columns: 12,
    tail: "ON CONFLICT (id) DO NOTHING",
};

/// [`ENDED`] and [`CHARGED`] without what keeps a second end out, for [`Bug::NoFence`].
const UNFENCED: [Insert; 2] = [
    Insert { tail: concat!(in_its_place!(), " RETURNING id"), ..ENDED },
    Insert {
        tail: "ON CONFLICT (id) DO UPDATE SET input_tokens = ledger.input_tokens + excluded.input_tokens",
        ..CHARGED
    },
];

/// Before [`ENDED_AT_ONCE`]: those that have ended. As a rule there are none, and a row that comes back costs as much as
/// one that is written.
const ENDED_BEFORE: [&str; 2] = [") AND status NOT IN ('queued', 'in_progress')", ""];

/// [`ENDED`] for rows among which are such of nulls.
const ENDED_AT_ONCE: InsertSome =
    InsertSome { head: HEAD, columns: COLUMNS, tail: concat!("column1 IS NOT NULL ", unless_ended!()) };

/// [`CHARGED`] behind [`ENDED_AT_ONCE`]. Which ends were the first is not known yet: one that another end came before
/// has its entry, but a cancelled one must be left without, or its run could not be charged.
const CHARGED_AT_ONCE: InsertSome = InsertSome {
    head: CHARGED.head,
    columns: CHARGED.columns,
    tail: "EXISTS (SELECT 1 FROM messages WHERE id = column1 AND status <> 'cancelled') ON CONFLICT (id) DO NOTHING",
};

impl Store {
    /// Stores how the jobs of `group` ended, in one transaction: for each message that has not ended yet its row,
    /// its entry in the ledger, the charge, and the deliveries that it causes. A cancelled one is charged apart, by
    /// [`Store::charge_cancelled`]. A line of a batch moves what is counted there; when that was stopped, the line is
    /// cancelled, whatever its end was to be. The ids are distinct. The answer is in the order of the group.
    ///
    /// After an error nothing of the group is stored (after [`StoreError::Unavailable`] perhaps all of it), and
    /// doing it again, as a whole or one by one, is harmless.
    pub async fn finish(&self, group: &[Finish]) -> Result<Vec<Committed>, StoreError> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        within_patience(async {
            // In one order everywhere: PostgreSQL locks row by row, and two orders would be a deadlock.
            let mut sorted: Vec<_> = group.iter().collect();
            sorted.sort_unstable_by_key(|finish| finish.job.id);
            let Ended { won, mut others } = match self.end_at_once(&sorted).await? {
                Some(ended) => ended,
                None => self.end_and_charge(&sorted).await?,
            };
            let is_unknown = |id: &MessageId| !won.contains(id) && !others.contains_key(id);
            let losers: Vec<_> = group.iter().map(|finish| finish.job.id).filter(is_unknown).collect();
            others.extend(stored::outcomes(&self.db, &losers).await?);
            answer(group, &won, others)
        })
        .await
    }

    /// SQLite's own way for ends that move no balance and that nobody is told of: the entries need not wait for the
    /// answer which ends were the first. `None` when that is not enough, and nothing was done.
    async fn end_at_once(&self, group: &[&Finish]) -> Result<Option<Ended>, StoreError> {
        let Some(turn) = &self.turn else { return Ok(None) };
        if sabotage::has(Bug::NoFence) || sabotage::has(Bug::LineCountedTwice) {
            return Ok(None);
        }
        if !group.iter().all(|finish| is_plain(finish)) {
            return Ok(None);
        }
        let mut looks = batch_lines::looks(DbBackend::Sqlite, group).into_iter();
        let mut writer = turn.lock().await;
        let Some(first) = looks.next() else {
            let won = all_but(writer.run(at_once(group)?).await?, group)?;
            return Ok(Some(Ended { won, others: HashMap::new() }));
        };
        let (mut begun, mut rows) = writer.begin(first).await?;
        for look in looks {
            rows.extend(begun.run(look).await?);
        }
        let ended = end_lines(&mut begun, Batches::read(rows.into_iter().map(QueryResult::from))?, group).await?;
        if ended.is_some() {
            begun.commit().await?
        } else {
            begun.roll_back().await?
        }
        Ok(ended)
    }

    /// The ends, then what those that were the first move: their batches, entries, charges and deliveries.
    async fn end_and_charge(&self, group: &[&Finish]) -> Result<Ended, StoreError> {
        let write = self.write().await?;
        let batches = Batches::lock(&write, group).await?;
        let stored: Vec<_> = group.iter().map(|finish| batches.stored(finish)).collect();
        let group: Vec<&Finish> = stored.iter().map(AsRef::as_ref).collect();
        let mut won = HashSet::with_capacity(group.len());
        for portion in sql::portions(group.len()) {
            for row in write.query_all_raw(ends(write.get_database_backend(), &group[portion])?).await? {
                won.insert(MessageId(row.try_get_by_index(0)?));
            }
        }
        let winners: Vec<_> = group.iter().copied().filter(|finish| won.contains(&finish.job.id)).collect();
        let counted = if sabotage::has(Bug::LineCountedTwice) { &group } else { &winners };
        let ended_batches = batches.count(&write, counted).await?;
        let charged: Vec<_> = winners.iter().copied().filter(|finish| !is_cancelled(finish)).collect();
        for portion in sql::portions(charged.len()) {
            let entries = entry_values(&charged[portion]);
            write
                .execute_raw(fenced([&CHARGED, &UNFENCED[1]]).statement(write.get_database_backend(), entries))
                .await?;
        }
        take(&write, &charged).await?;
        caused::insert_deliveries(&write, &winners, &ended_batches).await?;
        write.commit().await?;
        Ok(Ended::new(won, &stored))
    }
}

/// The ends of a group with lines of `batches`, on SQLite. `None` when somebody is to be told of one.
async fn end_lines(
    begun: &mut Begun<'_>,
    mut batches: Batches,
    group: &[&Finish],
) -> Result<Option<Ended>, StoreError> {
    let stored: Vec<_> = group.iter().map(|finish| batches.stored(finish)).collect();
    if batches.may_tell(group.len()) || stored.iter().any(|finish| finish.job.tells(finish.outcome.status)) {
        return Ok(None);
    }
    let group: Vec<&Finish> = stored.iter().map(AsRef::as_ref).collect();
    let mut losers = Vec::new();
    for statement in at_once(&group)? {
        losers.extend(begun.run(statement).await?);
    }
    let written = all_but(losers, &group)?;
    let winners: Vec<_> = group.iter().copied().filter(|finish| written.contains(&finish.job.id)).collect();
    let moves = batches.note(&winners);
    for statement in batches.statements(DbBackend::Sqlite, &moves) {
        begun.run(statement).await?;
    }
    Ok(Some(Ended::new(written, &stored)))
}

/// What was stored, and is known without looking again.
struct Ended {
    /// Whose end is the one that was given.
    won: HashSet<MessageId>,
    /// How others have ended.
    others: HashMap<MessageId, Outcome>,
}

impl Ended {
    /// The ends of `written`, as `stored`: one that was changed on its way is not its giver's.
    fn new(mut written: HashSet<MessageId>, stored: &[Cow<'_, Finish>]) -> Self {
        let changed = stored.iter().filter(|finish| matches!(finish, Cow::Owned(_)));
        let changed = changed.filter(|finish| written.remove(&finish.job.id));
        let others = changed.map(|finish| (finish.job.id, finish.outcome.clone())).collect();
        Self { won: written, others }
    }
}

/// The ends with their entries in one text for up to 64 of them, for SQLite: one trip to its thread. What it returns are
/// the ids of those that had ended before.
fn at_once(group: &[&Finish]) -> Result<Vec<Statement>, StoreError> {
    let statements = group.chunks(sql::MOST_ROWS).map(|portion| {
        let rows = sql::padded(portion.len());
        let entries = entry_values(portion);
        let ends = ENDED_AT_ONCE.padded(end_values(portion)?, rows);
        Ok(sql::together([ended_before(portion, rows), ends, CHARGED_AT_ONCE.padded(entries, rows)]))
    });
    statements.collect()
}

fn ended_before(group: &[&Finish], rows: usize) -> Statement {
    let mut ids: Vec<Value> = group.iter().map(|finish| finish.job.id.0.into()).collect();
    ids.resize(rows, Value::BigInt(None));
    sql::over_rows(DbBackend::Sqlite, ["SELECT id FROM messages WHERE id IN (VALUES ", "", ""], 1, ENDED_BEFORE, ids)
}

/// The ids of `group` without those in `rows`.
fn all_but(rows: Vec<SqliteRow>, group: &[&Finish]) -> Result<HashSet<MessageId>, StoreError> {
    let mut ids: HashSet<_> = group.iter().map(|finish| finish.job.id).collect();
    for row in rows {
        let id = row.try_get(0).map_err(|error| StoreError::unreadable("message id", error))?;
        ids.remove(&MessageId(id));
    }
    Ok(ids)
}

/// Writes the rows of messages that have not ended; returns the ids of those.
fn ends(backend: DbBackend, group: &[&Finish]) -> Result<Statement, StoreError> {
    Ok(fenced([&ENDED, &UNFENCED[0]]).statement(backend, end_values(group)?))
}

/// The first of the two, unless its fence is to be left out.
fn fenced([with, without]: [&'static Insert; 2]) -> &'static Insert {
    if sabotage::has(Bug::NoFence) { without } else { with }
}

fn end_values(group: &[&Finish]) -> Result<Vec<Value>, StoreError> {
    let mut values = Vec::with_capacity(group.len() * COLUMNS);
    for finish in group {
        let state = State::Ended { outcome: &finish.outcome, credits_charged: charge(finish) };
        rows::push(&mut values, &finish.job, &state)?;
    }
    Ok(values)
}

/// What enters that which was used into the ledger.
fn entry_values(group: &[&Finish]) -> Vec<Value> {
    let mut values = Vec::with_capacity(group.len() * CHARGED.columns);
    group.iter().for_each(|finish| push_entry(&mut values, finish));
    values
}

fn push_entry(values: &mut Vec<Value>, finish: &Finish) {
    let Finish { job, outcome } = finish;
    values.extend([
        job.id.0.into(),
        job.account.0.into(),
        job.key.0.into(),
        job.agent.0.into(),
        outcome.completed_at.day().into(),
        LedgerKind::Charge.name().into(),
        sql::text(outcome.model.as_deref()),
        i64::from(outcome.usage.input_tokens).into(),
        i64::from(outcome.usage.output_tokens).into(),
        outcome.usage.estimated.into(),
        (-charge(finish)).into(),
        outcome.completed_at.0.into(),
    ]);
}

/// Takes what was used from the balances, which stop at their lower limit: a job must never fail to end.
async fn take(write: &Write, winners: &[&Finish]) -> Result<(), StoreError> {
    let mut charges: BTreeMap<_, MicroCredits> = BTreeMap::new();
    for finish in winners {
        let sum = charges.entry(finish.job.account).or_default();
        *sum = within_limit(sum.saturating_add(charge(finish)));
    }
    for (account, sum) in charges {
        take_from(write, account, sum).await?;
    }
    Ok(())
}

/// Takes `sum` from one balance, down to its lower limit.
pub(super) async fn take_from(write: &Write, account: AccountId, sum: MicroCredits) -> Result<(), StoreError> {
    if sum == 0 {
        return Ok(());
    }
    let update = format!(
        "UPDATE accounts SET balance = CASE WHEN balance - $1 < -{BALANCE_LIMIT} THEN -{BALANCE_LIMIT} \
         ELSE balance - $1 END WHERE id = $2"
    );
    let values = [sum.into(), account.0.into()];
    write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), &update, values)).await?;
    Ok(())
}

/// What one message costs. What a cancelled one used is known, and charged, once its run has stopped.
fn charge(finish: &Finish) -> MicroCredits {
    if is_cancelled(finish) { 0 } else { within_limit(finish.job.price.charge(finish.outcome.usage)) }
}

fn is_cancelled(finish: &Finish) -> bool {
    finish.outcome.status == MessageStatus::Cancelled
}

/// Whether all that the end leaves is a row and an entry, and what it moves in a batch. Lines may be cancelled, as many
/// of them are at once: those leave no entry.
fn is_plain(finish: &Finish) -> bool {
    let is_quiet = charge(finish) == 0 && !finish.job.tells(finish.outcome.status);
    is_quiet && (finish.job.batch.is_some() || !is_cancelled(finish))
}

/// A charge that a balance can bear.
pub(super) fn within_limit(credits: MicroCredits) -> MicroCredits {
    credits.clamp(-BALANCE_LIMIT, BALANCE_LIMIT)
}

fn answer(
    group: &[Finish],
    won: &HashSet<MessageId>,
    mut others: HashMap<MessageId, Outcome>,
) -> Result<Vec<Committed>, StoreError> {
    let committed = group.iter().map(|finish| {
        let id = finish.job.id;
        if won.contains(&id) {
            return Ok(Committed::Won { credits_charged: charge(finish) });
        }
        Ok(Committed::Lost(others.remove(&id).ok_or(StoreError::Missing("message"))?))
    });
    committed.collect()
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::{
        domain::job::Price,
        store::testing::{account, completed, failed, free, job, on_each_database, started},
    };

    const WON: Committed = Committed::Won { credits_charged: 7 };

    #[tokio::test]
    async fn the_first_end_wins_and_later_ones_learn_it() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let (fresh, begun) = (job(owner), job(owner));
            store.mark_started(&[started(&begun)]).await.expect("its row");
            let first = [completed(&begun, "one"), failed(&fresh)];
            assert_eq!(store.finish(&first).await.expect("to finish"), [WON, WON]);
            let other = job(owner);
            let second = [completed(&fresh, "two"), completed(&other, "two"), completed(&begun, "two")];
            let stored = |finish: &Finish| Committed::Lost(finish.outcome.clone());
            assert_eq!(store.finish(&second).await.expect("to finish"), [stored(&first[1]), WON, stored(&first[0])]);
            assert_eq!(store.balance(owner).await.expect("a balance"), -21);
            assert_eq!(store.ledger(owner, 9).await.expect("the ledger").len(), 3);
        })
        .await;
    }

    #[tokio::test]
    async fn free_jobs_leave_their_entries_too_and_once() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let jobs = free((0..5).map(|_| job(owner)).collect());
            let group: Vec<_> = jobs.iter().map(|job| completed(job, "one")).collect();
            let won = Committed::Won { credits_charged: 0 };
            assert_eq!(store.finish(&group[1..]).await.expect("to finish"), vec![won.clone(); 4]);
            let again = store.finish(&group).await.expect("to finish");
            assert_eq!(again[0], won);
            assert!(again[1..].iter().all(|committed| matches!(committed, Committed::Lost(_))), "{again:?}");
            let ledger = store.ledger(owner, 9).await.expect("the ledger");
            let mut entered: Vec<_> = ledger.iter().map(|entry| entry.id.0).collect();
            entered.sort_unstable();
            assert_eq!(entered, jobs.iter().map(|job| job.id.0).collect::<Vec<_>>());
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_ends_at_once_one_wins_and_one_is_billed() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let jobs: Vec<_> = (0..40).map(|_| job(owner)).collect();
            let answers = join_all((0..6).map(|worker: usize| {
                let mut group: Vec<_> = jobs.iter().map(|job| completed(job, &worker.to_string())).collect();
                // Each worker in an order of its own.
                group.rotate_left(worker * 7);
                let store = &store;
                async move {
                    let committed = store.finish(&group).await.expect("to finish");
                    let ids = group.iter().map(|finish| finish.job.id);
                    ids.zip(committed).map(|(id, committed)| (worker, id, committed)).collect::<Vec<_>>()
                }
            }))
            .await;
            let mut winner: HashMap<MessageId, usize> = HashMap::new();
            for (worker, id, committed) in answers.iter().flatten() {
                if *committed == WON {
                    assert_eq!(winner.insert(*id, *worker), None, "two won");
                }
            }
            for (_, id, committed) in answers.iter().flatten() {
                let content = winner[id].to_string();
                assert!(!matches!(committed, Committed::Lost(stored) if stored.content.as_ref() != Some(&content)));
            }
            assert_eq!(winner.len(), jobs.len());
            assert_eq!(store.balance(owner).await.expect("a balance"), -7 * 40);
            assert_eq!(store.ledger(owner, 999).await.expect("the ledger").len(), 40);
        })
        .await;
    }

    #[tokio::test]
    async fn a_row_that_is_refused_takes_its_group_along_and_no_more() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let refuse = match store.db.get_database_backend() {
                DbBackend::Sqlite => {
                    "CREATE TRIGGER refuse BEFORE INSERT ON ledger WHEN NEW.model = 'cursed' \
                     BEGIN SELECT RAISE(ABORT, 'cursed'); END"
                }
                _ => "ALTER TABLE ledger ADD CHECK (model <> 'cursed')",
            };
            store.db.execute_unprepared(refuse).await.expect("a rule");
            let mut group: Vec<_> = (0..5).map(|_| completed(&job(owner), "done")).collect();
            group[3].outcome.model = Some("cursed".to_owned());
            let refused = store.finish(&group).await.expect_err("the whole group");
            assert!(!refused.is_transient(), "{refused}");
            assert!(store.message(group[0].job.id).await.expect("an answer").is_none());
            assert_eq!(store.balance(owner).await.expect("a balance"), 0);
            for (place, finish) in group.iter().enumerate() {
                let alone = store.finish(std::slice::from_ref(finish)).await;
                assert_eq!(alone.is_ok(), place != 3, "{alone:?}");
            }
            assert_eq!(store.balance(owner).await.expect("a balance"), -7 * 4);
        })
        .await;
    }

    #[tokio::test]
    async fn whatever_a_model_says_and_costs_is_stored() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let dearly = || {
                let mut dear = (*job(owner)).clone();
                dear.price = Price { input: i64::MAX, output: i64::MAX };
                let mut finish = completed(&dear.into(), "zero \0 and 'quotes' \u{1f980}");
                finish.outcome.usage.output_tokens = u32::MAX;
                finish
            };
            let finish = dearly();
            for group in [vec![dearly(), dearly()], vec![dearly(), finish.clone()]] {
                store.finish(&group).await.expect("to finish");
            }
            let stored = store.outcomes(&[finish.job.id]).await.expect("outcomes").remove(0).1;
            assert_eq!(stored.content.as_deref(), Some("zero \u{fffd} and 'quotes' \u{1f980}"));
            assert_eq!(store.balance(owner).await.expect("a balance"), -BALANCE_LIMIT);
        })
        .await;
    }

    #[tokio::test]
    async fn a_job_ends_also_when_its_account_is_gone() {
        on_each_database(async |store| {
            assert_eq!(store.finish(&[completed(&job(AccountId::new()), "done")]).await.expect("to finish"), [WON]);
            assert!(store.finish(&[]).await.expect("nothing to do").is_empty());
        })
        .await;
    }
}
