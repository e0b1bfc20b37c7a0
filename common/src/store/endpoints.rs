//! Endpoints: the addresses that an account registered for events.

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, ConnectionTrait as _, EntityTrait as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, Statement, sea_query::Expr,
};

use super::{
    callback_secrets,
    connection::{Store, within_patience},
    entity::webhook_endpoint::{ActiveModel, Column, Entity, Model},
    error::StoreError,
    stored, targets,
    write::Write,
};
use crate::domain::{
    endpoint::{DisabledReason, Endpoint, Secrets},
    event::EventKind,
    ids::{AccountId, EndpointId},
    signing::SigningSecret,
    time::Millis,
};

const ROTATE: &str = "UPDATE webhook_endpoints SET \
     older_secret = CASE WHEN older_until > $1 THEN older_secret ELSE previous_secret END, \
     older_until = CASE WHEN older_until > $1 THEN older_until ELSE previous_until END, \
     previous_secret = secret, previous_until = $2, secret = $3 WHERE id = $4 AND account_id = $5";

/// What an account says about an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// The address.
    pub url: String,
    /// The events that it is told of; empty: every one.
    pub events: Vec<EventKind>,
    /// Whether it is told of anything.
    pub enabled: bool,
}

/// What is to be different about an endpoint; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct EndpointChange {
    /// The address.
    pub url: Option<String>,
    /// The events that it is told of; empty: every one.
    pub events: Option<Vec<EventKind>>,
    /// Whether it is told of anything.
    pub enabled: Option<bool>,
}

impl Store {
    /// A new endpoint with a new secret.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] when the account has `most` already.
    pub async fn create_endpoint(
        &self,
        account: AccountId,
        spec: &EndpointSpec,
        most: u64,
    ) -> Result<Endpoint, StoreError> {
        let endpoint = ActiveModel {
            id: Set(EndpointId::new().0),
            account_id: Set(account.0),
            url: Set(spec.url.clone()),
            events: Set(events_as_text(&spec.events)?),
            enabled: Set(spec.enabled),
            disabled_reason: Set(None),
            secret: Set(SigningSecret::generate().reveal()),
            previous_secret: Set(None),
            previous_until: Set(None),
            older_secret: Set(None),
            older_until: Set(None),
            created_at: Set(Millis::now().0),
        };
        within_patience(async {
            let write = self.write().await?;
            lock(&write, account).await?;
            if Entity::find().filter(Column::AccountId.eq(account.0)).count(&*write).await? >= most {
                return Err(StoreError::TooMany("endpoints"));
            }
            let made = endpoint.insert(&*write).await?;
            count(&write, account).await?;
            write.commit().await?;
            from_row(made)
        })
        .await
    }

    /// The account's endpoints, oldest first.
    pub async fn endpoints(&self, account: AccountId) -> Result<Vec<Endpoint>, StoreError> {
        within_patience(async {
            let rows = Entity::find().filter(Column::AccountId.eq(account.0)).order_by_asc(Column::Id);
            rows.all(&self.db).await?.into_iter().map(from_row).collect()
        })
        .await
    }

    /// One endpoint of the account.
    pub async fn endpoint(&self, account: AccountId, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        within_patience(async {
            let found = Entity::find_by_id(id.0).filter(Column::AccountId.eq(account.0)).one(&self.db).await?;
            found.map(from_row).transpose()
        })
        .await
    }

    /// Changes an endpoint of the account; `None` when there is none. One that is switched off forgets what is
    /// pending for it; one that is switched on, or moved, counts as never tried.
    pub async fn update_endpoint(
        &self,
        account: AccountId,
        id: EndpointId,
        change: &EndpointChange,
    ) -> Result<Option<Endpoint>, StoreError> {
        let mut update = Entity::update_many().filter(Column::Id.eq(id.0)).filter(Column::AccountId.eq(account.0));
        if let Some(url) = &change.url {
            update = update.col_expr(Column::Url, Expr::value(url.clone()));
        }
        if let Some(events) = &change.events {
            update = update.col_expr(Column::Events, Expr::value(events_as_text(events)?));
        }
        if let Some(enabled) = change.enabled {
            update = update.col_expr(Column::Enabled, Expr::value(enabled));
            update = update.col_expr(Column::DisabledReason, Expr::value(Option::<String>::None));
        }
        within_patience(async {
            let write = self.write().await?;
            lock(&write, account).await?;
            // Without a change there is nothing to set.
            if (change.url.is_some() || change.events.is_some() || change.enabled.is_some())
                && update.exec(&*write).await?.rows_affected > 0
            {
                count(&write, account).await?;
                match change.enabled {
                    Some(false) => targets::drop_pending(&write, id).await?,
                    Some(true) => targets::forgive(&write, id).await?,
                    None if change.url.is_some() => targets::forgive(&write, id).await?,
                    None => {}
                }
                if change.url.is_some() {
                    targets::take_back(&write, id, Millis::now()).await?;
                }
            }
            let found = Entity::find_by_id(id.0).filter(Column::AccountId.eq(account.0)).one(&*write).await?;
            write.commit().await?;
            found.map(from_row).transpose()
        })
        .await
    }

