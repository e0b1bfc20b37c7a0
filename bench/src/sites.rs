//! What is measured, each on servers and data of its own: the echo, the floor and the product.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use common::{domain::ids::AgentId, queue::config::QueueRole};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    children::{Child, beside, free_address},
    http::Connection,
    nats::{Durability, Nats},
    request::{self, Request},
    window::Processes,
};

const ACCOUNT: &str = "bench";
/// One key asks all that is asked here.
const KEY_LIMIT: (&str, &str) = ("FRONTDESK_KEY_LIMIT", "1000000");
const AGENT: &str = "[[agents]]\nname = \"Echo\"\nprovider = \"demo\"\nmodel = \"demo\"\n";

/// How long a first answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A running thing that answers `POST /api/v1/chat`. All of it is gone when this is dropped.
pub struct Site {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it takes as a key.
    pub key: String,
    /// Who answers.
    pub agent: String,
    /// What the callers talk to.
    pub gateway: Child,
    /// What does the work.
    pub worker: Option<Child>,
    /// Its queue.
    pub nats: Option<Nats>,
    /// Its database; empty where it has none.
    database: String,
    folder: TempDir,
}

impl Site {
    /// A bare axum server.
    pub async fn echo(root: &Path) -> Result<Self> {
        let folder = TempDir::new_in(root)?;
        let address = free_address()?;
        let mut gateway = Child::start("echo", this_program("echo", Some(address))?, folder.path())?;
        gateway.until_up(async || TcpStream::connect(address).await.is_ok()).await?;
        let agent = AgentId::new().to_string();
        Ok(Self { address, key: no_key(), agent, gateway, worker: None, nats: None, database: String::new(), folder })
    }

    /// The floor.
    pub async fn floor(root: &Path, durability: Durability) -> Result<Self> {
        let folder = TempDir::new_in(root)?;
        let nats = Nats::with_streams(durability, folder.path()).await?;
        let address = free_address()?;
        let mut command = this_program("floor-gateway", Some(address))?;
        nats.give(QueueRole::Gateway, &mut command);
        let gateway = Child::start("floor-gateway", command, folder.path())?;
        let mut command = this_program("floor-worker", None)?;
        nats.give(QueueRole::Worker, &mut command);
        let worker = Child::start("floor-worker", command, folder.path())?;
        let agent = AgentId::new().to_string();
        let (worker, nats) = (Some(worker), Some(nats));
        Self { address, key: no_key(), agent, gateway, worker, nats, database: String::new(), folder }
            .until_answered()
            .await
    }

    /// Streaming without the product.
    pub async fn fan(root: &Path) -> Result<Self> {
        let folder = TempDir::new_in(root)?;
        let nats = Nats::start(Durability::Shipped, folder.path()).await?;
        let address = free_address()?;
        let mut command = this_program("fan-worker", None)?;
        nats.give(QueueRole::Admin, &mut command);
        let worker = Child::start("fan-worker", command, folder.path())?;
        let mut command = this_program("fan-gateway", Some(address))?;
        nats.give(QueueRole::Admin, &mut command);
        let gateway = Child::start("fan-gateway", command, folder.path())?;
        let agent = AgentId::new().to_string();
        let (worker, nats) = (Some(worker), Some(nats));
        let mut site = Self { address, key: no_key(), agent, gateway, worker, nats, database: String::new(), folder };
        let request = request::stream(address, &site.key, &site.agent, "");
        let answered = async || {
            let Ok(mut connection) = Connection::open(address).await else { return false };
            // A question that nobody took yet has no answer.
            matches!(timeout(ANSWER_LIMIT, connection.ask(&request)).await, Ok(Ok(_)))
        };
        site.gateway.until_up(answered).await?;
        Ok(site)
    }

    /// The product: gateway, worker and SQLite, with `settings` beside those as shipped.
    pub async fn product(root: &Path, durability: Durability, settings: &[(&str, &str)]) -> Result<Self> {
        let site = Self::without_worker(root, durability, None, settings).await?;
        site.with_worker(settings)?.until_answered().await
    }

    /// The product without its worker, on SQLite or on the PostgreSQL database of this URL.
    pub async fn without_worker(
        root: &Path,
        durability: Durability,
        postgres: Option<&str>,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = TempDir::new_in(root)?;
        let nats = Nats::with_streams(durability, folder.path()).await?;
        let sqlite = || format!("sqlite://{}/frontdesk.db?mode=rwc", folder.path().display());
        let database = postgres.map_or_else(sqlite, str::to_owned);
        let (key, agent) = open_account(&nats, &database, folder.path())?;
        let (gateway, address) = start_gateway("gateway", &nats, &database, folder.path(), settings).await?;
        Ok(Self { address, key, agent, gateway, worker: None, nats: Some(nats), database, folder })
    }

    /// Starts one more gateway; where it listens.
    pub async fn another_gateway(&self, settings: &[(&str, &str)]) -> Result<(Child, SocketAddr)> {
        let nats = self.nats.as_ref().context("a queue")?;
        start_gateway("another-gateway", nats, &self.database, self.folder.path(), settings).await
    }

