//! What the end of a message causes: deliveries to its callback and to the account's endpoints.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use uuid::Uuid;

use super::{
    deliveries::{self, NewDelivery},
    endpoints,
    entity::webhook_endpoint::{Column, Entity},
    error::StoreError,
    messages::Finish,
    sql,
    targets::{self, TargetId, Urgency},
    write::Write,
};
use crate::domain::{
    event::EventKind,
    ids::{AccountId, EndpointId},
    time::Millis,
};

/// An endpoint and the events that it is told of; empty: every one.
type Listener = (EndpointId, Vec<EventKind>);

/// Writes the deliveries that the ends of `winners` cause. Ends without listeners cost nothing.
pub(super) async fn insert_deliveries(write: &Write, winners: &[&Finish]) -> Result<(), StoreError> {
    let telling: Vec<_> = winners.iter().filter(|finish| finish.job.tells(finish.outcome.status)).collect();
    if telling.is_empty() {
        return Ok(());
    }
    let notifying = telling.iter().filter(|finish| finish.job.notifies).map(|finish| finish.job.account);
    let listeners = listeners(write, notifying.collect()).await?;
    let mut new = Vec::new();
    for finish in telling {
        push_deliveries(&mut new, finish, listeners.get(&finish.job.account).map_or(&[], Vec::as_slice));
    }
    deliveries::insert(write, &new).await?;
    let now = Millis::now();
    targets::wake(write, new.iter().map(|delivery| delivery.target).collect(), now, Urgency::InTurn).await
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
            found.entry(AccountId(account)).or_default().push((EndpointId(id), endpoints::events(&events)?));
        }
    }
    Ok(found)
}

fn push_deliveries(new: &mut Vec<NewDelivery>, finish: &Finish, listeners: &[Listener]) {
    let job = &finish.job;
    let Some(event) = EventKind::of(finish.outcome.status) else { return };
    let at = finish.outcome.completed_at;
    let delivery = |target, endpoint, callback_url| NewDelivery {
        account: job.account,
        message: Some(job.id),
        event,
        target,
        endpoint,
        callback_url,
        at,
    };
    if let Some(callback) = job.callback.as_ref().filter(|callback| callback.wants(event)) {
        let target = TargetId::of_callback(job.account, &callback.url);
        new.push(delivery(target, None, Some(callback.url.clone())));
    }
    if job.notifies {
        let wanting = listeners.iter().filter(|(_, events)| events.is_empty() || events.contains(&event));
        new.extend(wanting.map(|(id, _)| delivery(TargetId::of_endpoint(*id), Some(*id), None)));
    }
}
