//! What the end of a message or of a batch causes: deliveries to its callback and to the account's endpoints.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use tracing::warn;
use uuid::Uuid;

use super::{
    deliveries::{self, NewDelivery},
    entity::{
        batch,
        webhook_endpoint::{Column, Entity},
    },
    error::StoreError,
    messages::Finish,
    sql,
    targets::{self, TargetId, Urgency},
    write::Write,
};
use crate::domain::{
    event::EventKind,
    ids::{AccountId, EndpointId},
    job::Job,
    time::Millis,
};

/// An endpoint and the names of the events that it is told of; empty: every one. A release beside this one may know
/// more of them: those are no reason why a message could not end.
type Listener = (EndpointId, Vec<String>);

/// Something that happened, and that receivers may be told of.
pub(super) struct Event {
    account: AccountId,
    kind: EventKind,
    /// The message or batch that it is of.
    of: Uuid,
    at: Millis,
}

impl Event {
    /// The end of the batch of `row`, if it has one and its account may want to hear of it.
    pub(super) fn of_batch(row: &batch::Model) -> Option<Self> {
        let kind = row.status.parse().ok().and_then(EventKind::of_batch).filter(|_| row.notifies)?;
        Some(Self { account: AccountId(row.account_id), kind, of: row.id, at: Millis(row.completed_at?) })
    }

    fn of_message(finish: &Finish) -> Option<Self> {
        let kind = EventKind::of(finish.outcome.status)?;
        Some(Self { account: finish.job.account, kind, of: finish.job.id.0, at: finish.outcome.completed_at })
    }

    fn delivery(&self, target: TargetId, endpoint: Option<EndpointId>, callback_url: Option<String>) -> NewDelivery {
        let Self { account, kind: event, of, at } = *self;
        NewDelivery { account, of: Some(of), event, target, endpoint, callback_url, at }
    }
}

/// Writes the deliveries that the ends of `winners` and of `batches` cause. Ends without listeners cost nothing.
pub(super) async fn insert_deliveries(write: &Write, winners: &[&Finish], batches: &[Event]) -> Result<(), StoreError> {
    let telling: Vec<_> = winners.iter().filter(|finish| finish.job.tells(finish.outcome.status)).collect();
    if telling.is_empty() && batches.is_empty() {
        return Ok(());
    }
    let notifying = telling.iter().filter(|finish| finish.job.notifies).map(|finish| finish.job.account);
    let notifying = notifying.chain(batches.iter().map(|event| event.account));
    let listeners = listeners(write, notifying.collect()).await?;
    let mut new = Vec::new();
    for finish in telling {
        let Some(event) = Event::of_message(finish) else { continue };
        push_to_callback(&mut new, &event, &finish.job);
        if finish.job.notifies {
            push_to_endpoints(&mut new, &event, &listeners);
        }
    }
    for event in batches {
        push_to_endpoints(&mut new, event, &listeners);
    }
    deliveries::insert(write, &new).await?;
    let Some(first) = new.iter().map(NewDelivery::due).min() else { return Ok(()) };
    let due = first.max(Millis::now());
    targets::wake(write, new.iter().map(|delivery| delivery.target).collect(), due, Urgency::InTurn).await
}

/// The endpoints of `accounts` that are told of anything. One that is switched off at this moment is noticed when
/// its delivery is due.
async fn listeners(
    write: &Write,
    accounts: BTreeSet<AccountId>,
) -> Result<HashMap<AccountId, Vec<Listener>>, StoreError> {
    let accounts: Vec<Uuid> = accounts.into_iter().map(|account| account.0).collect();
    let mut found: HashMap<_, Vec<Listener>> = HashMap::new();
    for portion in sql::portions(accounts.len()) {
        let rows = Entity::find()
            .select_only()
            .columns([Column::AccountId, Column::Id, Column::Events])
            .filter(Column::AccountId.is_in(accounts[portion].iter().copied()))
            .filter(Column::Enabled.eq(true))
            .into_tuple::<(Uuid, Uuid, String)>()
            .all(&**write)
            .await?;
        for (account, id, events) in rows {
            match serde_json::from_str(&events) {
                Ok(names) => found.entry(AccountId(account)).or_default().push((EndpointId(id), names)),
                Err(error) => {
                    warn!(endpoint = %id, %error, "an endpoint's events are unreadable: it is told of nothing")
                }
            }
        }
    }
    Ok(found)
}

