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

const ROTATE: &str = "UPDATE webhook_endpoints SET previous_secret = secret, previous_until = $1, secret = $2 \
     WHERE id = $3 AND account_id = $4";

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

    /// Gives an endpoint of the account a new secret; the one before signs too until `previous_until`.
    pub async fn rotate_endpoint_secret(
        &self,
        account: AccountId,
        id: EndpointId,
        previous_until: Millis,
    ) -> Result<Option<Secrets>, StoreError> {
        let secret = SigningSecret::generate().reveal();
        let values = [previous_until.0.into(), secret.into(), id.0.into(), account.0.into()];
        within_patience(async {
            let write = self.write().await?;
            let rotate = Statement::from_sql_and_values(write.get_database_backend(), ROTATE, values);
            if write.execute_raw(rotate).await?.rows_affected() == 0 {
                return Ok(None);
            }
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
pub(super) fn events(text: &str) -> Result<Vec<EventKind>, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::unreadable("events", error))
}

/// The endpoint that `row` tells of.
pub(super) fn from_row(row: Model) -> Result<Endpoint, StoreError> {
    let reason = row.disabled_reason.map(|reason| stored::parsed("disabled_reason", &reason)).transpose()?;
    Ok(Endpoint {
        id: EndpointId(row.id),
        account: AccountId(row.account_id),
        url: row.url,
        events: events(&row.events)?,
        enabled: row.enabled,
        disabled_reason: reason,
        secrets: callback_secrets::secrets(&row.secret, row.previous_secret.as_deref(), row.previous_until)?,
        created_at: Millis(row.created_at),
    })
}
