//! Charging a message that was cancelled while it ran: its end is stored first, and what it used is known later.

use sea_orm::{ConnectionTrait as _, Statement, Value};

use super::{
    connection::{Store, within_patience},
    credits::LedgerKind,
    deliveries,
    error::StoreError,
    finish, sql,
};
use crate::domain::{
    job::Job,
    message::{MessageStatus, Usage},
    time::Millis,
};

const ENTER: &str = "INSERT INTO ledger (id, account_id, key_id, agent_id, day, kind, model, input_tokens, \
     output_tokens, estimated, amount, created_at) \
     SELECT id, account_id, key_id, agent_id, $1, $2, $3, $4, $5, $6, $7, $8 FROM messages \
     WHERE id = $9 AND status = 'cancelled' ON CONFLICT (id) DO NOTHING";

const NOTE: &str = "UPDATE messages SET model = $1, input_tokens = $2, output_tokens = $3, usage_estimated = $4, \
     credits_charged = $5 WHERE id = $6";

impl Store {
    /// Charges a cancelled message for what its run used until `at`. Whether it did: not when the message did not
    /// end as cancelled, and not a second time, whoever asks. What waited to tell of it is due then.
    pub async fn charge_cancelled(
        &self,
        job: &Job,
        usage: Usage,
        model: Option<&str>,
        at: Millis,
    ) -> Result<bool, StoreError> {
        let credits = finish::within_limit(job.price.charge(usage));
        let (input, output) = (Value::from(i64::from(usage.input_tokens)), Value::from(i64::from(usage.output_tokens)));
        within_patience(async {
            let write = self.write().await?;
            let run = async |text: &str, values: Vec<Value>| {
                write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), text, values)).await
            };
            let entry = vec![
                at.day().into(),
                LedgerKind::Charge.name().into(),
                sql::text(model),
                input.clone(),
                output.clone(),
                usage.estimated.into(),
                (-credits).into(),
                at.0.into(),
                job.id.0.into(),
            ];
            // The ledger's primary key decides who charges.
            if run(ENTER, entry).await?.rows_affected() == 0 {
                return Ok(false);
            }
            let note = vec![sql::text(model), input, output, usage.estimated.into(), credits.into(), job.id.0.into()];
            run(NOTE, note).await?;
            finish::take_from(&write, job.account, credits).await?;
            if job.tells(MessageStatus::Cancelled) {
                deliveries::hurry(&write, job.id, Millis::now()).await?;
            }
            write.commit().await?;
            Ok(true)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::try_join_all;
    use sea_orm::EntityTrait as _;

    use super::*;
    use crate::store::{
        claims::Class,
        entity::webhook_delivery,
        messages::Committed,
        testing::{ROOMY, account, calling_back, cancelled, completed, failed, job, on_each_database},
    };

    const USED: Usage = Usage { input_tokens: 10, output_tokens: 5, estimated: true };

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_cancelled_message_is_charged_once_and_only_by_its_run() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let one = job(owner);
            let committed = store.finish(&[cancelled(&one)]).await.expect("to cancel");
            assert_eq!(committed, [Committed::Won { credits_charged: 0 }]);
            assert!(store.ledger(owner, 9).await.expect("the ledger").is_empty());
            let charges = (0..4).map(|_| store.charge_cancelled(&one, USED, Some("demo"), Millis::now()));
            let charged = try_join_all(charges).await.expect("answers");
            assert_eq!(charged.iter().filter(|charged| **charged).count(), 1);
            assert_eq!(store.balance(owner).await.expect("a balance"), -15);
            assert_eq!(store.ledger(owner, 9).await.expect("the ledger").len(), 1);
            let outcome = store.outcomes(&[one.id]).await.expect("outcomes").remove(0).1;
            assert_eq!((outcome.status, outcome.usage), (MessageStatus::Cancelled, USED));
            assert_eq!((outcome.credits_charged, outcome.model.as_deref()), (15, Some("demo")));
        })
        .await;
    }

    #[tokio::test]
    async fn a_cancelled_message_is_told_of_when_its_charge_is_known_or_a_little_later() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let ran = calling_back(owner, "https://one.example.com");
            let queued = calling_back(owner, "https://two.example.com");
            store.finish(&[cancelled(&ran), cancelled(&queued)]).await.expect("to cancel");
            let told = async |now| {
                let claims = store.claim_targets(Class::Untried, &ROOMY, now).await.expect("claims");
                let due = claims.into_iter().flat_map(|claim| claim.deliveries);
                due.filter_map(|due| due.delivery.message).collect::<Vec<_>>()
            };
            let end = store.message(ran.id).await.expect("an answer").expect("the row").outcome.expect("its end");
            assert_eq!(told(end.completed_at).await, []);
            assert!(store.charge_cancelled(&ran, USED, Some("demo"), Millis::now()).await.expect("an answer"));
            let hour = Duration::from_hours(1);
            let mut deliveries = webhook_delivery::Entity::find().all(&store.db).await.expect("deliveries");
            deliveries.sort_by_key(|delivery| (delivery.next_at, delivery.message_id));
            let due: Vec<_> = deliveries.iter().map(|delivery| delivery.message_id).collect();
            assert_eq!(due, [Some(ran.id.0), Some(queued.id.0)], "the charged one first");
            let mut all = told(Millis::now().plus(hour)).await;
            all.sort_unstable();
            assert_eq!(all, [ran.id, queued.id]);
        })
        .await;
    }

    #[tokio::test]
    async fn an_end_that_came_too_late_and_was_free_is_not_in_the_way() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let (one, other) = (job(owner), job(owner));
            store.finish(&[cancelled(&one)]).await.expect("to cancel");
            let free = |job| {
                let mut end = failed(job);
                end.outcome.usage = Usage::default();
                end
            };
            let late = store.finish(&[free(&one), free(&other)]).await.expect("to find the end");
            assert!(matches!(late[..], [Committed::Lost(_), Committed::Won { credits_charged: 0 }]), "{late:?}");
            let entries = store.ledger(owner, 9).await.expect("the ledger");
            assert!(matches!(&entries[..], [entry] if entry.id.0 == other.id.0), "{entries:?}");
            assert!(store.charge_cancelled(&one, USED, None, Millis::now()).await.expect("an answer"));
            assert_eq!(store.balance(owner).await.expect("a balance"), -15);
        })
        .await;
    }

    #[tokio::test]
    async fn no_other_end_is_charged_this_way() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let (done, unknown) = (job(owner), job(owner));
            store.finish(&[completed(&done, "done")]).await.expect("to finish");
            for job in [done, unknown] {
                assert!(!store.charge_cancelled(&job, USED, None, Millis::now()).await.expect("an answer"));
            }
            assert_eq!(store.balance(owner).await.expect("a balance"), -7);
        })
        .await;
    }
}
