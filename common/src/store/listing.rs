//! Lists of messages, and blanking one for good.

use std::time::Duration;

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _, Select,
    sea_query::{Expr, Query, SelectStatement, UnionType},
};
use uuid::Uuid;

use super::{
    connection::{Store, within_patience},
    entity::message::{Column, Entity},
    error::StoreError,
    stored::{self, Row, StoredMessage},
};
use crate::domain::{
    channel::Channel,
    ids::{AccountId, AgentId, MessageId},
    message::MessageStatus,
    time::Millis,
};

/// An id is never made this long before its message is accepted: clocks differ, and lines of a batch have its time.
const OLDER_IDS: Duration = Duration::from_hours(24);

/// How many agents are each looked up by themselves: SQLite joins no more than 500 selects. A list of more than these
/// is read along the account's history.
const MOST_AGENTS: usize = 100;

/// A list ends with the message whose answer takes it to so many bytes.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How many rows are read at once: one may have an answer of megabytes.
const PORTION: usize = 10;

/// Which messages of an account are wanted; by default all.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Those that stand there.
    pub status: Option<MessageStatus>,
    /// Those to one of these agents.
    pub agents: Option<Vec<AgentId>>,
    /// Those of this batch.
    pub batch: Option<Uuid>,
    /// Those that came in this way.
    pub channel: Option<Channel>,
    /// Those that were accepted after this moment.
    pub created_after: Option<Millis>,
    /// Those that are older than this one: where the page before ended.
    pub before: Option<MessageId>,
}

/// The beginning of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Newest first.
    pub messages: Vec<StoredMessage>,
    /// Whether there are more after the last one.
    pub has_more: bool,
}

/// What came of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// The texts are gone.
    Done,
    /// They were gone before.
    AlreadyPurged,
    /// The message has not ended.
    NotFinished,
    /// The account has no such message.
    Missing,
}

impl Store {
    /// The newest messages of the account that pass `filter`, newest first: at most `limit`, and no more once they have
    /// answers of 8 MiB. They are read in small portions, so that long answers do not fill the memory.
    pub async fn messages(&self, account: AccountId, filter: &ListFilter, limit: usize) -> Result<Listed, StoreError> {
        let mut filter = filter.clone();
        let mut listed = Listed { messages: Vec::new(), has_more: false };
        let mut bytes = 0;
        loop {
            let portion = self.portion(account, &filter).await?;
            let is_last = portion.len() < PORTION;
            for message in portion {
                if listed.messages.len() >= limit || bytes >= MOST_BYTES {
                    listed.has_more = true;
                    return Ok(listed);
                }
                let content = message.outcome.as_ref().and_then(|outcome| outcome.content.as_ref());
                bytes += content.map_or(0, String::len);
                filter.before = Some(message.id);
                listed.messages.push(message);
            }
            if is_last {
                return Ok(listed);
            }
        }
    }

    async fn portion(&self, account: AccountId, filter: &ListFilter) -> Result<Vec<StoredMessage>, StoreError> {
        let select = filter.page(account, PORTION as u64);
        within_patience(async {
            let rows = select.into_model::<Row>().all(&self.db).await?;
            rows.into_iter().map(Row::message).collect()
        })
        .await
    }

    /// Blanks what was said and answered; who asked, the status, the usage and the reason of a failure stay.
    pub async fn purge(&self, account: AccountId, id: MessageId) -> Result<Purged, StoreError> {
        let ended = MessageStatus::ALL.into_iter().filter(|status| status.is_terminal()).map(MessageStatus::name);
        let update = Entity::update_many()
            .col_expr(Column::Prompt, Expr::value("[]"))
            .col_expr(Column::Content, Expr::value(Option::<String>::None))
            .col_expr(Column::Metadata, Expr::value(Option::<String>::None))
            .col_expr(Column::Callback, Expr::value(Option::<String>::None))
            .col_expr(Column::PurgedAt, Expr::value(Millis::now().0))
            .filter(Column::Id.eq(id.0))
            .filter(Column::AccountId.eq(account.0))
            .filter(Column::PurgedAt.is_null())
            .filter(Column::Status.is_in(ended));
        within_patience(async {
            let write = self.write().await?;
            let updated = update.exec(&*write).await?;
            write.commit().await?;
            if updated.rows_affected > 0 {
                return Ok(Purged::Done);
            }
            let found = stored::find(&self.db, &[id]).await?.into_iter().find(|message| message.account == account);
            Ok(match found {
                None => Purged::Missing,
                Some(message) if message.purged_at.is_some() => Purged::AlreadyPurged,
                Some(_) => Purged::NotFinished,
            })
        })
        .await
    }
}

