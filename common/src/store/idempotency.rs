//! Idempotency keys: the first request with a key makes the message, the others find it.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, EntityTrait as _, Statement};

use super::{
    connection::{Store, within_patience},
    entity::idempotency_key::{Entity, Model},
    error::StoreError,
};
use crate::domain::{
    ids::{AccountId, MessageId},
    time::Millis,
};

/// How long a key stands for its message.
pub const KEY_LIFE: Duration = Duration::from_hours(24);

const CLAIM: &str = "INSERT INTO idempotency_keys (account_id, key, fingerprint, message_id, claimed_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (account_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, \
     message_id = excluded.message_id, claimed_at = excluded.claimed_at \
     WHERE idempotency_keys.claimed_at <= $6 OR idempotency_keys.message_id = excluded.message_id";

/// How many keys are forgotten in one transaction.
const PORTION: u64 = 500;

const FORGET: &str = "DELETE FROM idempotency_keys WHERE (account_id, key) IN \
     (SELECT account_id, key FROM idempotency_keys WHERE claimed_at < $1 ORDER BY claimed_at LIMIT $2)";

/// What came of claiming a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It stands for the caller's message now, durably.
    New,
    /// It stands for another message.
    Known {
        /// Which one.
        id: MessageId,
        /// Whether that one was asked for with the same request.
        same_fingerprint: bool,
        /// When that was.
        claimed_at: Millis,
    },
}

impl Store {
    /// Makes `key` of the account stand for the message `id`, unless it has stood for another one for less than
    /// [`KEY_LIFE`]. Claiming it again for the same message is harmless.
    pub async fn claim_key(
        &self,
        account: AccountId,
        key: &str,
        fingerprint: [u8; 32],
        id: MessageId,
        now: Millis,
    ) -> Result<Claimed, StoreError> {
        within_patience(async {
            loop {
                if self.insert_key(account, key, fingerprint, id, now).await? {
                    return Ok(Claimed::New);
                }
                // It may have been forgotten just now: then the next turn inserts.
                if let Some(row) = Entity::find_by_id((account.0, key.to_owned())).one(&self.db).await? {
                    return Ok(known(row, fingerprint));
                }
            }
        })
        .await
    }

    async fn insert_key(
        &self,
        account: AccountId,
        key: &str,
        fingerprint: [u8; 32],
        id: MessageId,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let values = [
            account.0.into(),
            key.into(),
            fingerprint.to_vec().into(),
            id.0.into(),
            now.0.into(),
            now.minus(KEY_LIFE).0.into(),
        ];
        let write = self.write().await?;
        let statement = Statement::from_sql_and_values(write.get_database_backend(), CLAIM, values);
        let inserted = write.execute_raw(statement).await?.rows_affected() > 0;
        write.commit().await?;
        Ok(inserted)
    }

