//! Receivers of webhooks, and whose turn it is. A worker takes a receiver for a while, with the oldest of what is due
//! for it: so no receiver gets more at once than its worker allows, and no backlog is ever searched for another's.

use std::{collections::BTreeSet, time::Duration};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult as _, QueryFilter as _,
    Statement, Value, sea_query::Expr,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    entity::{
        webhook_delivery,
        webhook_target::{Column, Entity},
    },
    error::StoreError,
    sql::{self, Insert},
    write::Write,
};
use crate::domain::{
    delivery::DeliveryStatus,
    ids::{AccountId, EndpointId},
    time::Millis,
};

/// A receiver: an endpoint, or the host that callbacks of one account go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub(super) Uuid);

impl TargetId {
    /// The receiver that an endpoint is.
    pub fn of_endpoint(id: EndpointId) -> Self {
        Self(id.0)
    }

    /// The receiver of an account's callbacks to the scheme, host and port of `url`.
    pub fn of_callback(account: AccountId, url: &str) -> Self {
        let host = url.find("://").map_or(0, |place| place + 3);
        let end = url[host..].find(['/', '?', '#', '\\']).map_or(url.len(), |place| host + place);
        let mut hash = Sha256::new();
        hash.update(account.0.as_bytes());
        hash.update(url[..end].to_lowercase());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        Self(Uuid::from_bytes(id))
    }
}

/// Whether a delivery waits for the end of a pause after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It does.
    InTurn,
    /// It does not: somebody watches.
    Now,
}

const HEAD: &str = "webhook_targets (id, ready_at, held_until, proven, failing, failures)";

const WOKEN: Insert = Insert {
    head: HEAD,
    columns: 6,
    tail: "ON CONFLICT (id) DO UPDATE SET ready_at = CASE WHEN webhook_targets.held_until > excluded.ready_at \
           THEN webhook_targets.held_until ELSE excluded.ready_at END \
           WHERE webhook_targets.ready_at IS NULL OR webhook_targets.ready_at > excluded.ready_at",
};

const WOKEN_NOW: Insert = Insert {
    head: HEAD,
    columns: 6,
    tail: "ON CONFLICT (id) DO UPDATE SET \
           held_until = CASE WHEN webhook_targets.claim IS NULL THEN 0 ELSE webhook_targets.held_until END, \
           ready_at = CASE WHEN webhook_targets.claim IS NOT NULL AND webhook_targets.held_until > excluded.ready_at \
           THEN webhook_targets.held_until ELSE excluded.ready_at END \
           WHERE webhook_targets.ready_at IS NULL OR webhook_targets.ready_at > excluded.ready_at",
};

/// Says that something is due for `targets` at `at`.
pub(super) async fn wake(
    write: &Write,
    targets: BTreeSet<TargetId>,
    at: Millis,
    urgency: Urgency,
) -> Result<(), StoreError> {
    let insert = match urgency {
        Urgency::InTurn => &WOKEN,
        Urgency::Now => &WOKEN_NOW,
    };
    // In one order everywhere: PostgreSQL locks row by row, and two orders would be a deadlock.
    let targets: Vec<_> = targets.into_iter().collect();
    for portion in sql::portions(targets.len()) {
        let mut values: Vec<Value> = Vec::with_capacity(portion.len() * insert.columns);
        for target in &targets[portion] {
            values.extend([target.0.into(), at.0.into(), 0_i64.into(), false.into(), false.into(), 0.into()]);
        }
        write.execute_raw(insert.statement(write.get_database_backend(), values)).await?;
    }
    Ok(())
}

/// A receiver that was taken.
pub(super) struct Taken {
    pub(super) target: TargetId,
    pub(super) proven: bool,
    pub(super) failures: i32,
    pub(super) failing_since: Option<i64>,
}

/// Takes up to `most` receivers, such as have taken something or have not and such as failed last or did not, for which something is due, those first that have waited for longest.
pub(super) async fn take_due(
    write: &Write,
    (proven, failing): (bool, bool),
    most: u64,
    claim: Uuid,
    now: Millis,
    until: Millis,
) -> Result<Vec<Taken>, StoreError> {
    let statement = take(write.get_database_backend(), (proven, failing), most, claim, (now, until));
    let rows = write.query_all_raw(statement).await?;
    let taken = rows.iter().map(|row| {
        Ok(Taken {
            target: TargetId(row.try_get("", "id")?),
            proven: row.try_get("", "proven")?,
            failures: row.try_get("", "failures")?,
            failing_since: row.try_get("", "failing_since")?,
        })
    });
    taken.collect()
}