impl ListFilter {
    /// Selects the newest `limit` messages, newest first.
    fn page(&self, account: AccountId, limit: u64) -> Select<Entity> {
        let select = match self.agents.as_deref() {
            Some([first, others @ ..]) if (1..MOST_AGENTS).contains(&others.len()) => {
                let mut newest = self.newest_of(account, *first, limit);
                for agent in others {
                    newest.union(UnionType::All, self.newest_of(account, *agent, limit));
                }
                stored::select().filter(Column::Id.in_subquery(newest))
            }
            Some(agents) => {
                self.narrow(stored::select(), account).filter(Column::AgentId.is_in(agents.iter().map(|agent| agent.0)))
            }
            None => self.narrow(stored::select(), account),
        };
        select.order_by_desc(Column::Id).limit(limit)
    }

    /// The ids of the newest `limit` messages to one agent, from the index that has them in this order.
    fn newest_of(&self, account: AccountId, agent: AgentId, limit: u64) -> SelectStatement {
        let ids = self.narrow(Entity::find().select_only().column(Column::Id), account);
        let ids = ids.filter(Column::AgentId.eq(agent.0)).order_by_desc(Column::Id).limit(limit);
        // Only as a table may it have an order of its own.
        Query::select().column(Column::Id).from_subquery(ids.into_query(), "newest").take()
    }

    /// Leaves what the filter names, agents aside.
    fn narrow(&self, select: Select<Entity>, account: AccountId) -> Select<Entity> {
        let mut select = select.filter(Column::AccountId.eq(account.0));
        if let Some(status) = self.status {
            select = select.filter(Column::Status.eq(status.name()));
            if status != MessageStatus::Completed {
                // Said once more in the words of the index: SQLite does not look into parameters.
                select = select.filter(Expr::cust("status <> 'completed'"));
            }
        }
        if let Some(batch) = self.batch {
            select = select.filter(Column::BatchId.eq(batch));
        }
        if let Some(channel) = self.channel {
            select = select.filter(Column::Channel.eq(channel.name()));
            if channel != Channel::Api {
                // Likewise. What came in by the API is found along the account's history, which it mostly is.
                select = select.filter(Expr::cust("channel <> 'api'"));
            }
        }
        if let Some(moment) = self.created_after {
            // The ids are in the index and begin with their time.
            select =
                select.filter(Column::CreatedAt.gt(moment.0)).filter(Column::Id.gte(first_id(moment.minus(OLDER_IDS))));
        }
        if let Some(id) = self.before {
            select = select.filter(Column::Id.lt(id.0));
        }
        select
    }
}

