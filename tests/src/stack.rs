//! The whole product on real servers: gateways, workers, NATS and a database, started and stopped by a test.

mod operator;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use common::domain::ids::GatewayId;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

pub use self::operator::Ran;
use crate::{
    database::Database,
    model::ModelServer,
    nats::{Nats, PASSWORD, SHIPPED, Setup},
    process::{Process, binary},
};

/// A running product with one account, one agent and one key.
pub struct Stack {
    /// Its gateways, to be killed and started again.
    pub gateways: Vec<Gateway>,
    /// Its workers.
    pub workers: Vec<Process>,
    /// Its queue.
    pub nats: Nats,
    /// The first key.
    pub key: String,
    /// The first agent.
    pub agent: String,
    /// The first account's name.
    pub account: String,
    /// Where its database is.
    pub database_url: String,
    client: Client,
    settings: BTreeMap<String, String>,
    folder: TempDir,
}

/// A running gateway.
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// Where it serves, as `http://host:port`.
    pub url: String,
    /// Where its metrics are.
    pub metrics_url: String,
}

/// What a stack is made of.
pub struct Builder {
    database: Database,
    gateways: usize,
    workers: usize,
    settings: BTreeMap<String, String>,
    agent: Value,
    queue_folder: Option<PathBuf>,
    nats_configuration: PathBuf,
}

impl Stack {
    /// A stack of one gateway and one worker, to be changed before it starts.
    pub fn on(database: Database) -> Builder {
        let agent = json!({ "name": "Assistant", "model": "demo", "provider": "demo" });
        // Each queue is some files that have to reach the disk, and few are enough for most tests.
        let settings = BTreeMap::from([("FRONTDESK_SLOTS".to_owned(), "4".to_owned())]);
        let nats_configuration = SHIPPED.into();
        Builder { database, gateways: 1, workers: 1, settings, agent, queue_folder: None, nats_configuration }
    }

    /// The same with an agent that talks to the scripted `model`.
    pub fn with_model(database: Database, model: &ModelServer) -> Builder {
        Self::on(database)
            .agent(json!({ "name": "Assistant", "model": "scripted", "provider": "openai" }))
            .set("FRONTDESK_OPENAI_URL", model.url())
    }

    /// One gateway, one worker, an account whose API channel is on, an agent and a key.
    pub async fn start(database: Database) -> Self {
        Self::on(database).start().await
    }

