//! The operator's side of a stack: commands as people type them, the ports for operators, and each gateway by itself.

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PASSWORD, Stack, address_of};

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

impl Stack {
    /// Runs an operator's command and returns what it says as JSON.
    pub fn admin(&self, arguments: &[&str]) -> Value {
        let out = self.admin_output(arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "gateway {arguments:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("gateway {arguments:?}: {error}: {stdout}"))
    }

    /// Runs an operator's command, whatever comes of it.
    pub fn admin_output(&self, arguments: &[&str]) -> Output {
        self.operator_command().args(arguments).arg("--json").output().expect("the gateway's binary")
    }

    /// Makes another account with its API channel on, an agent and a key; returns (account, agent, key).
    pub fn another_account(&self, name: &str) -> (String, String, String) {
        self.admin(&["account", "create", name, "--email", &format!("{name}@example.com"), "--verified"]);
        self.admin(&["channel", "on", name, "api"]);
        let agent = self.make_agent(name, &json!({ "name": "Assistant", "model": "demo", "provider": "demo" }));
        let key = self.make_key(name, "first", &[]);
        (name.to_owned(), agent, key)
    }

    /// Makes or changes an agent and returns its id.
    pub fn make_agent(&self, account: &str, agent: &Value) -> String {
        let fields = agent.as_object().expect("an object");
        let lines: String = fields.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        let name = format!("agents-{}.toml", agent["name"].as_str().unwrap_or("x"));
        let file = self.write_file(&name, &format!("[[agents]]\n{lines}"));
        let applied = self.admin(&["agent", "apply", account, file.to_str().expect("utf-8")]);
        applied[0]["id"].as_str().expect("an id").to_owned()
    }

    /// Makes a key, limited to `agents` unless there are none, and returns its secret.
    pub fn make_key(&self, account: &str, name: &str, agents: &[&str]) -> String {
        let mut arguments = vec!["key", "create", account, name];
        for agent in agents {
            arguments.extend(["--agent", agent]);
        }
        self.admin(&arguments)["secret"].as_str().expect("a secret").to_owned()
    }

    /// Runs an operator's command for people: without `--json`, whatever comes of it.
    pub fn operator(&self, arguments: &[&str]) -> Ran {
        let out = self.operator_command().args(arguments).output().expect("the gateway's binary");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: out.status.code().unwrap_or(-1), stdout: text(&out.stdout), stderr: text(&out.stderr) }
    }

    /// The first account's charges, the newest first.
    pub fn charges(&self) -> Vec<Value> {
        let shown = self.admin(&["credit", "show", &self.account, "--ledger", "100000"]);
        let entries = shown["ledger"].as_array().expect("a ledger");
        entries.iter().filter(|entry| entry["kind"] == "charge").cloned().collect()
    }

    /// The same once there are `count` of them.
    pub async fn until_charges(&self, count: usize) -> Vec<Value> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let charges = self.charges();
            if charges.len() == count {
                return charges;
            }
            assert!(Instant::now() < until, "not {count} charges: {charges:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The `gateway` binary as an operator runs it.
    pub fn operator_command(&self) -> Command {
        let mut command = self.command("gateway");
        command.env("NATS_ADMIN_USER", "admin").env("NATS_ADMIN_PASSWORD", PASSWORD);
        command
    }

    /// Writes a file beside the stack's own.
    pub fn write_file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file
    }

    /// A request to the gateway `index` with `key`.
    pub fn request_at(&self, index: usize, method: Method, path: &str, key: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.gateways[index].url)).bearer_auth(key)
    }

    /// Where the worker `index` serves its metrics.
    pub fn worker_metrics_url(&self, index: usize) -> String {
        address_of(&self.workers[index].output(), "serving metrics").expect("a worker that has started")
    }

    /// The client of all requests.
    pub fn client(&self) -> &Client {
        &self.client
    }
}
