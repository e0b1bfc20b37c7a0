//! What came of tries: the log of a delivery, when it is tried again, and how its receiver does.

use std::time::Duration;

use sea_orm::{ActiveModelTrait as _, ActiveValue::Set, ConnectionTrait as _, Statement, Value};

use super::{
    claims::Token,
    connection::{Store, within_patience},
    entity::webhook_try,
    error::StoreError,
    targets::{self, TargetId},
    write::Write,
};
use crate::domain::{
    delivery::{DeliveryStatus, Try},
    ids::DeliveryId,
    time::Millis,
};

const SUCCESS: &str = "UPDATE webhook_targets SET held_until = $1, ready_at = $1, proven = TRUE, failing = FALSE, \
     failures = 0, failing_since = NULL WHERE id = $2 AND claim = $3 RETURNING failing_since";

const FAILURE: &str = "UPDATE webhook_targets SET held_until = $1, ready_at = $1, failing = TRUE, \
     failures = failures + 1, failing_since = CASE WHEN failing_since IS NULL THEN $4 ELSE failing_since END \
     WHERE id = $2 AND claim = $3 RETURNING failing_since";

// One that was given up meanwhile stays so, unless the receiver has taken it.
const TRIED: &str = "UPDATE webhook_deliveries SET tries = tries + 1, step = step + $1, next_at = $2, \
     status = CASE WHEN status = 'pending' OR $3 = 'delivered' THEN $3 ELSE status END \
     WHERE id = $4 AND tries = $5";

/// What is to become of a delivery after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver took it.
    Delivered,
    /// It is tried again at that moment.
    Again(Millis),
    /// It is given up.
    Failed,
}

/// What is to become of the receiver after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays the claimer's, for this long.
    Keep(Duration),
    /// It is for whoever comes, after this pause.
    Release(Duration),
}

/// A try that is over.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The receiver.
    pub target: TargetId,
    /// Proof that it was claimed.
    pub token: Token,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The try.
    pub tried: Try,
    /// What is to become of the delivery.
    pub verdict: Verdict,
    /// What is to become of the receiver.
    pub then: Then,
}

impl Store {
    /// Stores what came of tries. Says for each since when its receiver has been failing, if it does. A try that is
    /// stored already, under its number, is left as it is, and so is a receiver that others have claimed.
    pub async fn settle(&self, tries: &[Settlement], now: Millis) -> Result<Vec<Option<Millis>>, StoreError> {
        within_patience(async {
            // In one order everywhere: PostgreSQL locks row by row, and two orders would be a deadlock.
            let mut order: Vec<_> = (0..tries.len()).collect();
            order.sort_by_key(|place| tries[*place].target);
            let mut failing = vec![None; tries.len()];
            let write = self.write().await?;
            for place in order {
                failing[place] = settle(&write, &tries[place], now).await?;
            }
            write.commit().await?;
            Ok(failing)
        })
        .await
    }

    /// Gives a receiver back untried, or after a try that was settled with [`Then::Keep`].
    pub async fn release_target(&self, target: TargetId, token: Token, now: Millis) -> Result<(), StoreError> {
        within_patience(async {
            let write = self.write().await?;
            targets::release(&write, target, token.0, now, Duration::ZERO).await?;
            write.commit().await
        })
        .await
    }
}

async fn settle(write: &Write, settlement: &Settlement, now: Millis) -> Result<Option<Millis>, StoreError> {
    // The receiver before its deliveries, as everywhere.
    let failing_since = note_health(write, settlement, now).await?;
    let Settlement { delivery, tried, verdict, .. } = settlement;
    let (status, failed, next_at) = match verdict {
        Verdict::Delivered => (DeliveryStatus::Delivered, 0, tried.at),
        Verdict::Again(at) => (DeliveryStatus::Pending, 1, *at),
        Verdict::Failed => (DeliveryStatus::Failed, 1, tried.at),
    };
    let n = i32::try_from(tried.n).unwrap_or(i32::MAX);
    let values: [Value; 5] = [failed.into(), next_at.0.into(), status.name().into(), delivery.0.into(), (n - 1).into()];
    let statement = Statement::from_sql_and_values(write.get_database_backend(), TRIED, values);
    if write.execute_raw(statement).await?.rows_affected() > 0 {
        let row = webhook_try::ActiveModel {
            delivery_id: Set(delivery.0),
            n: Set(n),
            at: Set(tried.at.0),
            status: Set(tried.status.map(i32::from)),
            error: Set(tried.error.as_ref().map(|error| error.replace('\0', "\u{fffd}"))),
            duration_ms: Set(tried.duration_ms.into()),
        };
        row.insert(&**write).await?;
    }
    if let Then::Release(hold) = settlement.then {
        targets::release(write, settlement.target, settlement.token.0, now, hold).await?;
    }
    Ok(failing_since)
}

/// Notes how the receiver did, and begins its lease anew.
async fn note_health(write: &Write, settlement: &Settlement, now: Millis) -> Result<Option<Millis>, StoreError> {
    let Settlement { target, token, tried, verdict, then, .. } = settlement;
    let until = match then {
        Then::Keep(lease) => now.plus(*lease),
        Then::Release(hold) => now.plus(*hold),
    };
    let mut values: Vec<Value> = vec![until.0.into(), target.0.into(), token.0.into()];
    let update = match verdict {
        Verdict::Delivered => SUCCESS,
        Verdict::Again(_) | Verdict::Failed => {
            values.push(tried.at.0.into());
            FAILURE
        }
    };
    let statement = Statement::from_sql_and_values(write.get_database_backend(), update, values);
    let row = write.query_all_raw(statement).await?.into_iter().next();
    let since = row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?;
    Ok(since.flatten().map(Millis))
}