fn take(
    backend: DbBackend,
    (proven, failing): (bool, bool),
    most: u64,
    claim: Uuid,
    (now, until): (Millis, Millis),
) -> Statement {
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let take = format!(
        "WITH due AS MATERIALIZED (SELECT id FROM webhook_targets WHERE failing = $1 AND proven = $6 AND ready_at <= $2 \
         ORDER BY ready_at LIMIT $3 {skip}) \
         UPDATE webhook_targets SET claim = $4, held_until = $5, ready_at = $5 \
         WHERE id IN (SELECT id FROM due) RETURNING id, proven, failures, failing_since"
    );
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let values: [Value; 6] = [failing.into(), now.0.into(), most.into(), claim.into(), until.0.into(), proven.into()];
    Statement::from_sql_and_values(backend, take, values)
}

/// The oldest deliveries that are due for `targets`, at most `each` of one.
pub(super) async fn due(
    write: &Write,
    targets: &[TargetId],
    each: u64,
    now: Millis,
) -> Result<Vec<webhook_delivery::Model>, StoreError> {
    let mut found = Vec::new();
    for portion in sql::portions(targets.len()) {
        let union = select_due(write.get_database_backend(), &targets[portion], each, now);
        for row in write.query_all_raw(union).await? {
            found.push(webhook_delivery::Model::from_query_result(&row, "")?);
        }
    }
    Ok(found)
}

fn select_due(backend: DbBackend, targets: &[TargetId], each: u64, now: Millis) -> Statement {
    let mut values: Vec<Value> = vec![now.0.into(), i64::try_from(each).unwrap_or(i64::MAX).into()];
    let mut parts = Vec::with_capacity(targets.len());
    for target in targets {
        values.push(target.0.into());
        parts.push(format!(
            "SELECT * FROM (SELECT * FROM webhook_deliveries WHERE target_id = ${} AND status = 'pending' \
             AND next_at <= $1 ORDER BY next_at, id LIMIT $2) AS t",
            values.len()
        ));
    }
    Statement::from_sql_and_values(backend, parts.join(" UNION ALL "), values)
}

/// Gives a receiver back to whoever comes next, `hold` from now at the earliest. Nothing happens when the lease has
/// been over and somebody else has it.
pub(super) async fn release(
    write: &Write,
    target: TargetId,
    claim: Uuid,
    now: Millis,
    hold: Duration,
) -> Result<(), StoreError> {
    let held_until = now.plus(hold);
    let given_back = Entity::update_many()
        .col_expr(Column::Claim, Expr::value(Option::<Uuid>::None))
        .col_expr(Column::HeldUntil, Expr::value(held_until.0))
        .filter(Column::Id.eq(target.0))
        .filter(Column::Claim.eq(claim))
        .exec(&**write)
        .await?;
    if given_back.rows_affected > 0 {
        // A statement of its own: on PostgreSQL it sees what was committed before the row was locked.
        look_again(write, target, held_until).await?;
    }
    Ok(())
}

/// Notes when the next delivery of a receiver is due, but not before `earliest`.
async fn look_again(write: &Write, target: TargetId, earliest: Millis) -> Result<(), StoreError> {
    // Not MIN, for which SQLite reads the whole backlog; and with the table's name, since PostgreSQL would order by
    // the expression.
    let look = "UPDATE webhook_targets SET ready_at = (SELECT CASE WHEN d.next_at < $1 THEN $1 ELSE d.next_at END \
                FROM webhook_deliveries d WHERE d.target_id = $2 AND d.status = 'pending' ORDER BY d.next_at LIMIT 1) \
                WHERE id = $2";
    let values: [Value; 2] = [earliest.0.into(), target.0.into()];
    write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), look, values)).await?;
    Ok(())
}

