//! What signs the callbacks of messages: one secret for each account, made when it is first needed.

use sea_orm::{ConnectionTrait as _, EntityTrait as _, Statement};

use super::{
    connection::{Store, within_patience},
    entity::callback_secret::{Entity, Model},
    error::StoreError,
    write::Write,
};
use crate::domain::{endpoint::Secrets, ids::AccountId, signing::SigningSecret, time::Millis};

const MAKE: &str =
    "INSERT INTO callback_secrets (account_id, secret) VALUES ($1, $2) ON CONFLICT (account_id) DO NOTHING";

const ROTATE: &str = "UPDATE callback_secrets SET \
     older_secret = CASE WHEN older_until > $1 THEN older_secret ELSE previous_secret END, \
     older_until = CASE WHEN older_until > $1 THEN older_until ELSE previous_until END, \
     previous_secret = secret, previous_until = $2, secret = $3 WHERE account_id = $4";

impl Store {
    /// The secrets of the account's callbacks.
    pub async fn callback_secrets(&self, account: AccountId) -> Result<Secrets, StoreError> {
        within_patience(async {
            if let Some(row) = Entity::find_by_id(account.0).one(&self.db).await? {
                return from_row(&row);
            }
            let write = self.write().await?;
            let made = get_or_make(&write, account).await?;
            write.commit().await?;
            Ok(made)
        })
        .await
    }

    /// Gives the account's callbacks a new secret; the one before signs too until `previous_until`, and so does for
    /// its time the oldest one that still did.
    pub async fn rotate_callback_secret(
        &self,
        account: AccountId,
        previous_until: Millis,
    ) -> Result<Secrets, StoreError> {
        let secret = SigningSecret::generate().reveal();
        within_patience(async {
            let write = self.write().await?;
            get_or_make(&write, account).await?;
            let values = [Millis::now().0.into(), previous_until.0.into(), secret.into(), account.0.into()];
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
    from_row(&row)
}

fn from_row(row: &Model) -> Result<Secrets, StoreError> {
    let previous = [(&row.previous_secret, row.previous_until), (&row.older_secret, row.older_until)];
    secrets(&row.secret, previous)
}

/// What the five columns hold that endpoints and callbacks have alike. After two rotations in a row it is not known
/// which secret a receiver has: the one that it had before the first, or the one that it got from that. So both stay.
pub(super) fn secrets(current: &str, previous: [(&Option<String>, Option<i64>); 2]) -> Result<Secrets, StoreError> {
    let secret = |text: &str| SigningSecret::parse(text).map_err(|error| StoreError::unreadable("secret", error));
    let previous = previous.into_iter().filter_map(|(text, until)| Some((text.as_deref()?, until?)));
    Ok(Secrets {
        current: secret(current)?,
        previous: previous
            .map(|(text, until)| Ok((secret(text)?, Millis(until))))
            .collect::<Result<_, StoreError>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::try_join_all;

    use super::*;
    use crate::store::testing::{account, on_each_database};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn an_account_has_one_secret_until_it_is_rotated() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let found = try_join_all((0..8).map(|_| store.callback_secrets(owner))).await.expect("secrets");
            assert!(found.iter().all(|secrets| *secrets == found[0] && secrets.previous.is_empty()));
            assert_ne!(store.callback_secrets(other).await.expect("secrets"), found[0]);
            let rotated = store.rotate_callback_secret(owner, Millis(7)).await.expect("secrets");
            assert_eq!(rotated.previous, [(found[0].current.clone(), Millis(7))]);
            assert_eq!(store.callback_secrets(owner).await.expect("secrets"), rotated);
            let new = store.rotate_callback_secret(AccountId::new(), Millis(7)).await.expect("secrets");
            assert_eq!(new.previous.len(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn a_rotation_soon_after_another_drops_no_secret_that_is_in_use() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let mut made = vec![store.callback_secrets(owner).await.expect("secrets").current];
            let soon = Millis::now().plus(Duration::from_hours(24));
            for later in 0..3 {
                let until = soon.plus(Duration::from_hours(later));
                made.push(store.rotate_callback_secret(owner, until).await.expect("secrets").current);
            }
            let secrets = store.callback_secrets(owner).await.expect("secrets");
            let last = (made[2].clone(), soon.plus(Duration::from_hours(2)));
            assert_eq!(secrets.previous, [last, (made[0].clone(), soon)], "the last one and the oldest");
        })
        .await;
    }
}
