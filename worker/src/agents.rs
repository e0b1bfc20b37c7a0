//! The agents that jobs pin, by version: a version never changes, so it is read once.

use std::{sync::Arc, time::Duration};

use common::{
    cache::Cache,
    domain::{agent::Agent, ids::AgentId},
    store::{connection::Store, error::StoreError},
};

const CAPACITY: u64 = 10_000;
/// Versions do not change; this bounds how long an unused one is kept.
const KEEP: Duration = Duration::from_secs(300);

/// Looks agents up.
pub struct Agents {
    store: Store,
    cache: Cache<(AgentId, i32), Arc<Agent>>,
}

impl Agents {
    /// Reads from `store`.
    pub fn new(store: Store) -> Self {
        Self { store, cache: Cache::new(CAPACITY, KEEP) }
    }

    /// The agent in the version that a job pins; `None` when there is none.
    pub async fn version(&self, id: AgentId, version: i32) -> Result<Option<Arc<Agent>>, StoreError> {
        self.cache.get((id, version), || async { Ok(self.store.agent_version(id, version).await?.map(Arc::new)) }).await
    }
}
