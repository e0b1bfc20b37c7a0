//! What was used, added up per key, agent and day.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, FromQueryResult, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};
use uuid::Uuid;

use super::{
    connection::{Store, within_patience},
    credits::LedgerKind,
    entity::ledger::{Column, Entity},
    error::StoreError,
};
use crate::domain::{
    account::MicroCredits,
    ids::{AccountId, AgentId, KeyId},
};

const MILLIS_PER_DAY: i64 = 86_400_000;

/// The finished messages of one key to one agent on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The key.
    pub key_id: KeyId,
    /// The agent.
    pub agent_id: AgentId,
    /// The UTC day on which they ended, in days since 1970-01-01.
    pub day: i32,
    /// How many messages.
    pub messages: u64,
    /// Tokens of their prompts.
    pub input_tokens: u64,
    /// Tokens of their answers.
    pub output_tokens: u64,
    /// What was charged.
    pub credits: MicroCredits,
}

#[derive(FromQueryResult)]
struct Row {
    key_id: Uuid,
    agent_id: Uuid,
    day: i32,
    messages: i64,
    input_tokens: i64,
    output_tokens: i64,
    credits: i64,
}

impl Store {
    /// What the account used from one day to another, both included, by day, key and agent.
    pub async fn usage(&self, account: AccountId, from_day: i32, to_day: i32) -> Result<Vec<UsageRow>, StoreError> {
        // PostgreSQL adds 64-bit numbers up to arbitrary precision; the sums fit again.
        let sum = |column: Column| Expr::col(column).sum().cast_as("bigint");
        let begin = i64::from(from_day) * MILLIS_PER_DAY;
        let end = (i64::from(to_day) + 1) * MILLIS_PER_DAY - 1;
        let select = Entity::find()
            .select_only()
            .columns([Column::KeyId, Column::AgentId, Column::Day])
            .column_as(Column::Id.count(), "messages")
            .column_as(sum(Column::InputTokens), "input_tokens")
            .column_as(sum(Column::OutputTokens), "output_tokens")
            .column_as(sum(Column::Amount), "credits")
            .filter(Column::AccountId.eq(account.0))
            .filter(Column::CreatedAt.between(begin, end))
            .filter(Column::Kind.eq(LedgerKind::Charge.name()))
            .group_by(Column::KeyId)
            .group_by(Column::AgentId)
            .group_by(Column::Day)
            .order_by_asc(Column::Day)
            .order_by_asc(Column::KeyId)
            .order_by_asc(Column::AgentId);
        within_patience(async {
            let rows = select.into_model::<Row>().all(&self.db).await?;
            rows.into_iter().map(from_row).collect()
        })
        .await
    }
}

fn from_row(row: Row) -> Result<UsageRow, StoreError> {
    let count = |what, number| u64::try_from(number).map_err(|error| StoreError::unreadable(what, error));
    Ok(UsageRow {
        key_id: KeyId(row.key_id),
        agent_id: AgentId(row.agent_id),
        day: row.day,
        messages: count("messages", row.messages)?,
        input_tokens: count("input_tokens", row.input_tokens)?,
        output_tokens: count("output_tokens", row.output_tokens)?,
        credits: row.credits.saturating_neg(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        domain::{job::Job, time::Millis},
        store::testing::{account, completed, job, on_each_database},
    };

    #[tokio::test]
    async fn usage_is_added_up_by_key_agent_and_day() {
        on_each_database(async |store| {
            let (owner, other) = (account(&store).await.id, account(&store).await.id);
            let first = job(owner);
            let again = Arc::new(Job { key: first.key, agent: first.agent, ..(*job(owner)).clone() });
            let foreign = job(other);
            let at = |job: &Arc<Job>, millis| {
                let mut finish = completed(job, "done");
                finish.outcome.completed_at = Millis(millis);
                finish
            };
            let (day, next) = (20_000 * MILLIS_PER_DAY, 20_001 * MILLIS_PER_DAY);
            let ends = [at(&first, day), at(&again, next - 1), at(&job(owner), next), at(&foreign, day)];
            store.finish(&ends).await.expect("to finish");
            store.grant(owner, 100, "no usage").await.expect("a grant");

            let used = store.usage(owner, 20_000, 20_000).await.expect("usage");
            let wanted = UsageRow {
                key_id: first.key,
                agent_id: first.agent,
                day: 20_000,
                messages: 2,
                input_tokens: 6,
                output_tokens: 8,
                credits: 14,
            };
            assert_eq!(used, [wanted]);
            assert_eq!(store.usage(owner, 20_000, 20_001).await.expect("usage").len(), 2);
            assert!(store.usage(owner, 20_002, 30_000).await.expect("usage").is_empty());
        })
        .await;
    }
}
