//! Taking deliveries that are due, receiver by receiver.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _, sea_query::Expr};
use tracing::error;
use uuid::Uuid;

use super::{
    callback_secrets,
    connection::{Store, within_patience},
    deliveries, endpoints,
    entity::{webhook_delivery, webhook_endpoint, webhook_target},
    error::StoreError,
    sql, stored,
    targets::{self, Taken, TargetId},
    write::Write,
};
use crate::domain::{
    delivery::{Delivery, DeliveryStatus},
    endpoint::{Endpoint, Secrets},
    event::EventKind,
    ids::{AccountId, DeliveryId, EndpointId},
    time::Millis,
};

/// How long a receiver is left alone when nothing that is due for it can be read.
const UNREADABLE_HOLD: Duration = Duration::from_mins(1);

/// Which receivers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Those that took what they got last.
    Healthy,
    /// Those that were never tried.
    Untried,
    /// Those that have taken something, but not what they got last.
    Shaken,
    /// Those that were tried, and have never taken anything.
    Failing,
}

impl Class {
    /// Whether they have ever taken anything, and whether their last try failed.
    fn proven_and_failing(self) -> (bool, bool) {
        match self {
            Self::Healthy => (true, false),
            Self::Untried => (false, false),
            Self::Shaken => (true, true),
            Self::Failing => (false, true),
        }
    }
}

/// How much one claim takes.
#[derive(Clone, Copy, Debug)]
pub struct ClaimLimits {
    /// The most receivers.
    pub targets: u64,
    /// The most deliveries of one receiver.
    pub each: u64,
    /// How long they are the claimer's; a settlement begins it anew. A worker that dies leaves them to others then.
    pub lease: Duration,
    /// What a receiver whose last try failed could not be sent for this long after it was due is given up.
    pub patience: Duration,
}

/// Proof of having claimed a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(super) Uuid);

/// A receiver, claimed, with what is due for it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The receiver.
    pub target: TargetId,
    /// To settle and release it with.
    pub token: Token,
    /// Whether it has ever taken anything.
    pub proven: bool,
    /// How many tries have failed since the last success.
    pub failures: u32,
    /// When the first of these was.
    pub failing_since: Option<Millis>,
    /// What is due, oldest first; at least one.
    pub deliveries: Vec<Due>,
}

/// A delivery to be tried now.
#[derive(Clone, Debug)]
pub struct Due {
    /// What is told, and to whom.
    pub delivery: Delivery,
    /// The receiver's address.
    pub url: String,
    /// What signs it.
    pub secrets: Secrets,
}

impl Store {
    /// Takes receivers for which something is due, with the oldest of that. When nothing is due, it is one indexed
    /// read.
    pub async fn claim_targets(
        &self,
        class: Class,
        limits: &ClaimLimits,
        now: Millis,
    ) -> Result<Vec<Claim>, StoreError> {
        within_patience(async {
            if !self.is_anything_due(class, now).await? {
                return Ok(Vec::new());
            }
            let token = DeliveryId::new().0;
            let write = self.write().await?;
            let until = now.plus(limits.lease);
            let taken =
                targets::take_due(&write, class.proven_and_failing(), limits.targets, token, now, until).await?;
            let overdue = class.proven_and_failing().1.then(|| now.minus(limits.patience));
            let claims = claims(&write, taken, token, limits.each, (now, overdue)).await?;
            write.commit().await?;
            Ok(claims)
        })
        .await
    }

    async fn is_anything_due(&self, class: Class, now: Millis) -> Result<bool, StoreError> {
        use webhook_target::{Column, Entity};
        let (proven, failing) = class.proven_and_failing();
        let due = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::Failing.eq(failing))
            .filter(Column::Proven.eq(proven))
            .filter(Column::ReadyAt.lte(now.0))
            .limit(1);
        Ok(due.into_tuple::<Uuid>().one(&self.db).await?.is_some())
    }
}