/// The lowest UUIDv7 of a millisecond.
pub(super) fn first_id(at: Millis) -> Uuid {
    let millis = u128::try_from(at.0.max(0)).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sea_orm::{ConnectionTrait as _, DbBackend, QueryTrait as _, Statement};

    use super::*;
    use crate::{
        domain::job::Job,
        store::{
            messages::Committed,
            testing::{completed, failed, job, on_each_database, started},
        },
    };

    async fn listed(store: &Store, account: AccountId, filter: ListFilter, limit: usize) -> Vec<MessageId> {
        let found = store.messages(account, &filter, limit).await.expect("a list");
        found.messages.into_iter().map(|message| message.id).collect()
    }

    #[tokio::test]
    async fn pages_are_newest_first_and_join_up() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let jobs: Vec<_> = (0..10).map(|_| job(owner)).collect();
            store.mark_queued(&jobs).await.expect("rows");
            store.mark_queued(&[job(AccountId::new())]).await.expect("a foreign one");
            let mut ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
            ids.reverse();
            let first = listed(&store, owner, ListFilter::default(), 4).await;
            assert_eq!(first, ids[..4]);
            let next = ListFilter { before: first.last().copied(), ..ListFilter::default() };
            assert_eq!(listed(&store, owner, next.clone(), 100).await, ids[4..]);
            for more in [0, MOST_AGENTS] {
                let nobody = std::iter::repeat_with(AgentId::new).take(more);
                let agents: Vec<_> = jobs[1..].iter().map(|job| job.agent).chain(nobody).collect();
                let all = ListFilter { agents: Some(agents.clone()), ..ListFilter::default() };
                assert_eq!(listed(&store, owner, all, 4).await, ids[..4]);
                let next = ListFilter { agents: Some(agents), ..next.clone() };
                assert_eq!(listed(&store, owner, next, 100).await, ids[4..9]);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_list_ends_after_so_many_bytes_and_goes_on_there() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let jobs: Vec<_> = (0..PORTION + 3).map(|_| job(owner)).collect();
            let long = "x".repeat(MOST_BYTES / 2);
            for (index, job) in jobs.iter().rev().enumerate() {
                let content = if index == 0 || index == PORTION { long.as_str() } else { "short" };
                store.finish(&[completed(job, content)]).await.expect("to finish");
            }
            let ids: Vec<_> = jobs.iter().rev().map(|job| job.id).collect();
            let list = async |filter, limit| store.messages(owner, &filter, limit).await.expect("a list");
            let first = list(ListFilter::default(), 100).await;
            let found: Vec<_> = first.messages.iter().map(|message| message.id).collect();
            assert_eq!((found.as_slice(), first.has_more), (&ids[..=PORTION], true));
            let next = ListFilter { before: found.last().copied(), ..ListFilter::default() };
            for (limit, has_more) in [(1, true), (2, false), (100, false)] {
                let rest = list(next.clone(), limit).await;
                let found: Vec<_> = rest.messages.iter().map(|message| message.id).collect();
                assert_eq!((found.as_slice(), rest.has_more), (&ids[PORTION + 1..][..limit.min(2)], has_more));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn each_filter_leaves_what_it_names() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let [done, lost, running, hook] = std::array::from_fn(|_| job(owner));
            let hook = Arc::new(Job {
                channel: Channel::Webhooks,
                created_at: done.created_at.plus(Duration::from_mins(5)),
                ..Job::clone(&hook)
            });
            store.finish(&[completed(&done, "done"), failed(&lost)]).await.expect("to finish");
            store.mark_started(&[started(&running)]).await.expect("its row");
            store.mark_queued(std::slice::from_ref(&hook)).await.expect("its row");
            let all = ListFilter::default;
            let status = |status| ListFilter { status: Some(status), ..all() };
            let agents = |agents: &[AgentId]| ListFilter { agents: Some(agents.to_vec()), ..all() };
            for (filter, wanted) in [
                (status(MessageStatus::Completed), vec![done.id]),
                (status(MessageStatus::Failed), vec![lost.id]),
                (status(MessageStatus::InProgress), vec![running.id]),
                (status(MessageStatus::Queued), vec![hook.id]),
                (status(MessageStatus::Expired), vec![]),
                (agents(&[done.agent, hook.agent]), vec![hook.id, done.id]),
                (agents(&[]), vec![]),
                (ListFilter { channel: Some(Channel::Webhooks), ..all() }, vec![hook.id]),
                (
                    ListFilter { created_after: Some(done.created_at.plus(Duration::from_mins(1))), ..all() },
                    vec![hook.id],
                ),
                (ListFilter { batch: Some(owner.0), ..all() }, vec![]),
            ] {
                assert_eq!(listed(&store, owner, filter.clone(), 9).await, wanted, "{filter:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_list_is_read_from_an_index_in_its_order() {
        on_each_database(async |store| {
            if store.db.get_database_backend() != DbBackend::Sqlite {
                return;
            }
            let all = ListFilter::default;
            for (filter, index) in [
                (all(), "messages_account_id_id (account_id=?)"),
                (
                    ListFilter { before: Some(MessageId::new()), ..all() },
                    "messages_account_id_id (account_id=? AND id<?)",
                ),
                (
                    ListFilter { created_after: Some(Millis::now()), ..all() },
                    "messages_account_id_id (account_id=? AND id>?)",
                ),
                (
                    ListFilter { status: Some(MessageStatus::Failed), ..all() },
                    "messages_account_id_status_id (account_id=? AND status=?)",
                ),
                (ListFilter { batch: Some(MessageId::new().0), ..all() }, "messages_batch_id_id (batch_id=?)"),
                (
                    ListFilter { agents: Some(vec![AgentId::new()]), before: Some(MessageId::new()), ..all() },
                    "messages_account_id_agent_id_id (account_id=? AND agent_id=? AND id<?)",
                ),
                (
                    ListFilter { channel: Some(Channel::Webhooks), ..all() },
                    "messages_account_id_channel_id (account_id=? AND channel=?)",
                ),
            ] {
                let plan = plan(&store, &filter).await;
                assert!(plan.len() == 1 && plan[0].ends_with(index), "{plan:?}");
            }
            // Each agent's newest are read from there too, and only those few are sorted.
            let agents = ListFilter { agents: Some(vec![AgentId::new(), AgentId::new()]), ..all() };
            let plan = plan(&store, &agents).await;
            let of_one = "messages_account_id_agent_id_id (account_id=? AND agent_id=?)";
            assert_eq!(plan.iter().filter(|line| line.ends_with(of_one)).count(), 2, "{plan:?}");
            assert!(!plan.iter().any(|line| line.contains("messages_account_id_id")), "{plan:?}");
        })
        .await;
    }

    /// How SQLite goes about a list.
    async fn plan(store: &Store, filter: &ListFilter) -> Vec<String> {
        let mut statement: Statement = filter.page(AccountId::new(), 20).build(DbBackend::Sqlite);
        statement.sql = format!("EXPLAIN QUERY PLAN {}", statement.sql);
        let rows = store.db.query_all_raw(statement).await.expect("a plan");
        rows.iter().map(|row| row.try_get("", "detail").expect("a line")).collect()
    }

    #[tokio::test]
    async fn a_purge_leaves_a_tombstone_and_happens_once() {
        on_each_database(async |store| {
            let owner = AccountId::new();
            let metadata = serde_json::json!({ "order": 7, "zero": "\0" });
            let kept = Arc::new(Job { metadata: metadata.as_object().cloned(), ..Job::clone(&job(owner)) });
            let purge = async |account| store.purge(account, kept.id).await.expect("an answer");
            assert_eq!(purge(owner).await, Purged::Missing);
            store.mark_queued(std::slice::from_ref(&kept)).await.expect("its row");
            assert_eq!(purge(owner).await, Purged::NotFinished);
            let committed = store.finish(&[completed(&kept, "secret")]).await.expect("to finish");
            assert!(matches!(committed[..], [Committed::Won { .. }]));
            assert_eq!(store.turns(kept.id).await.expect("an answer").as_ref(), Some(&kept.turns));
            let before = store.message(kept.id).await.expect("an answer").expect("the row");
            assert_eq!(before.metadata.as_ref(), metadata.as_object());

            assert_eq!(purge(AccountId::new()).await, Purged::Missing);
            assert_eq!(purge(owner).await, Purged::Done);
            assert_eq!(purge(owner).await, Purged::AlreadyPurged);
            let row = store.message(kept.id).await.expect("an answer").expect("the row");
            assert!(row.purged_at.is_some() && row.metadata.is_none());
            let outcome = row.outcome.expect("its end");
            assert_eq!((outcome.status, outcome.content), (MessageStatus::Completed, None));
            assert_eq!(outcome.usage.total(), 7);
            assert_eq!(store.turns(kept.id).await.expect("an answer"), Some(vec![]));
        })
        .await;
    }
}