    /// Forgets the keys that were claimed before `before`; how many those were.
    pub async fn forget_old_keys(&self, before: Millis) -> Result<u64, StoreError> {
        let portion = i64::try_from(PORTION).unwrap_or(i64::MAX);
        let mut forgotten = 0;
        loop {
            // In few rows at a time: whoever claims a key waits for as long as one of these lasts.
            let deleted = within_patience(async {
                let write = self.write().await?;
                let values = [before.0.into(), portion.into()];
                let forget = Statement::from_sql_and_values(write.get_database_backend(), FORGET, values);
                let deleted = write.execute_raw(forget).await?.rows_affected();
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

fn known(row: Model, fingerprint: [u8; 32]) -> Claimed {
    Claimed::Known {
        id: MessageId(row.message_id),
        same_fingerprint: row.fingerprint == fingerprint,
        claimed_at: Millis(row.claimed_at),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::try_join_all;
    use sea_orm::ActiveValue::Set;

    use super::*;
    use crate::store::{entity::idempotency_key::ActiveModel, testing::on_each_database};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_claims_at_once_one_is_new_and_the_others_learn_it() {
        on_each_database(async |store| {
            let (owner, now) = (AccountId::new(), Millis::now());
            let ids: Vec<_> = (0..50).map(|_| MessageId::new()).collect();
            let claims = ids.iter().map(|id| store.claim_key(owner, "once", [7; 32], *id, now));
            let claimed = try_join_all(claims).await.expect("claims");
            let new: Vec<_> = claimed.iter().zip(&ids).filter(|(claimed, _)| **claimed == Claimed::New).collect();
            assert_eq!(new.len(), 1);
            let known = Claimed::Known { id: *new[0].1, same_fingerprint: true, claimed_at: now };
            assert_eq!(claimed.iter().filter(|claimed| **claimed == known).count(), 49);
        })
        .await;
    }

    #[tokio::test]
    async fn a_key_is_known_by_its_account_its_text_and_its_request() {
        on_each_database(async |store| {
            let (owner, id, now) = (AccountId::new(), MessageId::new(), Millis::now());
            let claim = async |account, key: &str, fingerprint, id| {
                store.claim_key(account, key, fingerprint, id, now).await.expect("an answer")
            };
            assert_eq!(claim(owner, "a", [1; 32], id).await, Claimed::New);
            assert_eq!(claim(owner, "a", [1; 32], id).await, Claimed::New, "after a lost answer");
            assert_eq!(claim(owner, "A", [1; 32], MessageId::new()).await, Claimed::New);
            assert_eq!(claim(AccountId::new(), "a", [1; 32], MessageId::new()).await, Claimed::New);
            let other = claim(owner, "a", [2; 32], MessageId::new()).await;
            assert_eq!(other, Claimed::Known { id, same_fingerprint: false, claimed_at: now });
        })
        .await;
    }

    #[tokio::test]
    async fn an_old_key_is_free_again() {
        on_each_database(async |store| {
            let (owner, now) = (AccountId::new(), Millis::now());
            let (first, second) = (MessageId::new(), MessageId::new());
            let early = now.minus(KEY_LIFE);
            store.claim_key(owner, "a", [1; 32], first, early.plus(Duration::from_millis(1))).await.expect("a claim");
            let claimed = store.claim_key(owner, "a", [2; 32], second, now).await.expect("an answer");
            assert!(matches!(claimed, Claimed::Known { id, .. } if id == first), "{claimed:?}");
            store.claim_key(owner, "b", [1; 32], first, early).await.expect("a claim");
            assert_eq!(store.claim_key(owner, "b", [2; 32], second, now).await.expect("an answer"), Claimed::New);
            assert_eq!(store.forget_old_keys(now).await.expect("housekeeping"), 1);
            assert_eq!(store.claim_key(owner, "a", [2; 32], second, now).await.expect("an answer"), Claimed::New);
        })
        .await;
    }

    #[tokio::test]
    async fn many_old_keys_are_forgotten_in_portions() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let key = |n: u64| ActiveModel {
                account_id: Set(owner.0),
                key: Set(n.to_string()),
                fingerprint: Set(vec![7; 32]),
                message_id: Set(MessageId::new().0),
                claimed_at: Set(i64::from(n < PORTION * 2 + 1)),
            };
            let keys = Entity::insert_many((0..PORTION * 2 + 3).map(key));
            keys.exec_without_returning(&store.db).await.expect("keys");
            let before = store.queries();
            // The last two are the older ones.
            assert_eq!(store.forget_old_keys(Millis(1)).await.expect("housekeeping"), 2);
            let one = store.queries() - before;
            let before = store.queries();
            assert_eq!(store.forget_old_keys(Millis(2)).await.expect("housekeeping"), PORTION * 2 + 1);
            assert_eq!(store.queries() - before, 3 * one);
            assert_eq!(Entity::find().all(&store.db).await.expect("keys"), []);
        })
        .await;
    }
}
