//! Accounts: making and finding them, and what they may use.

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    sea_query::Expr,
};

use super::{
    connection::{Store, within_patience},
    entity::account::{ActiveModel, Column, Entity, Model},
    error::{StoreError, is_taken},
};
use crate::domain::{
    account::Account,
    channel::{Channel, ChannelSet},
    ids::AccountId,
    time::Millis,
};

impl Store {
    /// A new account: its address not verified, all channels off, no credits. Its name must be new.
    pub async fn create_account(&self, name: &str, email: &str) -> Result<Account, StoreError> {
        let account = ActiveModel {
            id: Set(AccountId::new().0),
            name: Set(name.to_owned()),
            email: Set(email.to_owned()),
            email_verified: Set(false),
            channels: Set(ChannelSet::default().to_string()),
            balance: Set(0),
            has_endpoints: Set(false),
            created_at: Set(Millis::now().0),
        };
        within_patience(async {
            let write = self.write().await?;
            let made = account.insert(&*write).await.map_err(|error| match is_taken(&error) {
                true => StoreError::Taken { what: "account", name: name.to_owned() },
                false => error.into(),
            })?;
            write.commit().await?;
            from_row(made)
        })
        .await
    }

    /// Every account, by name.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        within_patience(async {
            let rows = Entity::find().order_by_asc(Column::Name).all(&self.db).await?;
            rows.into_iter().map(from_row).collect()
        })
        .await
    }

    /// The account with this id or, if there is none, with this name.
    pub async fn account_named(&self, name_or_id: &str) -> Result<Option<Account>, StoreError> {
        within_patience(async {
            if let Ok(AccountId(id)) = name_or_id.parse()
                && let Some(row) = Entity::find_by_id(id).one(&self.db).await?
            {
                return from_row(row).map(Some);
            }
            let row = Entity::find().filter(Column::Name.eq(name_or_id)).one(&self.db).await?;
            row.map(from_row).transpose()
        })
        .await
    }

    /// Says whether the account's address is verified.
    pub async fn set_email_verified(&self, account: AccountId, verified: bool) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::EmailVerified, Expr::value(verified))
            .filter(Column::Id.eq(account.0));
        within_patience(async {
            let write = self.write().await?;
            let updated = update.exec(&*write).await?;
            write.commit().await?;
            if updated.rows_affected == 0 { Err(StoreError::Missing("account")) } else { Ok(()) }
        })
        .await
    }

    /// Switches one channel on or off, and leaves the others as they are even if another process switches those at
    /// the same moment.
    pub async fn set_channel(&self, account: AccountId, channel: Channel, on: bool) -> Result<(), StoreError> {
        within_patience(async {
            loop {
                let row = Entity::find_by_id(account.0).one(&self.db).await?.ok_or(StoreError::Missing("account"))?;
                let switched = channels(&row)?.with(channel, on).to_string();
                if switched == row.channels || self.replace_channels(&row, switched).await? {
                    return Ok(());
                }
            }
        })
        .await
    }

    /// Whether the channels were still those of `row`, and are now `switched`.
    async fn replace_channels(&self, row: &Model, switched: String) -> Result<bool, StoreError> {
        let write = self.write().await?;
        let updated = Entity::update_many()
            .col_expr(Column::Channels, Expr::value(switched))
            .filter(Column::Id.eq(row.id))
            .filter(Column::Channels.eq(&row.channels))
            .exec(&*write)
            .await?;
        write.commit().await?;
        Ok(updated.rows_affected > 0)
    }
}

/// The account that `row` tells of.
pub(super) fn from_row(row: Model) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId(row.id),
        channels: channels(&row)?,
        name: row.name,
        email: row.email,
        email_verified: row.email_verified,
        balance: row.balance,
        has_endpoints: row.has_endpoints,
        created_at: Millis(row.created_at),
    })
}

fn channels(row: &Model) -> Result<ChannelSet, StoreError> {
    row.channels.parse().map_err(|error| StoreError::unreadable("channels", error))
}

#[cfg(test)]
mod tests {
    use futures_util::future::try_join_all;

    use super::*;
    use crate::store::testing::{account, on_each_database};

    #[tokio::test]
    async fn an_account_begins_with_everything_off() {
        on_each_database(async |store| {
            let made = store.create_account("acme", "desk@acme.example").await.expect("a new account");
            assert!(!made.email_verified && made.channels == ChannelSet::default() && made.balance == 0);
            for name in ["acme", &made.id.to_string()] {
                let found = store.account_named(name).await.expect("an answer").expect("the account");
                assert_eq!((found.id, found.email.as_str()), (made.id, "desk@acme.example"));
            }
            assert!(store.account_named("nobody").await.expect("an answer").is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_name_is_given_once() {
        on_each_database(async |store| {
            store.create_account("acme", "a@example.com").await.expect("a new account");
            let again = store.create_account("acme", "b@example.com").await;
            assert!(matches!(again, Err(StoreError::Taken { what: "account", .. })), "{again:?}");
            assert_eq!(store.accounts().await.expect("accounts").len(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn verification_can_be_given_and_taken() {
        on_each_database(async |store| {
            let id = account(&store).await.id;
            for verified in [true, false] {
                store.set_email_verified(id, verified).await.expect("to set it");
                assert_eq!(store.accounts().await.expect("accounts")[0].email_verified, verified);
            }
            let unknown = store.set_email_verified(AccountId::new(), true).await;
            assert!(matches!(unknown, Err(StoreError::Missing("account"))));
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn channels_switched_at_once_are_all_kept() {
        on_each_database(async |store| {
            let id = account(&store).await.id;
            for on in [true, false, true] {
                try_join_all(Channel::ALL.map(|channel| store.set_channel(id, channel, on)))
                    .await
                    .expect("all of them");
                let channels = store.accounts().await.expect("accounts")[0].channels;
                assert!(Channel::ALL.into_iter().all(|channel| channels.contains(channel) == on), "{channels}");
            }
            let unknown = store.set_channel(AccountId::new(), Channel::Api, true).await;
            assert!(matches!(unknown, Err(StoreError::Missing("account"))));
        })
        .await;
    }
}
