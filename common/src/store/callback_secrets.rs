//! What signs the callbacks of messages: one secret for each account, made when it is first needed.

use sea_orm::{ConnectionTrait as _, EntityTrait as _, Statement};

use super::{
    connection::{Store, within_patience},
    entity::callback_secret::Entity,
    error::StoreError,
    write::Write,
};
use crate::domain::{endpoint::Secrets, ids::AccountId, signing::SigningSecret, time::Millis};

const MAKE: &str =
    "INSERT INTO callback_secrets (account_id, secret) VALUES ($1, $2) ON CONFLICT (account_id) DO NOTHING";

const ROTATE: &str =
    "UPDATE callback_secrets SET previous_secret = secret, previous_until = $1, secret = $2 WHERE account_id = $3";

impl Store {
    /// The secrets of the account's callbacks.
    pub async fn callback_secrets(&self, account: AccountId) -> Result<Secrets, StoreError> {
        within_patience(async {
            if let Some(row) = Entity::find_by_id(account.0).one(&self.db).await? {
                return secrets(&row.secret, row.previous_secret.as_deref(), row.previous_until);
            }
            let write = self.write().await?;
            let made = get_or_make(&write, account).await?;
            write.commit().await?;
            Ok(made)
        })
        .await
    }

    /// Gives the account's callbacks a new secret; the one before signs too until `previous_until`.
    pub async fn rotate_callback_secret(
        &self,
        account: AccountId,
        previous_until: Millis,
    ) -> Result<Secrets, StoreError> {
        let secret = SigningSecret::generate().reveal();
        within_patience(async {
            let write = self.write().await?;
            get_or_make(&write, account).await?;
            let values = [previous_until.0.into(), secret.into(), account.0.into()];
            write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), ROTATE, values)).await?;
            let rotated = get_or_make(&write, account).await?;
            write.commit().await?;
            Ok(rotated)
        })
        .await
    }
}

/// The secrets of the account's callbacks, inside a transaction.
pub(super) async fn get_or_make(write: &Write, account: AccountId) -> Result<Secrets, StoreError> {
    let values = [account.0.into(), SigningSecret::generate().reveal().into()];
    let make = Statement::from_sql_and_values(write.get_database_backend(), MAKE, values);
    write.execute_raw(make).await?;
    let row = Entity::find_by_id(account.0).one(&**write).await?.ok_or(StoreError::Missing("secret"))?;
    secrets(&row.secret, row.previous_secret.as_deref(), row.previous_until)
}

/// What the three columns hold that endpoints and callbacks have alike.
pub(super) fn secrets(
    current: &str,
    previous: Option<&str>,
    previous_until: Option<i64>,
) -> Result<Secrets, StoreError> {
    let secret = |text| SigningSecret::parse(text).map_err(|error| StoreError::unreadable("secret", error));
    Ok(Secrets {
        current: secret(current)?,
        previous: match (previous, previous_until) {
            (Some(text), Some(until)) => Some((secret(text)?, Millis(until))),
            _ => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use futures_util::future::try_join_all;

    use super::*;
    use crate::store::testing::{account, on_each_database};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn an_account_has_one_secret_until_it_is_rotated() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let found = try_join_all((0..8).map(|_| store.callback_secrets(owner))).await.expect("secrets");
            assert!(found.iter().all(|secrets| *secrets == found[0] && secrets.previous.is_none()));
            assert_ne!(store.callback_secrets(other).await.expect("secrets"), found[0]);
            let rotated = store.rotate_callback_secret(owner, Millis(7)).await.expect("secrets");
            assert_eq!(rotated.previous, Some((found[0].current.clone(), Millis(7))));
            assert_eq!(store.callback_secrets(owner).await.expect("secrets"), rotated);
            let new = store.rotate_callback_secret(AccountId::new(), Millis(7)).await.expect("secrets");
            assert!(new.previous.is_some());
        })
        .await;
    }
}