    /// Removes an endpoint of the account, and forgets what is pending for it. Whether it was there.
    pub async fn delete_endpoint(&self, account: AccountId, id: EndpointId) -> Result<bool, StoreError> {
        within_patience(async {
            let write = self.write().await?;
            lock(&write, account).await?;
            let delete = Entity::delete_many().filter(Column::Id.eq(id.0)).filter(Column::AccountId.eq(account.0));
            let was_there = delete.exec(&*write).await?.rows_affected > 0;
            if was_there {
                count(&write, account).await?;
                targets::drop_pending(&write, id).await?;
            }
            write.commit().await?;
            Ok(was_there)
        })
        .await
    }

    /// Gives an endpoint of the account a new secret; the one before signs too until `previous_until`, and so does for
    /// its time the oldest one that still did.
    pub async fn rotate_endpoint_secret(
        &self,
        account: AccountId,
        id: EndpointId,
        previous_until: Millis,
    ) -> Result<Option<Secrets>, StoreError> {
        let secret = SigningSecret::generate().reveal();
        let now = Millis::now();
        let values = [now.0.into(), previous_until.0.into(), secret.into(), id.0.into(), account.0.into()];
        within_patience(async {
            let write = self.write().await?;
            let rotate = Statement::from_sql_and_values(write.get_database_backend(), ROTATE, values);
            if write.execute_raw(rotate).await?.rows_affected() == 0 {
                return Ok(None);
            }
            targets::take_back(&write, id, Millis::now()).await?;
            let row = Entity::find_by_id(id.0).one(&*write).await?.ok_or(StoreError::Missing("endpoint"))?;
            write.commit().await?;
            from_row(row).map(|endpoint| Some(endpoint.secrets))
        })
        .await
    }

    /// Switches an endpoint off because of how it behaves, and forgets what is pending for it. Whether it was on.
    pub async fn disable_endpoint(
        &self,
        account: AccountId,
        id: EndpointId,
        reason: DisabledReason,
    ) -> Result<bool, StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::Enabled, Expr::value(false))
            .col_expr(Column::DisabledReason, Expr::value(reason.name()))
            .filter(Column::Id.eq(id.0))
            .filter(Column::AccountId.eq(account.0))
            .filter(Column::Enabled.eq(true));
        within_patience(async {
            let write = self.write().await?;
            lock(&write, account).await?;
            let was_on = update.exec(&*write).await?.rows_affected > 0;
            if was_on {
                count(&write, account).await?;
                targets::drop_pending(&write, id).await?;
            }
            write.commit().await?;
            Ok(was_on)
        })
        .await
    }
}

/// Changes of one account's endpoints come one after another, so that [`count`] sees them all.
async fn lock(write: &Write, account: AccountId) -> Result<(), StoreError> {
    let lock = "UPDATE accounts SET has_endpoints = has_endpoints WHERE id = $1";
    let statement = Statement::from_sql_and_values(write.get_database_backend(), lock, [account.0.into()]);
    match write.execute_raw(statement).await?.rows_affected() {
        0 => Err(StoreError::Missing("account")),
        _ => Ok(()),
    }
}

/// Notes with the account whether it has endpoints that are told of anything.
async fn count(write: &Write, account: AccountId) -> Result<(), StoreError> {
    let count = "UPDATE accounts SET has_endpoints = EXISTS \
                 (SELECT 1 FROM webhook_endpoints WHERE account_id = $1 AND enabled) WHERE id = $1";
    let statement = Statement::from_sql_and_values(write.get_database_backend(), count, [account.0.into()]);
    write.execute_raw(statement).await?;
    Ok(())
}

fn events_as_text(events: &[EventKind]) -> Result<String, StoreError> {
    serde_json::to_string(events).map_err(|error| StoreError::unreadable("events", error))
}

/// The events in the column of that name.
fn events(text: &str) -> Result<Vec<EventKind>, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::unreadable("events", error))
}