fn push_to_callback(new: &mut Vec<NewDelivery>, event: &Event, job: &Job) {
    if let Some(callback) = job.callback.as_ref().filter(|callback| callback.wants(event.kind)) {
        let target = TargetId::of_callback(job.account, &callback.url);
        new.push(event.delivery(target, None, Some(callback.url.clone())));
    }
}

fn push_to_endpoints(new: &mut Vec<NewDelivery>, event: &Event, listeners: &HashMap<AccountId, Vec<Listener>>) {
    let wants = |events: &[String]| events.is_empty() || events.iter().any(|name| name == event.kind.name());
    let wanting = listeners.get(&event.account).into_iter().flatten().filter(|(_, events)| wants(events));
    new.extend(wanting.map(|(id, _)| event.delivery(TargetId::of_endpoint(*id), Some(*id), None)));
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use sea_orm::sea_query::Expr;

    use super::*;
    use crate::{
        domain::{
            endpoint::DisabledReason,
            event::Callback,
            ids::{BatchId, GatewayId, MessageId},
        },
        store::{
            batches::NewBatch,
            claims::{Class, Due},
            connection::Store,
            testing::{
                ROOMY, account, calling_back, cancelled, completed, endpoint, enqueued, failed, free, job, lines,
                new_batch, notifying, on_each_database, open,
            },
        },
    };

    async fn due(store: &Store) -> Vec<Due> {
        // What was cancelled is told a little later.
        let soon = Millis::now().plus(Duration::from_secs(3));
        let claims = store.claim_targets(Class::Untried, &ROOMY, soon).await.expect("claims");
        claims.into_iter().flat_map(|claim| claim.deliveries).collect()
    }

    #[tokio::test]
    async fn an_end_is_told_to_those_who_want_it() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let (all, failures) =
                (endpoint(&store, owner, &[]).await, endpoint(&store, owner, &[EventKind::MessageFailed]).await);
            endpoint(&store, other, &[]).await;
            let off = endpoint(&store, owner, &[]).await.id;
            store.disable_endpoint(owner, off, DisabledReason::Failing).await.expect("to switch it off");
            let callback =
                Callback { url: "https://example.com/x".to_owned(), events: vec![EventKind::MessageCancelled] };
            let both = Arc::new(Job { callback: Some(callback), ..Job::clone(&notifying(owner)) });
            let (done, lost, quiet) = (notifying(owner), notifying(owner), job(owner));
            let ends = [completed(&done, "done"), failed(&lost), completed(&quiet, "done"), cancelled(&both)];
            store.finish(&ends).await.expect("to finish");
            store.finish(&ends).await.expect("to find the ends");

            let mut told: Vec<_> = due(&store).await.iter().map(told).collect();
            let url = all.url.clone();
            let mut wanted = vec![
                (done.id, EventKind::MessageCompleted, Some(all.id), url.clone()),
                (lost.id, EventKind::MessageFailed, Some(all.id), url.clone()),
                (lost.id, EventKind::MessageFailed, Some(failures.id), failures.url),
                (both.id, EventKind::MessageCancelled, Some(all.id), url),
                (both.id, EventKind::MessageCancelled, None, "https://example.com/x".to_owned()),
            ];
            told.sort_by_key(|told| (told.0, told.2));
            wanted.sort_by_key(|told| (told.0, told.2));
            assert_eq!(told, wanted);
        })
        .await;
    }

    fn told(due: &Due) -> (MessageId, EventKind, Option<EndpointId>, String) {
        let delivery = &due.delivery;
        (delivery.message.expect("a message"), delivery.event, delivery.endpoint, due.url.clone())
    }

    #[tokio::test]
    async fn an_endpoint_that_cannot_be_read_is_in_the_way_of_no_end() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let (whole, newer, broken) = (
                endpoint(&store, owner, &[]).await.id,
                endpoint(&store, owner, &[]).await.id,
                endpoint(&store, owner, &[]).await.id,
            );
            for (id, events) in [(newer, r#"["message.praised","message.completed"]"#), (broken, "all of them")] {
                let update = Entity::update_many().col_expr(Column::Events, Expr::value(events));
                update.filter(Column::Id.eq(id.0)).exec(&store.db).await.expect("what another release wrote");
            }
            let ends = [completed(&notifying(owner), "done"), failed(&notifying(owner))];
            store.finish(&ends).await.expect("to finish");
            for (id, wanted) in [(whole, 2), (newer, 1), (broken, 0)] {
                let told = store.deliveries(owner, id, None, 9).await.expect("the log");
                assert_eq!(told.len(), wanted, "{told:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_nobody_listens_to_costs_nothing_more() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let mut needed = Vec::new();
            for job in [job(owner), job(owner), calling_back(owner, "https://example.com")] {
                let before = store.queries();
                store.finish(&[completed(&job, "done")]).await.expect("to finish");
                needed.push(store.queries() - before);
            }
            assert_eq!(needed[0], needed[1]);
            assert_eq!(needed[2], needed[1] + 2, "its delivery and its receiver");
            assert_eq!(due(&store).await.len(), 1);
        })
        .await;
    }

    /// What an endpoint is told of, oldest first.
    async fn told_to(store: &Store, owner: AccountId, endpoint: EndpointId) -> Vec<(EventKind, Option<BatchId>)> {
        let log = store.deliveries(owner, endpoint, None, 99).await.expect("the log");
        assert!(log.iter().all(|(delivery, _)| delivery.message.is_none()), "{log:?}");
        log.iter().rev().map(|(delivery, _)| (delivery.event, delivery.batch)).collect()
    }

    #[tokio::test]
    async fn the_end_of_a_batch_is_told_once_to_those_who_want_it() {
        on_each_database(async |store| {
            let (owner, now) = (account(&store).await.id, Millis::now());
            let all = endpoint(&store, owner, &[]).await.id;
            let completions = endpoint(&store, owner, &[EventKind::BatchCompleted]).await.id;
            let messages = endpoint(&store, owner, &[EventKind::MessageCompleted]).await.id;
            let batch = || NewBatch { notifies: true, ..new_batch(owner, 2) };
            let (dear, cheap, stopped, half) = (batch(), batch(), batch(), batch());
            for batch in [&dear, &cheap, &stopped, &new_batch(owner, 2)] {
                enqueued(&store, batch).await;
            }
            let gateway = GatewayId::new();
            open(&store, &half, gateway).await;
            let mut wanted = Vec::new();
            for jobs in [lines(&dear, 1..=2), free(lines(&cheap, 1..=2))] {
                for job in &jobs {
                    assert_eq!(told_to(&store, owner, all).await, wanted);
                    store.finish(&[completed(job, "done")]).await.expect("to finish");
                    store.finish(&[completed(job, "again")]).await.expect("to find the end");
                }
                wanted.push((EventKind::BatchCompleted, jobs[0].batch.as_ref().map(|line| line.batch)));
            }
            assert_eq!(told_to(&store, owner, all).await, wanted);
            assert_eq!(told_to(&store, owner, completions).await, wanted);
            assert_eq!(due(&store).await.len(), 4);

            for id in [stopped.id, half.id] {
                assert!(store.cancel_batch(id, now).await.expect("an answer").is_some());
            }
            wanted.push((EventKind::BatchCancelled, Some(stopped.id)));
            assert_eq!(told_to(&store, owner, all).await, wanted);
            for _ in 0..2 {
                assert!(store.batch_enqueued(half.id, gateway, now).await.expect("an answer").is_some());
            }
            wanted.push((EventKind::BatchCancelled, Some(half.id)));
            assert_eq!(told_to(&store, owner, all).await, wanted);
            assert_eq!(told_to(&store, owner, completions).await, wanted[..2]);
            assert!(told_to(&store, owner, messages).await.is_empty());
        })
        .await;
    }
}
