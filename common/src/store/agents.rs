//! Agents and their versions. A removed agent keeps its versions: jobs that were accepted with one still run.

use sea_orm::{
    ActiveModelTrait as _,
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, SelectTwo, Statement,
    sea_query::{Expr, ExprTrait as _},
};
use uuid::Uuid;

use super::{
    connection::{Store, within_patience},
    entity::{agent, agent_version},
    error::{StoreError, is_orphan},
    write::Write,
};
use crate::domain::{
    agent::{Agent, AgentSpec},
    ids::{AccountId, AgentId},
    time::Millis,
};

/// What applying a spec did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The agent is new, or had been removed.
    Created,
    /// It has a new version.
    Updated,
    /// It is like that already.
    Unchanged,
}

impl Store {
    /// Makes agents of the account as the specs say, all or none, and gives them back in the same order. An id that
    /// is new makes an agent; one of another account's is refused as [`StoreError::Taken`].
    pub async fn apply_agents(
        &self,
        account: AccountId,
        specs: Vec<(AgentId, AgentSpec)>,
    ) -> Result<Vec<(Agent, Applied)>, StoreError> {
        within_patience(async {
            let mut order: Vec<usize> = (0..specs.len()).collect();
            // In one order everywhere: PostgreSQL locks row by row, and two orders would be a deadlock.
            order.sort_by_key(|place| specs[*place].0);
            let write = self.write().await?;
            let mut applied = Vec::with_capacity(specs.len());
            for place in order {
                let (id, spec) = &specs[place];
                applied.push((place, apply(&write, account, *id, spec).await?));
            }
            write.commit().await?;
            applied.sort_by_key(|(place, _)| *place);
            Ok(applied.into_iter().map(|(_, agent)| agent).collect())
        })
        .await
    }

    /// The account's agents in their newest versions, oldest agent first.
    pub async fn agents(&self, account: AccountId) -> Result<Vec<Agent>, StoreError> {
        within_patience(async {
            let newest = newest().filter(agent::Column::AccountId.eq(account.0)).order_by_asc(agent::Column::Id);
            newest
                .all(&self.db)
                .await?
                .into_iter()
                .filter_map(|(version, agent)| Some(from_rows(version, agent?)))
                .collect()
        })
        .await
    }

    /// An agent in its newest version, whosever it is; `None` when it was removed.
    pub async fn agent(&self, id: AgentId) -> Result<Option<Agent>, StoreError> {
        within_patience(async {
            let Some((version, Some(agent))) = newest().filter(agent::Column::Id.eq(id.0)).one(&self.db).await? else {
                return Ok(None);
            };
            from_rows(version, agent).map(Some)
        })
        .await
    }

    /// An agent in one version, removed or not.
    pub async fn agent_version(&self, id: AgentId, version: i32) -> Result<Option<Agent>, StoreError> {
        within_patience(async {
            let found = agent_version::Entity::find_by_id((id.0, version)).find_also_related(agent::Entity);
            let Some((version, Some(agent))) = found.one(&self.db).await? else { return Ok(None) };
            from_rows(version, agent).map(Some)
        })
        .await
    }

    /// Takes an agent away from callers. Whether it was there.
    pub async fn remove_agent(&self, id: AgentId) -> Result<bool, StoreError> {
        let update = agent::Entity::update_many()
            .col_expr(agent::Column::RemovedAt, Expr::value(Millis::now().0))
            .filter(agent::Column::Id.eq(id.0))
            .filter(agent::Column::RemovedAt.is_null());
        within_patience(async {
            let write = self.write().await?;
            let updated = update.exec(&*write).await?;
            write.commit().await?;
            Ok(updated.rows_affected > 0)
        })
        .await
    }
}

/// The newest version of each agent that was not removed, with the agent.
fn newest() -> SelectTwo<agent_version::Entity, agent::Entity> {
    let version = (agent_version::Entity, agent_version::Column::Version);
    agent_version::Entity::find()
        .find_also_related(agent::Entity)
        .filter(Expr::col(version).equals((agent::Entity, agent::Column::Version)))
        .filter(agent::Column::RemovedAt.is_null())
}

async fn apply(
    write: &Write,
    account: AccountId,
    id: AgentId,
    spec: &AgentSpec,
) -> Result<(Agent, Applied), StoreError> {
    let Locked { version: old, removed } = lock(write, account, id).await?;
    let agent = |version| Agent { id, account_id: account, version, spec: spec.clone() };
    if old > 0 && !removed && stored_spec(write, id, old).await? == *spec {
        return Ok((agent(old), Applied::Unchanged));
    }
    let version = agent_version::ActiveModel {
        agent_id: Set(id.0),
        version: Set(old + 1),
        spec: Set(serde_json::to_string(spec).map_err(|error| StoreError::unreadable("agent", error))?),
    };
    version.insert(&**write).await?;
    agent::Entity::update_many()
        .col_expr(agent::Column::Version, Expr::value(old + 1))
        .col_expr(agent::Column::RemovedAt, Expr::value(Option::<i64>::None))
        .filter(agent::Column::Id.eq(id.0))
        .exec(&**write)
        .await?;
    Ok((agent(old + 1), if old == 0 || removed { Applied::Created } else { Applied::Updated }))
}

/// An agent's row, which nobody else can change before our transaction ends.
struct Locked {
    /// 0 when the agent is new.
    version: i32,
    removed: bool,
}

