//! API keys: making, finding and revoking them.

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    sea_query::Expr,
};

use super::{
    accounts,
    connection::{Store, within_patience},
    entity::{
        account,
        api_key::{ActiveModel, Column, Entity, Model},
    },
    error::{StoreError, is_orphan},
};
use crate::domain::{
    account::Account,
    ids::{AccountId, AgentId, KeyId},
    key::ApiKey,
    time::Millis,
};

/// A key that may be used, and whose it is.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Whose it is.
    pub account: Account,
    /// The key.
    pub key: ApiKey,
}

impl Store {
    /// A new key, known by the `hash` of its secret. Without `agents` it may use all of the account.
    pub async fn create_key(
        &self,
        account: AccountId,
        name: &str,
        hash: [u8; 32],
        last_four: &str,
        agents: Option<Vec<AgentId>>,
    ) -> Result<ApiKey, StoreError> {
        let agents = agents.map(|agents| serde_json::to_string(&agents)).transpose();
        let key = ActiveModel {
            id: Set(KeyId::new().0),
            account_id: Set(account.0),
            name: Set(name.to_owned()),
            hash: Set(hash.to_vec()),
            last_four: Set(last_four.to_owned()),
            agents: Set(agents.map_err(|error| StoreError::unreadable("list of agents", error))?),
            created_at: Set(Millis::now().0),
            revoked_at: Set(None),
        };
        within_patience(async {
            let write = self.write().await?;
            let made = key.insert(&*write).await.map_err(|error| match is_orphan(&error) {
                true => StoreError::Missing("account"),
                false => error.into(),
            })?;
            write.commit().await?;
            from_row(made)
        })
        .await
    }

    /// The account's keys, revoked ones too, oldest first.
    pub async fn keys(&self, account: AccountId) -> Result<Vec<ApiKey>, StoreError> {
        within_patience(async {
            let keys = Entity::find().filter(Column::AccountId.eq(account.0)).order_by_asc(Column::Id);
            keys.all(&self.db).await?.into_iter().map(from_row).collect()
        })
        .await
    }

    /// One key, revoked or not.
    pub async fn key(&self, key: KeyId) -> Result<Option<ApiKey>, StoreError> {
        within_patience(async { Entity::find_by_id(key.0).one(&self.db).await?.map(from_row).transpose() }).await
    }

    /// Gives a key another name.
    pub async fn rename_key(&self, key: KeyId, name: &str) -> Result<(), StoreError> {
        let update = Entity::update_many().col_expr(Column::Name, Expr::value(name)).filter(Column::Id.eq(key.0));
        within_patience(async {
            let write = self.write().await?;
            let updated = update.exec(&*write).await?;
            write.commit().await?;
            if updated.rows_affected == 0 { Err(StoreError::Missing("key")) } else { Ok(()) }
        })
        .await
    }

    /// Revokes a key for good. Whether it could be used until now.
    pub async fn revoke_key(&self, key: KeyId) -> Result<bool, StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::RevokedAt, Expr::value(Millis::now().0))
            .filter(Column::Id.eq(key.0))
            .filter(Column::RevokedAt.is_null());
        within_patience(async {
            let write = self.write().await?;
            let updated = update.exec(&*write).await?;
            write.commit().await?;
            Ok(updated.rows_affected > 0)
        })
        .await
    }

    /// The key with this hash and its account, in one statement; `None` when it is unknown or revoked.
    pub async fn credential(&self, hash: [u8; 32]) -> Result<Option<Credential>, StoreError> {
        within_patience(async {
            let found = Entity::find()
                .filter(Column::Hash.eq(hash.to_vec()))
                .filter(Column::RevokedAt.is_null())
                .find_also_related(account::Entity)
                .one(&self.db)
                .await?;
            let Some((key, Some(account))) = found else { return Ok(None) };
            Ok(Some(Credential { account: accounts::from_row(account)?, key: from_row(key)? }))
        })
        .await
    }
}

fn from_row(row: Model) -> Result<ApiKey, StoreError> {
    let agents = row.agents.map(|agents| serde_json::from_str(&agents)).transpose();
    Ok(ApiKey {
        id: KeyId(row.id),
        account_id: AccountId(row.account_id),
        name: row.name,
        last_four: row.last_four,
        agents: agents.map_err(|error| StoreError::unreadable("list of agents", error))?,
        created_at: Millis(row.created_at),
        revoked_at: row.revoked_at.map(Millis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{account, on_each_database};

    #[tokio::test]
    async fn a_credential_is_one_statement() {
        on_each_database(async |store| {
            let owner = account(&store).await;
            let agents = Some(vec![AgentId::new(), AgentId::new()]);
            let made = store.create_key(owner.id, "ci", [7; 32], "abcd", agents.clone()).await.expect("a new key");
            let before = store.queries();
            let found = store.credential([7; 32]).await.expect("an answer").expect("the key");
            assert_eq!(store.queries(), before + 1);
            assert_eq!((found.key.id, found.account.id), (made.id, owner.id));
            assert_eq!((found.key.agents, found.key.last_four.as_str()), (agents, "abcd"));
            assert!(store.credential([8; 32]).await.expect("an answer").is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_revoked_key_is_shown_and_not_taken() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let id = store.create_key(owner, "ci", [7; 32], "abcd", None).await.expect("a new key").id;
            assert!(store.revoke_key(id).await.expect("an answer"), "it could be used");
            assert!(!store.revoke_key(id).await.expect("an answer"), "it could not");
            assert!(store.credential([7; 32]).await.expect("an answer").is_none());
            assert!(store.key(id).await.expect("an answer").expect("the key").revoked_at.is_some());
        })
        .await;
    }

    #[tokio::test]
    async fn keys_are_listed_with_their_present_names() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let first = store.create_key(owner, "one", [1; 32], "aaaa", None).await.expect("a new key").id;
            store.create_key(owner, "two", [2; 32], "bbbb", Some(vec![])).await.expect("a new key");
            store.create_key(other, "three", [3; 32], "cccc", None).await.expect("a new key");
            store.rename_key(first, "first").await.expect("to rename it");
            let names: Vec<_> = store.keys(owner).await.expect("keys").into_iter().map(|key| key.name).collect();
            assert_eq!(names, ["first", "two"]);
            assert!(matches!(store.rename_key(KeyId::new(), "x").await, Err(StoreError::Missing("key"))));
            let orphan = store.create_key(AccountId::new(), "x", [4; 32], "dddd", None).await;
            assert!(matches!(orphan, Err(StoreError::Missing("account"))), "{orphan:?}");
        })
        .await;
    }
}
