//! What became of deliveries, sending one again, trying an endpoint out, and forgetting what is old.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Statement, Value,
};

use super::{
    connection::{Store, within_patience},
    deliveries::{self, NewDelivery},
    entity::{webhook_delivery, webhook_endpoint, webhook_try},
    error::StoreError,
    listing, sql, stored,
    targets::{self, TargetId, Urgency},
};
use crate::domain::{
    delivery::{Delivery, Try},
    event::EventKind,
    ids::{AccountId, DeliveryId, EndpointId},
    time::Millis,
};

/// How many rows are deleted in one transaction.
const PORTION: u64 = 500;

const REPLAY: &str = "UPDATE webhook_deliveries SET status = 'pending', step = 0, next_at = $1 \
     WHERE id = $2 AND account_id = $3 AND (endpoint_id IS NULL OR EXISTS \
     (SELECT 1 FROM webhook_endpoints e WHERE e.id = endpoint_id AND e.enabled))";

/// What came of a wish to send a delivery again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It is due now, with the whole schedule before it.
    Again,
    /// Its endpoint was switched off or removed.
    Disabled,
    /// The account has no such delivery.
    Missing,
}

impl Store {
    /// The newest `limit` deliveries to an endpoint, newest first, from `before` on, each with its tries.
    pub async fn deliveries(
        &self,
        account: AccountId,
        endpoint: EndpointId,
        before: Option<DeliveryId>,
        limit: u64,
    ) -> Result<Vec<(Delivery, Vec<Try>)>, StoreError> {
        use webhook_delivery::{Column, Entity};
        let mut select = Entity::find()
            .filter(Column::EndpointId.eq(endpoint.0))
            .filter(Column::AccountId.eq(account.0))
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(id) = before {
            select = select.filter(Column::Id.lt(id.0));
        }
        within_patience(async {
            let rows = select.all(&self.db).await?;
            let deliveries = rows.into_iter().map(deliveries::from_row).collect::<Result<Vec<_>, _>>()?;
            let mut tries = self.tries(&deliveries).await?;
            Ok(deliveries
                .into_iter()
                .map(|delivery| {
                    let of_it = tries.remove(&delivery.id).unwrap_or_default();
                    (delivery, of_it)
                })
                .collect())
        })
        .await
    }

    /// One delivery of the account, with its tries.
    pub async fn delivery(
        &self,
        account: AccountId,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Try>)>, StoreError> {
        use webhook_delivery::{Column, Entity};
        within_patience(async {
            let row = Entity::find_by_id(id.0).filter(Column::AccountId.eq(account.0)).one(&self.db).await?;
            let Some(delivery) = row.map(deliveries::from_row).transpose()? else { return Ok(None) };
            let tries = self.tries(std::slice::from_ref(&delivery)).await?.remove(&id).unwrap_or_default();
            Ok(Some((delivery, tries)))
        })
        .await
    }

    /// The tries that `deliveries` know of: one that came in after they were read would not fit what they say.
    async fn tries(&self, deliveries: &[Delivery]) -> Result<HashMap<DeliveryId, Vec<Try>>, StoreError> {
        use webhook_try::{Column, Entity};
        let known: HashMap<_, _> = deliveries.iter().map(|delivery| (delivery.id, delivery.tries)).collect();
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for portion in sql::portions(deliveries.len()) {
            let rows = Entity::find()
                .filter(Column::DeliveryId.is_in(deliveries[portion].iter().map(|delivery| delivery.id.0)))
                .order_by_asc(Column::DeliveryId)
                .order_by_asc(Column::N);
            for row in rows.all(&self.db).await? {
                let (id, tried) = (DeliveryId(row.delivery_id), try_from_row(row)?);
                if known.get(&id).is_some_and(|known| tried.n <= *known) {
                    found.entry(id).or_default().push(tried);
                }
            }
        }
        Ok(found)
    }

    /// Makes a delivery of the account due at `now`, whatever became of it before.
    pub async fn replay_delivery(
        &self,
        account: AccountId,
        id: DeliveryId,
        now: Millis,
    ) -> Result<Replayed, StoreError> {
        use webhook_delivery::{Column, Entity};
        let values: [Value; 3] = [now.0.into(), id.0.into(), account.0.into()];
        within_patience(async {
            let write = self.write().await?;
            let found = Entity::find_by_id(id.0).filter(Column::AccountId.eq(account.0)).one(&*write).await?;
            let Some(row) = found else { return Ok(Replayed::Missing) };
            // The receiver before its deliveries, as everywhere.
            let target = BTreeSet::from([TargetId(row.target_id)]);
            targets::wake(&write, target, now, Urgency::Now).await?;
            let replay = Statement::from_sql_and_values(write.get_database_backend(), REPLAY, values);
            if write.execute_raw(replay).await?.rows_affected() == 0 {
                return Ok(Replayed::Disabled);
            }
            write.commit().await?;
            Ok(Replayed::Again)
        })
        .await
    }