/// Gives up some of what has been due for a receiver since before `overdue`, the oldest first.
pub(super) async fn give_up(write: &Write, target: TargetId, overdue: Millis) -> Result<(), StoreError> {
    let give_up = "UPDATE webhook_deliveries SET status = 'failed' WHERE id IN (SELECT id FROM webhook_deliveries \
                   WHERE target_id = $1 AND status = 'pending' AND next_at < $2 ORDER BY next_at, id LIMIT 500)";
    let values: [Value; 2] = [target.0.into(), overdue.0.into()];
    write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), give_up, values)).await?;
    Ok(())
}

/// Gives up what is pending for an endpoint.
pub(super) async fn drop_pending(write: &Write, id: EndpointId) -> Result<(), StoreError> {
    use webhook_delivery::{Column as Of, Entity as Deliveries};
    let target = TargetId::of_endpoint(id);
    // The receiver before its deliveries, as everywhere.
    take_back(write, id, Millis(0)).await?;
    Entity::update_many()
        .col_expr(Column::ReadyAt, Expr::value(Option::<i64>::None))
        .filter(Column::Id.eq(target.0))
        .exec(&**write)
        .await?;
    Deliveries::update_many()
        .col_expr(Of::Status, Expr::value(DeliveryStatus::Dropped.name()))
        .filter(Of::TargetId.eq(target.0))
        .filter(Expr::cust("status = 'pending'"))
        .exec(&**write)
        .await?;
    Ok(())
}

/// Takes an endpoint from whoever has it, since what they hold in memory is not how it is any more: they stop at the
/// next settlement, and others may come at once.
pub(super) async fn take_back(write: &Write, id: EndpointId, now: Millis) -> Result<(), StoreError> {
    let taken_back = Entity::update_many()
        .col_expr(Column::Claim, Expr::value(Option::<Uuid>::None))
        .col_expr(Column::HeldUntil, Expr::value(now.0))
        .filter(Column::Id.eq(id.0))
        .filter(Column::Claim.is_not_null())
        .exec(&**write)
        .await?;
    if taken_back.rows_affected > 0 {
        look_again(write, TargetId::of_endpoint(id), now).await?;
    }
    Ok(())
}

/// Forgets how an endpoint behaved.
pub(super) async fn forgive(write: &Write, id: EndpointId) -> Result<(), StoreError> {
    Entity::update_many()
        .col_expr(Column::Proven, Expr::value(false))
        .col_expr(Column::Failing, Expr::value(false))
        .col_expr(Column::Failures, Expr::value(0))
        .col_expr(Column::FailingSince, Expr::value(Option::<i64>::None))
        .filter(Column::Id.eq(id.0))
        .exec(&**write)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::on_each_database;

    #[test]
    fn callbacks_of_one_account_to_one_host_are_one_receiver() {
        let (owner, other) = (AccountId::new(), AccountId::new());
        let of = TargetId::of_callback;
        let one = of(owner, "https://example.com/a?b");
        assert_eq!(one, of(owner, "HTTPS://Example.com"));
        assert_eq!(one, of(owner, "https://example.com#c"));
        assert_ne!(one, of(owner, "https://example.com:444/a"));
        assert_ne!(one, of(owner, "http://example.com/a"));
        assert_ne!(one, of(other, "https://example.com/a"));
        of(owner, "no address");
    }

    #[tokio::test]
    async fn what_is_due_is_found_by_indexes() {
        on_each_database(async |store| {
            if store.db.get_database_backend() != DbBackend::Sqlite {
                return;
            }
            let id = TargetId(EndpointId::new().0);
            let take = take(DbBackend::Sqlite, (false, false), 9, id.0, (Millis(0), Millis(0)));
            let select = select_due(DbBackend::Sqlite, &[id], 9, Millis(0));
            for (mut statement, index) in [
                (take, "webhook_targets_failing_proven_ready_at (failing=? AND proven=? AND ready_at<?)"),
                (select, "webhook_deliveries_target_id_next_at_id (target_id=? AND next_at<?)"),
            ] {
                statement.sql = format!("EXPLAIN QUERY PLAN {}", statement.sql);
                let rows = store.db.query_all_raw(statement).await.expect("a plan");
                let plan: Vec<String> = rows.iter().map(|row| row.try_get("", "detail").expect("a line")).collect();
                assert!(plan.iter().any(|line| line.ends_with(index)), "{plan:?}");
                assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{plan:?}");
            }
        })
        .await;
    }
}
