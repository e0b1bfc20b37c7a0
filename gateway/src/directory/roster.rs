//! The agents of one account, to be found by id or by name without asking anybody.

use std::collections::HashMap;

use common::domain::{agent::Agent, ids::AgentId, key::ApiKey};

use crate::error::ApiError;

/// How an agent is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its id.
    Id(AgentId),
    /// By its name: only where OpenAI's clients name a model.
    Name(String),
}

/// What is known of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The agent.
    pub id: AgentId,
    /// Its newest version.
    pub version: i32,
    /// The model that it runs on: decides the price.
    pub model: String,
}

/// The agents of one account.
#[derive(Debug, Default)]
pub struct Roster {
    by_id: HashMap<AgentId, Listed>,
    by_name: HashMap<String, Vec<AgentId>>,
}

impl Roster {
    /// A roster of `agents`.
    pub fn of(agents: Vec<Agent>) -> Self {
        let mut roster = Self::default();
        for agent in agents {
            let listed = Listed { id: agent.id, version: agent.version, model: agent.spec.model };
            roster.by_id.insert(agent.id, listed);
            roster.by_name.entry(agent.spec.name).or_default().push(agent.id);
        }
        roster
    }

    /// The agent that is `named`, if the holder of `key` may use it.
    ///
    /// # Errors
    /// As for a single request; a name that several agents bear is refused.
    pub fn find(&self, named: &Named, key: &ApiKey) -> Result<&Listed, ApiError> {
        let id = match named {
            Named::Id(id) => *id,
            Named::Name(name) => self.bearer(name, key)?,
        };
        let agent = self.by_id.get(&id).ok_or(ApiError::AgentNotFound)?;
        if key.may_use(id) { Ok(agent) } else { Err(ApiError::AgentForbidden) }
    }

    fn bearer(&self, name: &str, key: &ApiKey) -> Result<AgentId, ApiError> {
        let bearers = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let mut usable = bearers.iter().filter(|id| key.may_use(**id));
        match (usable.next(), usable.next(), bearers.first()) {
            (Some(_), Some(_), _) => {
                Err(ApiError::BadRequest("several agents of this account have that name; give an id".to_owned()))
            }
            (Some(id), None, _) => Ok(*id),
            (None, _, Some(forbidden)) => Ok(*forbidden),
            (None, _, None) => Err(ApiError::AgentNotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::domain::{
        agent::AgentSpec,
        ids::{AccountId, KeyId},
        time::Millis,
    };

    use super::*;

    fn agent(name: &str) -> Agent {
        let spec = AgentSpec {
            name: name.to_owned(),
            description: String::new(),
            provider: None,
            model: format!("model of {name}"),
            instructions: String::new(),
            temperature: None,
            max_output_tokens: None,
        };
        Agent { id: AgentId::new(), account_id: AccountId::new(), version: 3, spec }
    }

    fn key(agents: Option<Vec<AgentId>>) -> ApiKey {
        ApiKey {
            id: KeyId::new(),
            account_id: AccountId::new(),
            name: String::new(),
            last_four: String::new(),
            agents,
            created_at: Millis(0),
            revoked_at: None,
        }
    }

    #[test]
    fn an_agent_is_found_by_its_id_and_by_a_name_that_it_alone_has() {
        let (ada, bob, other_bob) = (agent("Ada"), agent("Bob"), agent("Bob"));
        let ids = [ada.id, bob.id, other_bob.id];
        let roster = Roster::of(vec![ada, bob, other_bob]);
        let by_name = |name: &str| Named::Name(name.to_owned());
        let found = |named: &Named, key: &ApiKey| roster.find(named, key).map(|listed| listed.id);

        let all = key(None);
        assert_eq!(found(&Named::Id(ids[1]), &all), Ok(ids[1]));
        assert_eq!(
            roster.find(&by_name("Ada"), &all).map(|ada| (ada.version, ada.model.as_str())),
            Ok((3, "model of Ada"))
        );
        assert!(matches!(found(&by_name("Bob"), &all), Err(ApiError::BadRequest(_))));
        assert_eq!(found(&by_name("ada"), &all), Err(ApiError::AgentNotFound));
        assert_eq!(found(&Named::Id(AgentId::new()), &all), Err(ApiError::AgentNotFound));

        let limited = key(Some(vec![ids[2]]));
        assert_eq!(found(&by_name("Bob"), &limited), Ok(ids[2]), "the only one for this key");
        assert_eq!(found(&by_name("Ada"), &limited), Err(ApiError::AgentForbidden));
        assert_eq!(found(&Named::Id(ids[1]), &limited), Err(ApiError::AgentForbidden));
    }
}