    /// Makes a `webhook.test` for an endpoint of the account, on or off, due at `now`; `None` when there is none.
    pub async fn test_endpoint(
        &self,
        account: AccountId,
        endpoint: EndpointId,
        now: Millis,
    ) -> Result<Option<DeliveryId>, StoreError> {
        use webhook_endpoint::{Column, Entity};
        let target = TargetId::of_endpoint(endpoint);
        let new = NewDelivery {
            account,
            of: None,
            event: EventKind::WebhookTest,
            target,
            endpoint: Some(endpoint),
            callback_url: None,
            at: now,
        };
        within_patience(async {
            let write = self.write().await?;
            let found = Entity::find_by_id(endpoint.0).filter(Column::AccountId.eq(account.0)).one(&*write).await?;
            if found.is_none() {
                return Ok(None);
            }
            let made = deliveries::insert(&write, &[new]).await?;
            targets::wake(&write, BTreeSet::from([target]), now, Urgency::Now).await?;
            write.commit().await?;
            Ok(made.into_iter().next())
        })
        .await
    }

    /// Forgets the deliveries that were made before `before` and are over, with their tries, and receivers for which
    /// nothing is pending since then. How many deliveries those were.
    pub async fn forget_old_deliveries(&self, before: Millis) -> Result<u64, StoreError> {
        let oldest_kept: Value = listing::first_id(before).into();
        let tries = "DELETE FROM webhook_tries WHERE delivery_id IN (SELECT id FROM webhook_deliveries \
                     WHERE id < $1 AND status <> 'pending' ORDER BY id LIMIT $2)";
        let deliveries = "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries \
                          WHERE id < $1 AND status <> 'pending' ORDER BY id LIMIT $2)";
        let targets = "DELETE FROM webhook_targets WHERE ready_at IS NULL AND held_until < $1";
        let mut forgotten = 0;
        loop {
            let deleted = within_patience(async {
                let write = self.write().await?;
                let run = async |text: &str, values: Vec<Value>| {
                    write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), text, values)).await
                };
                let portion = i64::try_from(PORTION).unwrap_or(i64::MAX);
                run(targets, vec![before.0.into()]).await?;
                run(tries, vec![oldest_kept.clone(), portion.into()]).await?;
                let deleted = run(deliveries, vec![oldest_kept.clone(), portion.into()]).await?.rows_affected();
                write.commit().await?;
                Ok(deleted)
            })
            .await?;
            forgotten += deleted;
            if deleted < PORTION {
                return Ok(forgotten);
            }
        }
    }
}