async fn claims(
    write: &Write,
    taken: Vec<Taken>,
    token: Uuid,
    each: u64,
    (now, overdue): (Millis, Option<Millis>),
) -> Result<Vec<Claim>, StoreError> {
    let ids: Vec<_> = taken.iter().map(|taken| taken.target).collect();
    let mut rows = targets::due(write, &ids, each, now).await?;
    if let Some(overdue) = overdue {
        let late = rows.extract_if(.., |row| row.next_at < overdue.0);
        let late: BTreeSet<_> = late.map(|row| TargetId(row.target_id)).collect();
        for target in late {
            targets::give_up(write, target, overdue).await?;
        }
    }
    let endpoints = endpoints_of(write, &rows).await?;
    let mut callbacks = HashMap::new();
    let mut due: BTreeMap<TargetId, Vec<Due>> = BTreeMap::new();
    let mut orphans = Vec::new();
    let mut unreadable = BTreeSet::new();
    for row in rows {
        let (id, target) = (DeliveryId(row.id), TargetId(row.target_id));
        match due_of(write, row, &endpoints, &mut callbacks).await {
            Ok(Some(found)) => due.entry(target).or_default().push(found),
            Ok(None) => orphans.push(id),
            // Perhaps a newer release can read it. Nobody else waits for that.
            Err(error @ StoreError::Unreadable { .. }) => {
                error!(%error, delivery.id = %id, "a webhook that is due cannot be read");
                unreadable.insert(target);
            }
            Err(error) => return Err(error),
        }
    }
    drop_orphans(write, &orphans).await?;
    let mut claims = Vec::with_capacity(taken.len());
    for Taken { target, proven, failures, failing_since } in taken {
        let Some(deliveries) = due.remove(&target) else {
            let hold = if unreadable.contains(&target) { UNREADABLE_HOLD } else { Duration::ZERO };
            targets::release(write, target, token, now, hold).await?;
            continue;
        };
        claims.push(Claim {
            target,
            token: Token(token),
            proven,
            failures: stored::count("failures", failures.into())?,
            failing_since: failing_since.map(Millis),
            deliveries,
        });
    }
    Ok(claims)
}

/// What is to be done about a delivery; `None` when its endpoint is not there any more, or is off.
async fn due_of(
    write: &Write,
    row: webhook_delivery::Model,
    endpoints: &HashMap<EndpointId, Option<Endpoint>>,
    callbacks: &mut HashMap<AccountId, Secrets>,
) -> Result<Option<Due>, StoreError> {
    let callback_url = row.callback_url.clone();
    let delivery = deliveries::from_row(row)?;
    let (url, secrets) = match (delivery.endpoint, callback_url) {
        (Some(id), _) => match endpoints.get(&id) {
            Some(None) => return Err(StoreError::unreadable("endpoint", "see above")),
            Some(Some(endpoint)) if endpoint.enabled || delivery.event == EventKind::WebhookTest => {
                (endpoint.url.clone(), endpoint.secrets.clone())
            }
            _ => return Ok(None),
        },
        (None, Some(url)) => (url, callback_secrets_of(write, callbacks, delivery.account).await?),
        (None, None) => return Err(StoreError::unreadable("delivery", "it has no receiver")),
    };
    Ok(Some(Due { delivery, url, secrets }))
}

/// The endpoints of `rows`; `None` for one that cannot be read.
async fn endpoints_of(
    write: &Write,
    rows: &[webhook_delivery::Model],
) -> Result<HashMap<EndpointId, Option<Endpoint>>, StoreError> {
    use webhook_endpoint::{Column, Entity};
    let ids: BTreeSet<_> = rows.iter().filter_map(|row| row.endpoint_id).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let mut found = HashMap::with_capacity(ids.len());
    for portion in sql::portions(ids.len()) {
        let rows = Entity::find().filter(Column::Id.is_in(ids[portion].iter().copied())).all(&**write).await?;
        for row in rows {
            let id = EndpointId(row.id);
            let endpoint = endpoints::from_row(row);
            let endpoint = endpoint.inspect_err(|error| error!(%error, endpoint.id = %id, "an endpoint is unreadable"));
            found.insert(id, endpoint.ok());
        }
    }
    Ok(found)
}

async fn callback_secrets_of(
    write: &Write,
    known: &mut HashMap<AccountId, Secrets>,
    account: AccountId,
) -> Result<Secrets, StoreError> {
    if let Some(secrets) = known.get(&account) {
        return Ok(secrets.clone());
    }
    let secrets = callback_secrets::get_or_make(write, account).await?;
    known.insert(account, secrets.clone());
    Ok(secrets)
}

