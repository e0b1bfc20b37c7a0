//! The agents that callers may name.

pub mod roster;

use std::{sync::Arc, time::Duration};

use common::{
    cache::Cache,
    domain::{
        agent::Agent,
        ids::{AccountId, AgentId},
    },
    store::{connection::Store, error::StoreError},
};
use tracing::error;

use self::roster::Roster;
use crate::{auth::caller::Caller, error::ApiError};

/// How many agents are remembered, known and unknown ones.
const CAPACITY: u64 = 100_000;
/// How many accounts are remembered with all of their agents.
const ROSTERS: u64 = 1_000;

/// Agents by their ids, from the store and for a short while from memory. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    agents: Cache<AgentId, Arc<Agent>>,
    rosters: Cache<AccountId, Arc<Roster>>,
    store: Store,
}

impl Directory {
    /// What the store says is remembered for `time_to_live`.
    pub fn new(store: Store, time_to_live: Duration) -> Self {
        let (agents, rosters) = (Cache::new(CAPACITY, time_to_live), Cache::new(ROSTERS, time_to_live));
        Self(Arc::new(Inner { agents, rosters, store }))
    }

    /// The agent `id`, if `caller` may use it.
    ///
    /// # Errors
    /// Another account's agent is as unknown as one that does not exist; an own one that the key is not for is
    /// forbidden.
    pub async fn usable(&self, caller: &Caller, id: AgentId) -> Result<Arc<Agent>, ApiError> {
        let load = async || Ok(self.0.store.agent(id).await?.map(Arc::new));
        let found = self.0.agents.get(id, load).await.map_err(|error| unavailable(&error))?;
        let agent = found.filter(|agent| agent.account_id == caller.account.id).ok_or(ApiError::AgentNotFound)?;
        if caller.key.may_use(id) { Ok(agent) } else { Err(ApiError::AgentForbidden) }
    }

    /// All agents of an account, for who looks up many of them.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn roster(&self, account: AccountId) -> Result<Arc<Roster>, ApiError> {
        let load = async || Ok(Some(Arc::new(Roster::of(self.0.store.agents(account).await?))));
        let found = self.0.rosters.get(account, load).await.map_err(|error| unavailable(&error))?;
        Ok(found.unwrap_or_default())
    }

    /// All agents of the caller's account that its key may use.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn all(&self, caller: &Caller) -> Result<Vec<Agent>, ApiError> {
        let mut agents = self.0.store.agents(caller.account.id).await.map_err(|error| unavailable(&error))?;
        agents.retain(|agent| caller.key.may_use(agent.id));
        Ok(agents)
    }

    /// Forgets all agents: some have changed.
    pub fn flush(&self) {
        self.0.agents.flush();
        self.0.rosters.flush();
    }
}

fn unavailable(error: &StoreError) -> ApiError {
    error!(%error, "could not look up agents");
    ApiError::StoreUnavailable
}