/// The endpoint that `row` tells of.
pub(super) fn from_row(row: Model) -> Result<Endpoint, StoreError> {
    let previous = [(&row.previous_secret, row.previous_until), (&row.older_secret, row.older_until)];
    let secrets = callback_secrets::secrets(&row.secret, previous)?;
    let reason = row.disabled_reason.map(|reason| stored::parsed("disabled_reason", &reason)).transpose()?;
    Ok(Endpoint {
        id: EndpointId(row.id),
        account: AccountId(row.account_id),
        url: row.url,
        events: events(&row.events)?,
        enabled: row.enabled,
        disabled_reason: reason,
        secrets,
        created_at: Millis(row.created_at),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::{join_all, try_join_all};

    use super::*;
    use crate::store::testing::{account, endpoint, on_each_database};

    async fn has_endpoints(store: &Store, account: AccountId) -> bool {
        let found = store.account_named(&account.to_string()).await.expect("an answer");
        found.expect("the account").has_endpoints
    }

    #[tokio::test]
    async fn an_endpoint_is_its_accounts_own() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let made = endpoint(&store, owner, &[EventKind::MessageFailed]).await;
            let found = store.endpoint(owner, made.id).await.expect("an answer").expect("the endpoint");
            assert_eq!((found.url, found.events, found.secrets), (made.url, made.events, made.secrets));
            assert!(has_endpoints(&store, owner).await && !has_endpoints(&store, other).await);
            assert!(store.endpoint(other, made.id).await.expect("an answer").is_none());
            assert!(store.endpoints(other).await.expect("endpoints").is_empty());
            let off = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
            assert!(store.update_endpoint(other, made.id, &off).await.expect("an answer").is_none());
            assert!(store.rotate_endpoint_secret(other, made.id, Millis(0)).await.expect("an answer").is_none());
            assert!(!store.disable_endpoint(other, made.id, DisabledReason::Gone).await.expect("an answer"));
            assert!(!store.delete_endpoint(other, made.id).await.expect("an answer"));
            assert!(store.endpoints(owner).await.expect("endpoints")[0].enabled);
        })
        .await;
    }

    #[tokio::test]
    async fn an_endpoint_changes_by_its_owner_and_by_its_behaviour() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let made = endpoint(&store, owner, &[]).await;
            let nothing = EndpointChange::default();
            let same = store.update_endpoint(owner, made.id, &nothing).await.expect("an answer").expect("it");
            assert_eq!((same.url, same.enabled), (made.url, true));
            assert!(store.disable_endpoint(owner, made.id, DisabledReason::Gone).await.expect("an answer"));
            assert!(!store.disable_endpoint(owner, made.id, DisabledReason::Failing).await.expect("it was off"));
            let off = store.endpoint(owner, made.id).await.expect("an answer").expect("it");
            assert_eq!((off.enabled, off.disabled_reason), (false, Some(DisabledReason::Gone)));
            assert!(!has_endpoints(&store, owner).await);
            let change = EndpointChange {
                url: Some("https://example.com/new".to_owned()),
                events: Some(vec![EventKind::MessageExpired]),
                enabled: Some(true),
            };
            let on = store.update_endpoint(owner, made.id, &change).await.expect("an answer").expect("it");
            assert_eq!((on.enabled, on.disabled_reason), (true, None));
            assert_eq!((on.url.as_str(), on.events), ("https://example.com/new", vec![EventKind::MessageExpired]));
            assert!(has_endpoints(&store, owner).await);

            let rotated = store.rotate_endpoint_secret(owner, made.id, Millis(7)).await.expect("an answer");
            let rotated = rotated.expect("the endpoint");
            assert_eq!(rotated.previous, [(made.secrets.current.clone(), Millis(7))]);
            assert_ne!(rotated.current, on.secrets.current);
            assert!(store.delete_endpoint(owner, made.id).await.expect("an answer"));
            assert!(!has_endpoints(&store, owner).await);
        })
        .await;
    }

    #[tokio::test]
    async fn a_rotation_soon_after_another_drops_no_secret_that_is_in_use() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let Endpoint { id, secrets: first, .. } = endpoint(&store, owner, &[]).await;
            let soon = Millis::now().plus(Duration::from_hours(24));
            let rotate = async || store.rotate_endpoint_secret(owner, id, soon).await.expect("an answer").expect("it");
            let (second, third) = (rotate().await, rotate().await);
            assert_eq!(third.previous, [(second.current, soon), (first.current.clone(), soon)]);
            let fourth = rotate().await;
            assert_eq!(fourth.previous, [(third.current, soon), (first.current, soon)]);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn there_are_never_too_many_and_the_account_knows_whether_there_are_any() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let spec = EndpointSpec { url: "https://example.com".to_owned(), events: Vec::new(), enabled: true };
            let made = join_all((0..8).map(|_| store.create_endpoint(owner, &spec, 5))).await;
            assert_eq!(made.iter().filter(|made| matches!(made, Err(StoreError::TooMany(_)))).count(), 3);
            let endpoints = store.endpoints(owner).await.expect("endpoints");
            let deletes = endpoints.iter().map(|endpoint| store.delete_endpoint(owner, endpoint.id));
            let (deleted, again) = tokio::join!(try_join_all(deletes), store.create_endpoint(owner, &spec, 100));
            assert!(deleted.expect("answers").into_iter().all(|was_there| was_there));
            assert!(has_endpoints(&store, owner).await);
            store.delete_endpoint(owner, again.expect("a new endpoint").id).await.expect("to delete it");
            assert!(!has_endpoints(&store, owner).await);
            let orphan = store.create_endpoint(AccountId::new(), &spec, 5).await;
            assert!(matches!(orphan, Err(StoreError::Missing("account"))), "{orphan:?}");
        })
        .await;
    }
}