    /// The first gateway's address with `path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.gateways[0].url)
    }

    /// A request to the first gateway with the first key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(&self.key)
    }

    /// A request without any key.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// `POST` of `body` with the first key.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .expect("an answer")
    }

    /// `GET` with the first key.
    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("an answer")
    }

    /// `POST /api/v1/chat` to the first agent.
    pub async fn chat(&self, prompt: &str) -> Response {
        self.post("/api/v1/chat", &json!({ "employee_id": self.agent, "prompt": prompt })).await
    }

    /// Begins `POST /api/v1/chat` through the gateway `index`; the answer is a status and a body, or `None` when the
    /// connection broke.
    pub fn begin_chat(&self, index: usize, prompt: &str) -> JoinHandle<Option<(u16, Value)>> {
        let request = self
            .client
            .post(format!("{}/api/v1/chat", self.gateways[index].url))
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
            .body(json!({ "employee_id": self.agent, "prompt": prompt }).to_string());
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        tokio::spawn(async move {
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            Some((status, serde_json::from_str(&answer.text().await.ok()?).unwrap_or_default()))
        })
    }

    /// `POST /api/agents/chat` to the first agent with more fields.
    pub async fn agent_chat(&self, message: &str, more: Value) -> Response {
        let mut body = json!({ "agentId": self.agent, "message": message });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        self.post("/api/agents/chat", &body).await
    }

    /// A metric of the first gateway, summed over its labels; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(&self.client, &self.gateways[0].metrics_url, name).await
    }

    /// With a setting for the processes that are started from now on.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.insert(name.to_owned(), value.to_string());
    }

    /// Starts one more gateway.
    pub async fn add_gateway(&mut self) {
        let gateway = self.start_gateway(self.gateways.len(), "127.0.0.1:0").await.expect("a gateway");
        self.gateways.push(gateway);
    }

    /// Kills the gateway `index`, if it still runs, and starts it again on its address.
    pub async fn restart_gateway(&mut self, index: usize) {
        self.gateways[index].process.kill();
        let address = self.gateways[index].url.trim_start_matches("http://").to_owned();
        self.gateways[index] = self.start_gateway(index, &address).await.expect("a gateway");
    }

    /// Starts one more worker.
    pub async fn add_worker(&mut self) {
        let worker = self.start_worker().await.expect("a worker");
        self.workers.push(worker);
    }

    /// Ends all workers at once, as a crash would.
    pub fn kill_workers(&mut self) {
        self.workers.iter_mut().for_each(Process::kill);
        self.workers.clear();
    }

    /// Waits until `path` of the first gateway answers with `status`.
    pub async fn until_status(&self, path: &str, status: u16, within: Duration) -> Result<Value> {
        let until = Instant::now() + within;
        loop {
            let answer = self.anonymous(Method::GET, path).send().await;
            if let Ok(answer) = answer
                && answer.status() == status
            {
                return Ok(serde_json::from_str(&answer.text().await?).unwrap_or_default());
            }
            ensure!(Instant::now() < until, "{path} did not answer {status} within {within:?}");
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// How many messages of the first account have a usage row.
    pub fn billed(&self) -> i64 {
        let rows = self.admin(&["usage", &self.account]);
        rows.as_array().expect("rows").iter().filter_map(|row| row["messages"].as_i64()).sum()
    }

    /// Waits until `billed` messages have a usage row.
    pub async fn until_billed(&self, billed: i64, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while self.billed() != billed {
            ensure!(Instant::now() < until, "{} messages were billed, not {billed}", self.billed());
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What the logs of all processes hold.
    pub fn logs(&self) -> String {
        let gateways = self.gateways.iter().map(|gateway| gateway.process.output());
        gateways.chain(self.workers.iter().map(Process::output)).collect()
    }

    /// Where its files are: its database if that is one, the queue's store under `jetstream`, logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The binary `name` with the stack's settings, and none of the users of the queue.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command
            .env_clear()
            .envs(common::env::text("PATH").map(|path| ("PATH", path)))
            .env("DATABASE_URL", &self.database_url)
            .env("NATS_URL", self.nats.url())
            .env("NATS_MONITOR_URL", self.nats.monitor_url())
            .env("FRONTDESK_LOG_FORMAT", "json")
            .env("FRONTDESK_LOG_GATHER", "0ms")
            .envs(&self.settings);
        command
    }

    async fn start_gateway(&self, index: usize, address: &str) -> Result<Gateway> {
        let mut command = self.command("gateway");
        command
            .arg("serve")
            .env("NATS_USER", "gateway")
            .env("NATS_PASSWORD", PASSWORD)
            .env("FRONTDESK_LISTEN", address)
            .env("FRONTDESK_METRICS_LISTEN", "127.0.0.1:0");
        let folder = self.folder.path().join(format!("gateway-{index}-{}", GatewayId::new()));
        std::fs::create_dir(&folder)?;
        let mut process = Process::start("gateway", command, &folder)?;
        let url = listening(&mut process, "listening").await?;
        let metrics_url = listening(&mut process, "serving metrics").await?;
        Ok(Gateway { process, url, metrics_url })
    }

    async fn start_worker(&self) -> Result<Process> {
        let mut command = self.command("worker");
        command
            .env("NATS_USER", "worker")
            .env("NATS_PASSWORD", PASSWORD)
            .env("FRONTDESK_WORKER_METRICS_LISTEN", "127.0.0.1:0");
        let folder = self.folder.path().join(format!("worker-{}", GatewayId::new()));
        std::fs::create_dir(&folder)?;
        let mut process = Process::start("worker", command, &folder)?;
        listening(&mut process, "serving metrics").await?;
        Ok(process)
    }
}

impl Builder {
    /// With `count` gateways.
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// With `count` workers.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// With a queue that is stored in `folder`.
    pub fn queue_in(mut self, folder: PathBuf) -> Self {
        self.queue_folder = Some(folder);
        self
    }

    /// With a setting for every process.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    /// With another agent.
    pub fn agent(mut self, agent: Value) -> Self {
        self.agent = agent;
        self
    }

    /// With another configuration of NATS than the one that is shipped.
    pub fn nats_configuration(mut self, file: &Path) -> Self {
        self.nats_configuration = file.to_owned();
        self
    }

    /// Starts it.
    pub async fn start(self) -> Stack {
        self.try_start().await.expect("the stack starts")
    }

    async fn try_start(self) -> Result<Stack> {
        let folder = TempDir::new()?;
        let nats = Nats::start_as(Setup {
            folder: self.queue_folder.unwrap_or_else(|| folder.path().to_owned()),
            configuration: self.nats_configuration,
            before: Vec::new(),
        });
        let nats = nats.await?;
        let mut stack = Stack {
            gateways: Vec::new(),
            workers: Vec::new(),
            nats,
            key: String::new(),
            agent: String::new(),
            account: "first".to_owned(),
            database_url: self.database.make(folder.path())?,
            client: plain_client()?,
            settings: self.settings,
            folder,
        };
        // A command gives NATS 3 s, which a machine that is busy building something may not keep.
        let mut migrated = stack.admin_output(&["migrate"]);
        for _ in 0..3 {
            if migrated.status.success() {
                break;
            }
            migrated = stack.admin_output(&["migrate"]);
        }
        ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        stack.admin(&["account", "create", "first", "--email", "first@example.com", "--verified"]);
        stack.admin(&["channel", "on", "first", "api"]);
        stack.agent = stack.make_agent("first", &self.agent);
        stack.key = stack.make_key("first", "first", &[]);
        for _ in 0..self.gateways {
            stack.add_gateway().await;
        }
        for _ in 0..self.workers {
            stack.add_worker().await;
        }
        if self.gateways > 0 {
            stack.until_status("/readyz", 200, Duration::from_secs(30)).await?;
        }
        Ok(stack)
    }
}

/// A metric of the process whose metrics are at `url`, summed over its labels.
pub async fn metric(client: &Client, url: &str, name: &str) -> f64 {
    let page = client.get(format!("{url}/metrics")).send().await.expect("the metrics").text().await.expect("a page");
    let lines =
        page.lines().filter(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A client that asks no proxy. Its TLS is never used, but has to know who would do it.
fn plain_client() -> Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(Client::builder().no_proxy().build()?)
}

/// The address in the log line of `process` that says `message`: `listening`, or `serving metrics`.
///
/// # Errors
/// When it ends without one.
pub async fn listening(process: &mut Process, message: &'static str) -> Result<String> {
    process.printed(message, |output| address_of(output, message)).await
}

/// The same in what has been printed so far.
fn address_of(output: &str, message: &str) -> Option<String> {
    let entries = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut addresses = entries.filter(|entry| entry["fields"]["message"] == message);
    let address = addresses.next()?["fields"]["address"].as_str()?.to_owned();
    Some(format!("http://{address}"))
}
