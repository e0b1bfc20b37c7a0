//! Accounts of a site, each with an agent and a key: made in its database, since a thousand commands would take minutes.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use common::{
    domain::{
        agent::AgentSpec,
        channel::Channel,
        ids::{AccountId, AgentId},
        key::{self, Secret},
    },
    store::connection::{Store, StoreConfig},
};
use serde_json::Value;

use crate::{http::Connection, request, request::Request, sites::Site};

/// Somebody who asks.
pub struct Tenant {
    address: SocketAddr,
    key: String,
    agent: AgentId,
}

/// A way in, and with it a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `POST /api/v1/chat`.
    Call,
    /// `POST /api/v1/messages`.
    Message,
    /// `POST /api/v1/batches`.
    Batch,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Call, Self::Message, Self::Batch];

    /// The route.
    pub fn route(self) -> &'static str {
        match self {
            Self::Call => "POST /api/v1/chat",
            Self::Message => "POST /api/v1/messages",
            Self::Batch => "POST /api/v1/batches",
        }
    }
}

/// Makes `count` of them.
///
/// # Errors
/// When the database refuses.
pub async fn make(site: &Site, count: u32) -> Result<Vec<Tenant>> {
    let store = Store::connect(&StoreConfig { url: site.database().to_owned(), max_connections: 1 }).await?;
    let mut tenants = Vec::new();
    for n in 0..count {
        // There may be some from before.
        let name = format!("tenant-{n}-{}", AccountId::new());
        let account = store.create_account(&name, "tenant@example.com").await?.id;
        store.set_email_verified(account, true).await?;
        store.set_channel(account, Channel::Api, true).await?;
        let (agent, secret) = (AgentId::new(), Secret::generate("sk-"));
        store.apply_agents(account, vec![(agent, echo())]).await?;
        store.create_key(account, "bench", key::hash(secret.reveal()), &secret.last_four(), None).await?;
        tenants.push(Tenant { address: site.address, key: secret.reveal().to_owned(), agent });
    }
    store.close().await?;
    Ok(tenants)
}

fn echo() -> AgentSpec {
    AgentSpec {
        name: "Echo".to_owned(),
        description: String::new(),
        provider: Some("demo".to_owned()),
        model: "demo".to_owned(),
        instructions: String::new(),
        temperature: None,
        max_output_tokens: None,
    }
}

impl Tenant {
    /// A call whose agent obeys `script` first.
    pub fn call(&self, script: &str) -> Request {
        Request::sleeping(self.address, &self.key, &self.agent.to_string(), script)
    }

    /// Has `prompts` prompts done in the given way, and waits for their end if `waits`; a call always waits.
    ///
    /// # Errors
    /// When they are not accepted, or the gateway goes away.
    pub async fn ask(&self, way: Way, script: &str, prompts: u32, waits: bool) -> Result<()> {
        let mut connection = Connection::open(self.address).await?;
        let (agent, key) = (self.agent.to_string(), self.key.as_str());
        let (request, list, id) = match way {
            Way::Call => return self.call(script).ask(&mut connection).await,
            Way::Message => (request::submit(self.address, key, &agent, script), "messages", "message_id"),
            Way::Batch => (request::batch(self.address, key, &lines(&agent, script, prompts)), "batches", "batch_id"),
        };
        let answer = connection.ask(&request).await?;
        ensure!(answer.status == 202, "{}: {}", answer.status, String::from_utf8_lossy(connection.body()));
        if !waits {
            return Ok(());
        }
        let accepted: Value = serde_json::from_slice(connection.body())?;
        let path = format!("/api/v1/{list}/{}?wait=60", accepted[id].as_str().context("no id")?);
        connection.ask(&request::get_with_key(self.address, &path, key)).await?;
        let ended: Value = serde_json::from_slice(connection.body())?;
        ensure!(ended["status"] == "completed", "it is not completed: {ended}");
        Ok(())
    }
}

fn lines(agent: &str, script: &str, lines: u32) -> String {
    let line = |n| format!("{{\"custom_id\":\"{n}\",\"employee_id\":\"{agent}\",\"prompt\":\"{script}\"}}\n");
    (1..=lines).map(line).collect()
}