    /// Starts worker `number`, beside its own.
    pub fn another_worker(&self, number: usize, settings: &[(&str, &str)]) -> Result<Child> {
        let nats = self.nats.as_ref().context("a queue")?;
        start_worker(&format!("worker-{number}"), nats, &self.database, self.folder.path(), settings)
    }

    /// Where its database is.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Starts its worker.
    pub fn start_worker(&mut self) -> Result<()> {
        self.start_worker_with(&[])
    }

    fn with_worker(mut self, settings: &[(&str, &str)]) -> Result<Self> {
        self.start_worker_with(settings)?;
        Ok(self)
    }

    /// Starts its worker with `settings`, in the place of the one that it has.
    pub fn start_worker_with(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        self.worker = None;
        let nats = self.nats.as_ref().context("a queue")?;
        self.worker = Some(start_worker("worker", nats, &self.database, self.folder.path(), settings)?);
        Ok(())
    }

    /// The processes whose time is told.
    pub fn processes(&self) -> Processes<'_> {
        [Some(&self.gateway), self.worker.as_ref(), self.nats.as_ref().map(|nats| &nats.process)]
    }

    /// What callers ask it.
    pub fn chat(&self) -> Request {
        Request::chat(self.address, &self.key, &self.agent)
    }

    /// The same without waiting for the answer.
    pub fn message(&self) -> Request {
        Request::message(self.address, &self.key, &self.agent)
    }

    /// The same through the Webhooks channel.
    pub fn webhook(&self) -> Request {
        Request::webhook(self.address, &self.key, &self.agent)
    }

    async fn until_answered(mut self) -> Result<Self> {
        let request = self.chat();
        let address = self.address;
        let answered = async || {
            let Ok(mut connection) = Connection::open(address).await else { return false };
            request.ask(&mut connection).await.is_ok()
        };
        self.gateway.until_up(answered).await?;
        Ok(self)
    }
}

/// Makes an account whose API channel is on, an agent and a key; returns the key and the agent.
fn open_account(nats: &Nats, database: &str, folder: &Path) -> Result<(String, String)> {
    let admin = |arguments: &[&str]| -> Result<Value> {
        let out = program("gateway", QueueRole::Admin, nats, database)?.arg("--json").args(arguments).output()?;
        ensure!(out.status.success(), "gateway {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(serde_json::from_slice(&out.stdout).unwrap_or_default())
    };
    admin(&["account", "create", ACCOUNT, "--email", "bench@example.com", "--verified"])?;
    admin(&["channel", "on", ACCOUNT, "api"])?;
    admin(&["channel", "on", ACCOUNT, "webhooks"])?;
    let file = folder.join("agents.toml");
    std::fs::write(&file, AGENT)?;
    let applied = admin(&["agent", "apply", ACCOUNT, file.to_str().context("a path of text")?])?;
    let agent = applied[0]["id"].as_str().context("no agent's id")?.to_owned();
    let made = admin(&["key", "create", ACCOUNT, "bench"])?;
    Ok((made["secret"].as_str().context("no key's secret")?.to_owned(), agent))
}

async fn start_gateway(
    name: &str,
    nats: &Nats,
    database: &str,
    folder: &Path,
    settings: &[(&str, &str)],
) -> Result<(Child, SocketAddr)> {
    let address = free_address()?;
    let mut command = program("gateway", QueueRole::Gateway, nats, database)?;
    command.arg("serve").envs(settings.iter().copied()).envs([KEY_LIMIT]);
    command.env("FRONTDESK_LISTEN", address.to_string()).env("FRONTDESK_METRICS_LISTEN", "127.0.0.1:0");
    let mut gateway = Child::start(name, command, folder)?;
    gateway.until_up(async || status(address, "/readyz").await.is_ok_and(|status| status == 200)).await?;
    Ok((gateway, address))
}

fn start_worker(name: &str, nats: &Nats, database: &str, folder: &Path, settings: &[(&str, &str)]) -> Result<Child> {
    let mut command = program("worker", QueueRole::Worker, nats, database)?;
    command.envs(settings.iter().copied()).env("FRONTDESK_WORKER_METRICS_LISTEN", "127.0.0.1:0");
    Child::start(name, command, folder)
}

/// One of the product's programs, on this site's queue and database.
fn program(name: &str, role: QueueRole, nats: &Nats, database: &str) -> Result<Command> {
    let mut command = beside(name)?;
    nats.give(role, &mut command);
    command.env("DATABASE_URL", database);
    Ok(command)
}

/// This program in one of its other parts.
fn this_program(part: &str, address: Option<SocketAddr>) -> Result<Command> {
    let mut command = beside("bench")?;
    command.arg(part).args(address.map(|address| address.to_string()));
    Ok(command)
}

/// As long as a real key, for those that do not look at it.
fn no_key() -> String {
    format!("sk-{}", "0".repeat(49))
}

async fn status(address: SocketAddr, path: &str) -> Result<u16> {
    let mut connection = Connection::open(address).await?;
    Ok(connection.ask(&request::get(address, path)).await?.status)
}
