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

// One that was given up meanwhile stays so, unless the receiver has taken it; and so does one that is due at another
// moment by now: somebody asked for it to be sent again while it was on its way.
const TRIED: &str = "UPDATE webhook_deliveries SET tries = tries + 1, \
     step = CASE WHEN next_at = $6 THEN step + $1 ELSE step END, \
     next_at = CASE WHEN next_at = $6 OR $3 = 'delivered' THEN $2 ELSE next_at END, \
     status = CASE WHEN status = 'pending' AND next_at = $6 OR $3 = 'delivered' THEN $3 ELSE status END \
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
    /// When it was due as it was claimed.
    pub due_at: Millis,
    /// The try.
    pub tried: Try,
    /// What is to become of the delivery.
    pub verdict: Verdict,
    /// What is to become of the receiver.
    pub then: Then,
}

/// What a settlement found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whether the receiver was still the claimer's. If not, it is somebody else's or not wanted any more, and nothing
    /// was noted about it.
    pub is_ours: bool,
    /// Since when the receiver has been failing, if it does.
    pub failing_since: Option<Millis>,
}

impl Store {
    /// Stores what came of tries. A try that is stored already, under its number, is left as it is, and so is a
    /// receiver that is not the claimer's any more.
    pub async fn settle(&self, tries: &[Settlement], now: Millis) -> Result<Vec<Settled>, StoreError> {
        within_patience(async {
            // In one order everywhere: PostgreSQL locks row by row, and two orders would be a deadlock.
            let mut order: Vec<_> = (0..tries.len()).collect();
            order.sort_by_key(|place| tries[*place].target);
            let mut settled = vec![Settled { is_ours: false, failing_since: None }; tries.len()];
            let write = self.write().await?;
            for place in order {
                settled[place] = settle(&write, &tries[place], now).await?;
            }
            write.commit().await?;
            Ok(settled)
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

async fn settle(write: &Write, settlement: &Settlement, now: Millis) -> Result<Settled, StoreError> {
    // The receiver before its deliveries, as everywhere.
    let settled = note_health(write, settlement, now).await?;
    let Settlement { delivery, due_at, tried, verdict, .. } = settlement;
    let (status, failed, next_at) = match verdict {
        Verdict::Delivered => (DeliveryStatus::Delivered, 0, tried.at),
        Verdict::Again(at) => (DeliveryStatus::Pending, 1, *at),
        Verdict::Failed => (DeliveryStatus::Failed, 1, tried.at),
    };
    let n = i32::try_from(tried.n).unwrap_or(i32::MAX);
    let values: [Value; 6] =
        [failed.into(), next_at.0.into(), status.name().into(), delivery.0.into(), (n - 1).into(), due_at.0.into()];
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
    Ok(settled)
}

/// Notes how the receiver did, and begins its lease anew.
async fn note_health(write: &Write, settlement: &Settlement, now: Millis) -> Result<Settled, StoreError> {
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
    Ok(Settled { is_ours: since.is_some(), failing_since: since.flatten().map(Millis) })
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::store::{
        claims::{Claim, ClaimLimits, Class},
        testing::{ROOMY, account, calling_back, completed, endpoint, notifying, on_each_database, tried},
    };

    const PAUSELESS: Then = Then::Release(Duration::ZERO);
    const MINUTE: Duration = Duration::from_mins(1);

    async fn claim(store: &Store, class: Class, now: Millis) -> Option<Claim> {
        store.claim_targets(class, &ROOMY, now).await.expect("claims").into_iter().next()
    }

    #[tokio::test]
    async fn a_failing_receiver_changes_class_until_it_takes_something() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let id = endpoint(&store, owner, &[]).await.id;
            store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
            let first = Millis::now();
            let taken = claim(&store, Class::Untried, first).await.expect("a claim");
            let again = Verdict::Again(first.plus(MINUTE));
            let lost = tried(&taken, &taken.deliveries[0], again, Then::Release(Duration::ZERO), first);
            let settled = store.settle(std::slice::from_ref(&lost), first).await.expect("to settle");
            assert_eq!(settled, [Settled { is_ours: true, failing_since: Some(first) }]);
            let settled = store.settle(&[lost], first).await.expect("to settle");
            assert_eq!(settled, [Settled { is_ours: false, failing_since: None }], "it is not claimed");

            let second = first.plus(MINUTE);
            assert!(claim(&store, Class::Untried, second).await.is_none());
            assert!(claim(&store, Class::Failing, first).await.is_none(), "not yet");
            let taken = claim(&store, Class::Failing, second).await.expect("a claim");
            assert_eq!((taken.failures, taken.failing_since, taken.proven), (1, Some(first), false));
            let delivery = &taken.deliveries[0].delivery;
            assert_eq!((delivery.tries, delivery.step), (1, 1), "the second settlement was left out");
            let won = tried(&taken, &taken.deliveries[0], Verdict::Delivered, Then::Release(Duration::ZERO), second);
            let settled = store.settle(&[won], second).await.expect("to settle");
            assert_eq!(settled, [Settled { is_ours: true, failing_since: None }]);

            store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
            assert!(claim(&store, Class::Untried, second).await.is_none());
            let taken = claim(&store, Class::Healthy, second).await.expect("a claim");
            assert_eq!((taken.failures, taken.failing_since, taken.proven), (0, None, true));
            let lost = tried(&taken, &taken.deliveries[0], Verdict::Again(second), PAUSELESS, second);
            store.settle(&[lost], second).await.expect("to settle");
            assert!(claim(&store, Class::Failing, second).await.is_none());
            let taken = claim(&store, Class::Shaken, second).await.expect("a claim");
            assert_eq!((taken.failures, taken.failing_since, taken.proven), (1, Some(second), true));
            let log = store.deliveries(owner, id, None, 9).await.expect("the log");
            let (delivery, tries) = &log[1];
            assert_eq!((delivery.status, delivery.tries), (DeliveryStatus::Delivered, 2));
            let statuses: Vec<_> = tries.iter().map(|tried| (tried.n, tried.at, tried.status)).collect();
            assert_eq!(statuses, [(1, first, Some(500)), (2, second, Some(204))]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_pause_holds_the_receiver_and_what_comes_meanwhile() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let end = async || {
                let job = calling_back(owner, "https://example.com");
                store.finish(&[completed(&job, "done")]).await.expect("to finish");
            };
            end().await;
            let now = Millis::now();
            let taken = claim(&store, Class::Untried, now).await.expect("a claim");
            let lost = tried(&taken, &taken.deliveries[0], Verdict::Failed, Then::Release(MINUTE), now);
            store.settle(&[lost], now).await.expect("to settle");
            end().await;
            assert!(claim(&store, Class::Failing, now.plus(MINUTE / 2)).await.is_none());
            let taken = claim(&store, Class::Failing, now.plus(MINUTE)).await.expect("a claim");
            assert_eq!(taken.deliveries.len(), 1, "the first was given up");
        })
        .await;
    }

    #[tokio::test]
    async fn a_kept_receiver_stays_its_claimers() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            for _ in 0..2 {
                let job = calling_back(owner, "https://example.com");
                store.finish(&[completed(&job, "done")]).await.expect("to finish");
            }
            let now = Millis::now();
            let taken = claim(&store, Class::Untried, now).await.expect("a claim");
            let later = now.plus(ROOMY.lease / 2);
            let kept = tried(&taken, &taken.deliveries[0], Verdict::Delivered, Then::Keep(ROOMY.lease), later);
            store.settle(&[kept], later).await.expect("to settle");
            assert!(claim(&store, Class::Healthy, now.plus(ROOMY.lease)).await.is_none());
            let over = later.plus(ROOMY.lease);
            assert_eq!(claim(&store, Class::Healthy, over).await.expect("a claim").deliveries.len(), 1);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everything_that_ends_while_others_send_is_sent_once() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let id = endpoint(&store, owner, &[]).await.id;
            let ending = join_all((0..4).map(async |_| {
                for _ in 0..25 {
                    let ends = [completed(&notifying(owner), "done"), completed(&notifying(owner), "done")];
                    store.finish(&ends).await.expect("to finish");
                }
            }));
            let sending = join_all((0..3).map(async |_| {
                let limits = ClaimLimits { each: 3, ..ROOMY };
                let (mut sent, mut idle) = (0, 0);
                while idle < 50 {
                    let now = Millis::now();
                    let mut claims = store.claim_targets(Class::Untried, &limits, now).await.expect("claims");
                    claims.extend(store.claim_targets(Class::Healthy, &limits, now).await.expect("claims"));
                    idle = if claims.is_empty() { idle + 1 } else { 0 };
                    for claim in claims {
                        let then = |place| match place + 1 == claim.deliveries.len() {
                            true => Then::Release(Duration::ZERO),
                            false => Then::Keep(limits.lease),
                        };
                        let due = claim.deliveries.iter().enumerate();
                        let tries: Vec<_> =
                            due.map(|(place, due)| tried(&claim, due, Verdict::Delivered, then(place), now)).collect();
                        sent += tries.len();
                        store.settle(&tries, now).await.expect("to settle");
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                sent
            }));
            let (_, sent) = tokio::join!(ending, sending);
            assert_eq!(sent.iter().sum::<usize>(), 200);
            let log = store.deliveries(owner, id, None, 999).await.expect("the log");
            assert_eq!(log.len(), 200);
            assert!(
                log.iter()
                    .all(|(delivery, tries)| { delivery.status == DeliveryStatus::Delivered && tries.len() == 1 })
            );
        })
        .await;
    }
}