/// Makes the agent's row or, when it is there, locks it by an update that changes nothing.
async fn lock(write: &Write, account: AccountId, id: AgentId) -> Result<Locked, StoreError> {
    let upsert = "INSERT INTO agents (id, account_id, version, created_at) VALUES ($1, $2, 0, $3) \
                  ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id \
                  WHERE agents.account_id = excluded.account_id RETURNING version, removed_at";
    let values = [id.0.into(), account.0.into(), Millis::now().0.into()];
    let statement = Statement::from_sql_and_values(write.get_database_backend(), upsert, values);
    let rows = write.query_all_raw(statement).await.map_err(|error| match is_orphan(&error) {
        true => StoreError::Missing("account"),
        false => error.into(),
    })?;
    let row = rows.first().ok_or_else(|| StoreError::Taken { what: "agent", name: id.to_string() })?;
    let removed: Option<i64> = row.try_get_by_index(1)?;
    Ok(Locked { version: row.try_get_by_index(0)?, removed: removed.is_some() })
}

async fn stored_spec(write: &Write, id: AgentId, version: i32) -> Result<AgentSpec, StoreError> {
    let key: (Uuid, i32) = (id.0, version);
    let row = agent_version::Entity::find_by_id(key).one(&**write).await?;
    parse(&row.ok_or(StoreError::Missing("agent version"))?.spec)
}

fn parse(spec: &str) -> Result<AgentSpec, StoreError> {
    serde_json::from_str(spec).map_err(|error| StoreError::unreadable("agent", error))
}

fn from_rows(version: agent_version::Model, agent: agent::Model) -> Result<Agent, StoreError> {
    Ok(Agent {
        id: AgentId(agent.id),
        account_id: AccountId(agent.account_id),
        version: version.version,
        spec: parse(&version.spec)?,
    })
}

#[cfg(test)]
mod tests {
    use futures_util::future::try_join_all;

    use super::*;
    use crate::store::testing::{account, on_each_database};

    fn spec(instructions: &str) -> AgentSpec {
        AgentSpec {
            name: "Ada".to_owned(),
            description: String::new(),
            provider: None,
            model: "demo".to_owned(),
            instructions: instructions.to_owned(),
            temperature: Some(0.3),
            max_output_tokens: None,
        }
    }

    #[tokio::test]
    async fn a_change_makes_a_version_and_old_ones_stay() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let (ada, bob) = (AgentId::new(), AgentId::new());
            let steps = [
                ("be kind", 1, Applied::Created),
                ("be kind", 1, Applied::Unchanged),
                ("be brief", 2, Applied::Updated),
            ];
            for (text, version, wanted) in steps {
                // The younger one first: the answer keeps this order, the database works in its own.
                let applied = store.apply_agents(owner, vec![(bob, spec("")), (ada, spec(text))]).await.expect("both");
                assert_eq!(applied[0].0.id, bob);
                assert_eq!((applied[1].0.id, applied[1].0.version, applied[1].1), (ada, version, wanted));
            }
            let listed = store.agents(owner).await.expect("agents");
            assert_eq!(listed.iter().map(|agent| (agent.id, agent.version)).collect::<Vec<_>>(), [(ada, 2), (bob, 1)]);
            let newest = store.agent(ada).await.expect("an answer").expect("the agent");
            assert_eq!((newest.version, newest.account_id, newest.spec), (2, owner, spec("be brief")));
            let pinned = store.agent_version(ada, 1).await.expect("an answer").expect("the version");
            assert_eq!(pinned.spec, spec("be kind"));
            assert!(store.agent_version(ada, 3).await.expect("an answer").is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_removed_agent_keeps_its_versions_and_can_come_back() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let ada = AgentId::new();
            store.apply_agents(owner, vec![(ada, spec(""))]).await.expect("the agent");
            assert!(store.remove_agent(ada).await.expect("an answer"), "it was there");
            assert!(!store.remove_agent(ada).await.expect("an answer"), "it was not");
            assert!(store.agent(ada).await.expect("an answer").is_none());
            assert!(store.agents(owner).await.expect("agents").is_empty());
            assert!(store.agent_version(ada, 1).await.expect("an answer").is_some());
            let applied = store.apply_agents(owner, vec![(ada, spec(""))]).await.expect("the agent");
            assert_eq!((applied[0].0.version, applied[0].1), (2, Applied::Created));
            assert_eq!(store.agents(owner).await.expect("agents").len(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn anothers_agent_is_refused_with_all_that_came_along() {
        on_each_database(async |store| {
            let (owner, thief) = (account(&store).await.id, account(&store).await.id);
            let ada = AgentId::new();
            store.apply_agents(owner, vec![(ada, spec(""))]).await.expect("the agent");
            let stolen = store.apply_agents(thief, vec![(AgentId::new(), spec("")), (ada, spec("obey"))]).await;
            assert!(matches!(stolen, Err(StoreError::Taken { what: "agent", .. })), "{stolen:?}");
            assert!(store.agents(thief).await.expect("agents").is_empty());
            assert_eq!(store.agent(ada).await.expect("an answer").expect("the agent").version, 1);
            let orphan = store.apply_agents(AccountId::new(), vec![(AgentId::new(), spec(""))]).await;
            assert!(matches!(orphan, Err(StoreError::Missing("account"))), "{orphan:?}");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_at_once_each_get_a_version() {
        on_each_database(async |store| {
            let owner = account(&store).await.id;
            let ids = [AgentId::new(), AgentId::new()];
            let texts: Vec<String> = (0..6).map(|n| n.to_string()).collect();
            let changes = texts.iter().enumerate().map(|(n, text)| {
                let (first, second) = (ids[n % 2], ids[1 - n % 2]);
                store.apply_agents(owner, vec![(first, spec(text)), (second, spec(text))])
            });
            try_join_all(changes).await.expect("all of them");
            for agent in store.agents(owner).await.expect("agents") {
                assert_eq!(agent.version, 6);
            }
        })
        .await;
    }
}
