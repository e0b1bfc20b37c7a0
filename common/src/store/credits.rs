//! Credits: granting them, and the ledger that says where they went.

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, ConnectionTrait as _, EntityTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Statement,
};

use super::{
    connection::{Store, within_patience},
    entity::{account, ledger},
    error::StoreError,
    stored,
    write::Write,
};
use crate::domain::{
    account::MicroCredits,
    ids::{AccountId, AgentId, EntryId, KeyId},
    message::Usage,
    time::Millis,
};

/// No balance leaves this range to either side: the sum of two such still fits in 64 bits.
pub const BALANCE_LIMIT: MicroCredits = 4_000_000_000_000_000_000;

/// What changed a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerKind {
    /// A finished message.
    Charge,
    /// The operator.
    Grant,
}

impl LedgerKind {
    /// The name that rows and commands use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Grant => "grant",
        }
    }
}

/// One change of a balance.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    /// Its identifier; a charge has its message's.
    pub id: EntryId,
    /// Where it comes from.
    pub kind: LedgerKind,
    /// The key that caused a charge.
    pub key_id: Option<KeyId>,
    /// The agent that was charged for.
    pub agent_id: Option<AgentId>,
    /// The model that was charged for.
    pub model: Option<String>,
    /// What was charged for.
    pub usage: Usage,
    /// What it did to the balance: charges are negative or zero.
    pub amount: MicroCredits,
    /// What the operator wrote on a grant.
    pub note: Option<String>,
    /// When.
    pub created_at: Millis,
}

impl Store {
    /// Adds `amount` to the account's balance (a negative one takes away) and gives the new balance.
    pub async fn grant(
        &self,
        account: AccountId,
        amount: MicroCredits,
        note: &str,
    ) -> Result<MicroCredits, StoreError> {
        within_patience(async {
            let now = Millis::now();
            let write = self.write().await?;
            let balance = add(&write, account, amount).await?;
            let entry = ledger::ActiveModel {
                id: Set(EntryId::new().0),
                account_id: Set(account.0),
                key_id: Set(None),
                agent_id: Set(None),
                day: Set(now.day()),
                kind: Set(LedgerKind::Grant.name().to_owned()),
                model: Set(None),
                input_tokens: Set(0),
                output_tokens: Set(0),
                estimated: Set(false),
                amount: Set(amount),
                note: Set(Some(note.to_owned())),
                created_at: Set(now.0),
            };
            entry.insert(&*write).await?;
            write.commit().await?;
            Ok(balance)
        })
        .await
    }

    /// What the account has left.
    pub async fn balance(&self, account: AccountId) -> Result<MicroCredits, StoreError> {
        within_patience(async {
            let row = account::Entity::find_by_id(account.0).one(&self.db).await?;
            Ok(row.ok_or(StoreError::Missing("account"))?.balance)
        })
        .await
    }

    /// The last `limit` entries of the account's ledger, newest first.
    pub async fn ledger(&self, account: AccountId, limit: u64) -> Result<Vec<LedgerEntry>, StoreError> {
        within_patience(async {
            let rows = ledger::Entity::find()
                .filter(ledger::Column::AccountId.eq(account.0))
                .order_by_desc(ledger::Column::CreatedAt)
                .order_by_desc(ledger::Column::Id)
                .limit(limit)
                .all(&self.db)
                .await?;
            rows.into_iter().map(from_row).collect()
        })
        .await
    }
}

/// Adds `amount` to a balance that stays within its limits.
async fn add(write: &Write, account: AccountId, amount: MicroCredits) -> Result<MicroCredits, StoreError> {
    if !(-BALANCE_LIMIT..=BALANCE_LIMIT).contains(&amount) {
        return Err(StoreError::TooLarge);
    }
    let update = format!(
        "UPDATE accounts SET balance = balance + $1 \
         WHERE id = $2 AND balance + $1 BETWEEN -{BALANCE_LIMIT} AND {BALANCE_LIMIT} RETURNING balance"
    );
    let values = [amount.into(), account.0.into()];
    let statement = Statement::from_sql_and_values(write.get_database_backend(), update, values);
    if let Some(row) = write.query_all_raw(statement).await?.first() {
        return Ok(row.try_get_by_index(0)?);
    }
    match account::Entity::find_by_id(account.0).one(&**write).await? {
        Some(_) => Err(StoreError::TooLarge),
        None => Err(StoreError::Missing("account")),
    }
}

fn from_row(row: ledger::Model) -> Result<LedgerEntry, StoreError> {
    Ok(LedgerEntry {
        id: EntryId(row.id),
        kind: if row.kind == LedgerKind::Grant.name() { LedgerKind::Grant } else { LedgerKind::Charge },
        key_id: row.key_id.map(KeyId),
        agent_id: row.agent_id.map(AgentId),
        model: row.model,
        usage: Usage {
            input_tokens: stored::count("input_tokens", row.input_tokens)?,
            output_tokens: stored::count("output_tokens", row.output_tokens)?,
            estimated: row.estimated,
        },
        amount: row.amount,
        note: row.note,
        created_at: Millis(row.created_at),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::future::try_join_all;

    use super::*;
    use crate::store::testing::{account, completed, job, on_each_database};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_ledger_adds_up_to_the_balance() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            try_join_all((1..=10).map(|amount| store.grant(owner, amount * 100, "welcome"))).await.expect("grants");
            let one = job(owner);
            store.finish(&[completed(&one, "done")]).await.expect("to finish");
            assert_eq!(store.grant(owner, -493, "mistake").await.expect("the balance"), 5_000);
            assert_eq!(store.balance(owner).await.expect("the balance"), 5_000);

            let entries = store.ledger(owner, 100).await.expect("the ledger");
            assert_eq!((entries.len(), entries.iter().map(|entry| entry.amount).sum()), (12, 5_000));
            let charge = entries.iter().find(|entry| entry.kind == LedgerKind::Charge).expect("the charge");
            assert_eq!((charge.id.0, charge.amount, charge.agent_id), (one.id.0, -7, Some(one.agent)));
            assert_eq!(store.ledger(owner, 2).await.expect("the ledger").len(), 2);
        })
        .await;
    }

    #[tokio::test]
    async fn amounts_beyond_the_limits_change_nothing() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            store.grant(owner, BALANCE_LIMIT, "").await.expect("just within");
            for amount in [1, BALANCE_LIMIT, i64::MAX, i64::MIN] {
                assert!(matches!(store.grant(owner, amount, "").await, Err(StoreError::TooLarge)), "{amount}");
            }
            assert_eq!(store.balance(owner).await.expect("the balance"), BALANCE_LIMIT);
            assert_eq!(store.ledger(owner, 9).await.expect("the ledger").len(), 1);
            let nobody = AccountId::new();
            assert!(matches!(store.grant(nobody, 1, "").await, Err(StoreError::Missing("account"))));
            assert!(matches!(store.balance(nobody).await, Err(StoreError::Missing("account"))));
        })
        .await;
    }
}