fn try_from_row(row: webhook_try::Model) -> Result<Try, StoreError> {
    let status = row.status.map(u16::try_from).transpose();
    Ok(Try {
        n: stored::count("try", row.n.into())?,
        at: Millis(row.at),
        status: status.map_err(|error| StoreError::unreadable("status", error))?,
        error: row.error,
        duration_ms: stored::count("duration", row.duration_ms)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        domain::{delivery::DeliveryStatus, endpoint::DisabledReason},
        store::{
            claims::{Claim, Class},
            settlements::{Then, Verdict},
            testing::{ROOMY, account, completed, endpoint, notifying, on_each_database, tried},
        },
    };

    const PAUSE: Then = Then::Release(Duration::from_mins(1));

    async fn claims(store: &Store, class: Class, now: Millis) -> Vec<Claim> {
        store.claim_targets(class, &ROOMY, now).await.expect("claims")
    }

    #[tokio::test]
    async fn the_log_comes_in_pages_and_to_its_owner() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let id = endpoint(&store, owner, &[]).await.id;
            let ends: Vec<_> = (0..5).map(|_| completed(&notifying(owner), "done")).collect();
            store.finish(&ends).await.expect("to finish");
            let all = store.deliveries(owner, id, None, 9).await.expect("the log");
            assert_eq!(all.len(), 5);
            let first = store.deliveries(owner, id, None, 2).await.expect("the log");
            let rest = store.deliveries(owner, id, Some(first[1].0.id), 9).await.expect("the log");
            assert_eq!([first, rest].concat(), all);
            assert!(store.deliveries(other, id, None, 9).await.expect("the log").is_empty());
            let one = store.delivery(owner, all[0].0.id).await.expect("an answer");
            assert_eq!(one.as_ref(), Some(&all[0]));
            assert!(store.delivery(other, all[0].0.id).await.expect("an answer").is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_try_that_came_in_between_is_not_told_of() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            endpoint(&store, owner, &[]).await;
            store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
            let now = Millis::now();
            let claim = claims(&store, Class::Untried, now).await.remove(0);
            let before = claim.deliveries[0].delivery.clone();
            store.settle(&[tried(&claim, &claim.deliveries[0], Verdict::Failed, PAUSE, now)], now).await.expect("lost");
            let after = store.delivery(owner, before.id).await.expect("an answer").expect("the delivery").0;
            for (read, told) in [(before, 0), (after, 1)] {
                let tries = store.tries(&[read]).await.expect("tries");
                assert_eq!(tries.values().map(Vec::len).sum::<usize>(), told);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_replay_is_due_at_once_with_the_whole_schedule() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let endpoint = endpoint(&store, owner, &[]).await.id;
            store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
            let now = Millis::now();
            let claim = claims(&store, Class::Untried, now).await.remove(0);
            let id = claim.deliveries[0].delivery.id;
            store.settle(&[tried(&claim, &claim.deliveries[0], Verdict::Failed, PAUSE, now)], now).await.expect("lost");
            assert!(claims(&store, Class::Failing, now).await.is_empty());

            let replay = async |account, id| store.replay_delivery(account, id, now).await.expect("an answer");
            assert_eq!(replay(other, id).await, Replayed::Missing);
            assert_eq!(replay(owner, DeliveryId::new()).await, Replayed::Missing);
            assert_eq!(replay(owner, id).await, Replayed::Again);
            let claim = claims(&store, Class::Failing, now).await.remove(0);
            let again = &claim.deliveries[0].delivery;
            assert_eq!((again.id, again.tries, again.step), (id, 1, 0));
            store
                .settle(&[tried(&claim, &claim.deliveries[0], Verdict::Delivered, PAUSE, now)], now)
                .await
                .expect("it");
            let (delivery, tries) = store.delivery(owner, id).await.expect("an answer").expect("the delivery");
            assert_eq!((delivery.status, tries.len()), (DeliveryStatus::Delivered, 2));

            store.disable_endpoint(owner, endpoint, DisabledReason::Failing).await.expect("to switch it off");
            assert_eq!(replay(owner, id).await, Replayed::Disabled);
            store.delete_endpoint(owner, endpoint).await.expect("to delete it");
            assert_eq!(replay(owner, id).await, Replayed::Disabled);
        })
        .await;
    }

    #[tokio::test]
    async fn a_replay_counts_that_was_asked_for_while_a_try_was_on_its_way() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            endpoint(&store, owner, &[]).await;
            store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
            let now = Millis::now();
            let later = now.plus(Duration::from_secs(1));
            let claim = claims(&store, Class::Untried, now).await.remove(0);
            let id = claim.deliveries[0].delivery.id;
            assert_eq!(store.replay_delivery(owner, id, later).await.expect("an answer"), Replayed::Again);
            let lost = tried(&claim, &claim.deliveries[0], Verdict::Failed, Then::Release(Duration::ZERO), later);
            store.settle(&[lost], later).await.expect("to settle");
            let claim = claims(&store, Class::Failing, later).await.remove(0);
            let again = &claim.deliveries[0].delivery;
            assert_eq!((again.id, again.tries, again.step, again.next_at), (id, 1, 0, later));

            assert_eq!(store.replay_delivery(owner, id, now).await.expect("an answer"), Replayed::Again);
            let taken = tried(&claim, &claim.deliveries[0], Verdict::Delivered, PAUSE, later);
            store.settle(&[taken], later).await.expect("to settle");
            let (delivery, tries) = store.delivery(owner, id).await.expect("an answer").expect("the delivery");
            assert_eq!((delivery.status, tries.len()), (DeliveryStatus::Delivered, 2), "it has been sent again");
        })
        .await;
    }

    #[tokio::test]
    async fn an_endpoint_can_be_tried_out_in_a_pause_and_while_it_is_off() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let endpoint = endpoint(&store, owner, &[EventKind::MessageExpired]).await.id;
            let now = Millis::now();
            let test = async |account| store.test_endpoint(account, endpoint, now).await.expect("an answer");
            assert_eq!(test(other).await, None);
            let id = test(owner).await.expect("a delivery");
            let claim = claims(&store, Class::Untried, now).await.remove(0);
            let delivery = &claim.deliveries[0].delivery;
            assert_eq!((delivery.id, delivery.event, delivery.message), (id, EventKind::WebhookTest, None));
            store.settle(&[tried(&claim, &claim.deliveries[0], Verdict::Failed, PAUSE, now)], now).await.expect("lost");
            store.disable_endpoint(owner, endpoint, DisabledReason::Gone).await.expect("to switch it off");
            let again = test(owner).await.expect("a delivery");
            let claim = claims(&store, Class::Failing, now).await.remove(0);
            assert_eq!(claim.deliveries[0].delivery.id, again);
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_old_and_over_is_forgotten() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let id = endpoint(&store, owner, &[]).await.id;
            store.finish(&[completed(&notifying(owner), "a"), completed(&notifying(owner), "b")]).await.expect("ends");
            let now = Millis::now();
            let claim = claims(&store, Class::Untried, now).await.remove(0);
            let done = tried(&claim, &claim.deliveries[0], Verdict::Delivered, Then::Release(Duration::ZERO), now);
            store.settle(&[done], now).await.expect("to settle");
            let hour = Duration::from_hours(1);
            assert_eq!(store.forget_old_deliveries(now.minus(hour)).await.expect("housekeeping"), 0);
            assert_eq!(store.forget_old_deliveries(now.plus(hour)).await.expect("housekeeping"), 1);
            let left = store.deliveries(owner, id, None, 9).await.expect("the log");
            assert_eq!((left.len(), left[0].0.status), (1, DeliveryStatus::Pending));
            assert_eq!(claims(&store, Class::Healthy, now).await.len(), 1, "its receiver is still there");
            assert_eq!(webhook_try::Entity::find().all(&store.db).await.expect("tries"), []);
        })
        .await;
    }
}