/// Gives up deliveries whose endpoint was switched off or removed while their message ended.
async fn drop_orphans(write: &Write, ids: &[DeliveryId]) -> Result<(), StoreError> {
    use webhook_delivery::{Column, Entity};
    for portion in sql::portions(ids.len()) {
        Entity::update_many()
            .col_expr(Column::Status, Expr::value(DeliveryStatus::Dropped.name()))
            .filter(Column::Id.is_in(ids[portion].iter().map(|id| id.0)))
            .exec(&**write)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::endpoint::DisabledReason,
        store::{
            endpoints::EndpointChange,
            testing::{ROOMY, account, calling_back, completed, endpoint, notifying, on_each_database},
        },
    };

    async fn fresh(store: &Store, limits: &ClaimLimits, now: Millis) -> Vec<Claim> {
        store.claim_targets(Class::Untried, limits, now).await.expect("claims")
    }

    #[tokio::test]
    async fn a_receiver_is_one_claimers_until_the_lease_is_over() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let endpoint = endpoint(&store, owner, &[]).await;
            let ends: Vec<_> = (0..5).map(|_| completed(&notifying(owner), "done")).collect();
            store.finish(&ends[..3]).await.expect("to finish");
            let now = Millis::now();
            let two = ClaimLimits { each: 2, ..ROOMY };
            let claims = fresh(&store, &two, now).await;
            let ([claim], true) = (&claims[..], claims[0].deliveries.len() == 2) else { panic!("{claims:?}") };
            assert_eq!((claim.proven, claim.failures, claim.failing_since), (false, 0, None));
            assert_eq!(claim.deliveries[0].secrets, endpoint.secrets);
            assert!(claim.deliveries[0].delivery.id < claim.deliveries[1].delivery.id);

            store.finish(&ends[3..]).await.expect("to finish");
            assert!(fresh(&store, &ROOMY, now).await.is_empty(), "it is taken");
            let later = now.plus(two.lease);
            assert_eq!(fresh(&store, &ROOMY, later).await[0].deliveries.len(), 5, "its claimer is gone");
            store.release_target(claim.target, claim.token, later).await.expect("to release");
            assert!(fresh(&store, &ROOMY, later).await.is_empty(), "it is somebody else's");
        })
        .await;
    }

    #[tokio::test]
    async fn a_released_receiver_is_there_at_once_and_behind_the_others() {
        on_each_database(async |store| {
            let (first, second) = (account(&store).await.id, account(&store).await.id);
            let one = ClaimLimits { targets: 1, each: 1, ..ROOMY };
            for owner in [first, first, second] {
                store.finish(&[completed(&calling_back(owner, "https://example.com"), "done")]).await.expect("an end");
            }
            let now = Millis::now().plus(Duration::from_secs(1));
            let claim = fresh(&store, &one, now).await.remove(0);
            assert_eq!(claim.deliveries[0].delivery.account, first);
            store.release_target(claim.target, claim.token, now).await.expect("to release");
            let claims = fresh(&store, &one, now).await;
            assert_eq!(claims[0].deliveries[0].delivery.account, second);
            assert_eq!(fresh(&store, &one, now).await[0].target, claim.target);
            assert_eq!(claims[0].deliveries[0].secrets, store.callback_secrets(second).await.expect("secrets"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_backlog_is_in_nobodys_way() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let ends: Vec<_> =
                (0..500).map(|_| completed(&calling_back(owner, "https://dead.example.com"), "done")).collect();
            store.finish(&ends).await.expect("to finish");
            let held = fresh(&store, &ClaimLimits { each: 3, ..ROOMY }, Millis::now()).await;
            assert_eq!(held[0].deliveries.len(), 3);
            store.finish(&[completed(&calling_back(owner, "https://example.com"), "done")]).await.expect("an end");
            let before = store.queries();
            let claims = fresh(&store, &ROOMY, Millis::now()).await;
            assert_eq!((claims.len(), &*claims[0].deliveries[0].url), (1, "https://example.com"));
            assert!(store.queries() - before <= 6, "{}", store.queries() - before);
            let before = store.queries();
            assert!(fresh(&store, &ROOMY, Millis::now()).await.is_empty());
            assert_eq!(store.queries() - before, 1, "when nothing is due");
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_pending_goes_with_its_endpoint() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let [off, gone, behaved] = [
                endpoint(&store, owner, &[]).await.id,
                endpoint(&store, owner, &[]).await.id,
                endpoint(&store, owner, &[]).await.id,
            ];
            store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
            let change = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
            store.update_endpoint(owner, off, &change).await.expect("to switch it off");
            store.delete_endpoint(owner, gone).await.expect("to delete it");
            store.disable_endpoint(owner, behaved, DisabledReason::Gone).await.expect("to switch it off");
            assert!(fresh(&store, &ROOMY, Millis::now()).await.is_empty());
            for id in [off, gone, behaved] {
                let log = store.deliveries(owner, id, None, 9).await.expect("the log");
                assert_eq!(log[0].0.status, DeliveryStatus::Dropped);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_in_nobodys_way() {
        use sea_orm::ConnectionTrait as _;

        on_each_database(async |store| {
            for (owner, then) in [
                (account(&store).await.id, "UPDATE webhook_deliveries SET event = 'new'"),
                (account(&store).await.id, "UPDATE webhook_endpoints SET events = '!'"),
            ] {
                endpoint(&store, owner, &[]).await;
                store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
                store.db.execute_unprepared(then).await.expect("as a newer release may write");
            }
            let owner = account(&store).await.id;
            store.finish(&[completed(&calling_back(owner, "https://example.com"), "done")]).await.expect("to finish");
            let now = Millis::now();
            let claims = fresh(&store, &ROOMY, now).await;
            assert_eq!((claims.len(), &*claims[0].deliveries[0].url), (1, "https://example.com"));
            let before = store.queries();
            assert!(fresh(&store, &ROOMY, now).await.is_empty());
            assert_eq!(store.queries() - before, 1, "the others are left alone for a while");
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_failing_receiver_could_not_be_sent_for_days_is_given_up() {
        use crate::store::{
            settlements::{Then, Verdict},
            testing::tried,
        };

        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let id = endpoint(&store, owner, &[]).await.id;
            let ends: Vec<_> = (0..3).map(|_| completed(&notifying(owner), "done")).collect();
            store.finish(&ends).await.expect("to finish");
            let now = Millis::now();
            let late = now.plus(ROOMY.patience + Duration::from_mins(1));
            let claim = fresh(&store, &ROOMY, late).await.remove(0);
            assert_eq!(claim.deliveries.len(), 3, "nobody has failed yet");
            let then = Then::Release(Duration::ZERO);
            let lost = tried(&claim, &claim.deliveries[0], Verdict::Again(late), then, late);
            store.settle(&[lost], late).await.expect("to settle");
            let failing = async || store.claim_targets(Class::Failing, &ROOMY, late).await.expect("claims");
            let claims = failing().await;
            assert_eq!(claims[0].deliveries.len(), 1, "what is tried by the schedule stays");
            let log = store.deliveries(owner, id, None, 9).await.expect("the log");
            let failed = log.iter().filter(|(delivery, _)| delivery.status == DeliveryStatus::Failed);
            assert_eq!(failed.count(), 2);
        })
        .await;
    }

    #[tokio::test]
    async fn a_delivery_that_came_too_late_for_its_endpoint_is_dropped_when_due() {
        use sea_orm::ConnectionTrait as _;

        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let id = endpoint(&store, owner, &[]).await.id;
            store.finish(&[completed(&notifying(owner), "done")]).await.expect("to finish");
            let off = "UPDATE webhook_endpoints SET enabled = FALSE";
            store.db.execute_unprepared(off).await.expect("as if at the same moment");
            assert!(fresh(&store, &ROOMY, Millis::now()).await.is_empty());
            let log = store.deliveries(owner, id, None, 9).await.expect("the log");
            assert_eq!(log[0].0.status, DeliveryStatus::Dropped);
            let before = store.queries();
            assert!(fresh(&store, &ROOMY, Millis::now()).await.is_empty());
            assert_eq!(store.queries() - before, 1, "its receiver is at rest");
        })
        .await;
    }
}
