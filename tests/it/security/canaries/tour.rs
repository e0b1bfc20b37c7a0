//! The tour of the canaries: calls that succeed, calls that fail in every way, and processes that do not start.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use common::domain::key::Secret;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tests::{
    answer::Answer,
    caller::Caller,
    database::Database,
    model::{Behaviour, ModelServer},
    nats::PASSWORD,
    patience::until,
    raw::{self, Connection},
    sink::{Reply, Sink},
    stack::Stack,
};
use tokio::time::timeout;

use super::{Canary, Kept};

const MESSAGES: &str = "/api/v1/messages";

/// The text of the canary `name`.
pub fn canary(name: &str) -> String {
    format!("canary-{}-7f3a9c", name.replace(' ', "-"))
}

/// What was learnt and written down on the way.
pub struct Tour {
    revoked: String,
    unknown: String,
    endpoint_secrets: Vec<String>,
    callback_secret: String,
    written: Vec<(String, String)>,
}

impl Tour {
    /// Starts a gateway and a worker that know a password for the database.
    pub async fn begin(stack: &mut Stack, database: Database) -> Self {
        stack.admin(&["channel", "on", &stack.account, "webhooks"]);
        let made = stack.admin(&["key", "create", &stack.account, "revoked"]);
        stack.admin(&["key", "revoke", made["id"].as_str().expect("an id")]);
        let shown = stack.admin(&["webhook", "secret", &stack.account]);
        if database == Database::Postgres {
            // The server of the tests trusts whoever comes, whatever the password.
            let url = stack.database_url.replacen("postgres@", &format!("postgres:{}@", canary("database")), 1);
            assert!(url.contains("canary"), "{url}");
            stack.set("DATABASE_URL", url);
        }
        stack.add_gateway().await;
        stack.add_worker().await;
        Self {
            revoked: made["secret"].as_str().expect("a secret").to_owned(),
            unknown: Secret::generate("sk-").reveal().to_owned(),
            endpoint_secrets: Vec::new(),
            callback_secret: shown["secret"].as_str().expect("a secret").to_owned(),
            written: Vec::new(),
        }
    }

    /// All that is looked for.
    pub fn canaries(&self, stack: &Stack) -> Vec<Canary> {
        let nowhere = |name, text: &str| Canary { name, text: text.to_owned(), kept: Kept::Nowhere };
        let stored = |name, text: &str| Canary { name, text: text.to_owned(), kept: Kept::Stored };
        let bare = |secret: &str| secret.trim_start_matches("whsec_").to_owned();
        let mut all = vec![
            nowhere("the key", &stack.key),
            nowhere("the key without its checksum", &stack.key[3..46]),
            nowhere("a revoked key", &self.revoked),
            nowhere("an unknown key", &self.unknown),
            nowhere("the password of NATS", PASSWORD),
            nowhere("the password of the database", &canary("database")),
            nowhere("the model's key", &canary("model key")),
            nowhere("a text of a call that was refused", &canary("refused")),
            nowhere("a text in an address", &canary("address")),
            nowhere("a setting that is wrong", &canary("setting")),
            stored("the prompts", &canary("prompt")),
            stored("the answers", &canary("answer")),
            stored("the metadata", &canary("metadata")),
            stored("a token in the address of a webhook", &canary("token")),
            stored("the secret of callbacks", &bare(&self.callback_secret)),
        ];
        all.extend(self.endpoint_secrets.iter().map(|secret| stored("the secret of an endpoint", &bare(secret))));
        all
    }

    /// What was written on the way: errors, and what commands said.
    pub fn written(&self) -> &[(String, String)] {
        &self.written
    }

    /// Every way to say something and to be answered.
    pub async fn succeed(&mut self, stack: &Stack, model: &ModelServer, sink: &Sink) {
        let (caller, prompt) = (Caller::of(stack), canary("prompt"));
        // A line that only a talkative log has.
        assert_eq!(caller.get("/livez").await.status, 200);
        model.always(Behaviour::answer(["well, ", &canary("answer"), " it is"]));
        let made = caller.post("/api/v1/webhook-endpoints", json!({ "url": sink.url("/hook") }).to_string()).await;
        assert_eq!(made.status, 201, "{made}");
        self.endpoint_secrets.push(made.json()["secret"].as_str().expect("a secret").to_owned());
        let path = format!("/api/v1/webhook-endpoints/{}/rotate-secret", made.json()["id"].as_str().expect("an id"));
        let rotated = caller.post(&path, "").await.ok();
        self.endpoint_secrets.push(rotated["secret"].as_str().expect("a secret").to_owned());

        assert!(caller.chat(&stack.agent, &prompt).await.ok()["content"].to_string().contains("canary"));
        caller.without_key().with_header("x-api-key", &stack.key).chat(&stack.agent, &prompt).await.ok();
        let streamed = stack.agent_chat(&prompt, json!({ "stream": true })).await.text().await.expect("a text");
        assert!(streamed.contains(&canary("answer")), "{streamed}");
        let body = json!({ "employee_id": stack.agent, "prompt": prompt, "metadata": { "x": canary("metadata") },
            "callback_url": sink.url("/callback") });
        for path in [MESSAGES, "/api/v1/webhook"] {
            let keyed = caller.with_header("idempotency-key", path);
            assert_eq!(keyed.post(path, body.to_string()).await.status, 202);
            assert_eq!(keyed.post(path, body.to_string()).await.status, 202);
        }
        let batch = tests::batch::accepted(stack, tests::batch::line("one", &stack.agent, &prompt)).await;
        tests::batch::ended(stack, &batch).await;
        assert!(caller.get(&format!("/api/v1/batches/{batch}/results")).await.text().contains("canary"));
        sink.until_received("/hook", 6).await;
        sink.until_received("/callback", 2).await;
    }

    /// Calls that are refused, models that fail with all that they were told in their answers, and receivers that do.
    pub async fn fail(&mut self, stack: &Stack, model: &ModelServer, sink: &Sink) {
        self.be_refused(stack).await;
        self.send_nonsense(stack).await;
        let caller = Caller::of(stack);
        let said = json!({ "error": { "message": format!("Incorrect API key: {}. You said {}", canary("model key"),
            canary("prompt")), "type": "invalid_request_error", "code": "invalid_api_key" } });
        let key = canary("model key");
        for behaviour in [
            Behaviour::json(401, &said),
            Behaviour::json(400, &said),
            Behaviour::json(404, &said),
            Behaviour::page(200, "text/html", format!("<p>{key} {}</p>", canary("prompt"))),
            Behaviour::json_text(&format!("{{\"choices\": {key}")),
            Behaviour::answer([canary("answer")]).ending(tests::model::Ending::Error(said.clone())),
            Behaviour::raw(format!("HTTP/1.1 200 {key}\r\nX-{key}: {key}\r\nContent-Length: x\r\n\r\n")),
        ] {
            model.always(behaviour);
            let answer = caller.chat(&stack.agent, &canary("prompt")).await;
            assert_eq!(answer.status, 502, "{answer}");
            self.write("an answer after the model failed", &answer);
            let id = answer.json()["message_id"].as_str().expect("an id").to_owned();
            let mut message = caller.get(&format!("{MESSAGES}/{id}")).await.ok();
            message["content"] = Value::Null;
            self.written.push(("a message that failed".to_owned(), message.to_string()));
        }
        model.always(Behaviour::answer([canary("answer")]));
        let bad = format!("/bad?token={}", canary("token"));
        let elsewhere = Reply::Status(302, vec![("location", sink.url(&canary("address")))]);
        for reply in [Reply::status(500), elsewhere, Reply::Cut] {
            sink.script(&bad, reply);
            let body = json!({ "employee_id": stack.agent, "prompt": "hello", "callback_url": sink.url(&bad) });
            assert_eq!(caller.post(MESSAGES, body.to_string()).await.status, 202);
        }
        sink.until_received(&bad, 3).await;
    }

    async fn be_refused(&mut self, stack: &Stack) {
        let (caller, refused) = (Caller::of(stack), canary("refused"));
        let strangers = [&self.unknown, &self.revoked, &refused].map(|key| caller.with_key(key));
        for stranger in &strangers {
            for answer in [stranger.get("/api/v1/health").await, stranger.chat(&stack.agent, &refused).await] {
                answer.fault(401, "unauthorized");
                self.write("a 401", &answer);
            }
        }
        let address = canary("address");
        for path in [
            format!("/{address}"),
            format!("/api/v1/messages/{address}"),
            format!("/api/v1/messages?cursor={address}"),
            format!("/api/v1/messages?{address}={address}"),
            format!("/api/v1/health?key={}&x={address}", stack.key),
            format!("/docs/{address}"),
        ] {
            self.write("an answer on an address", &caller.get(&path).await);
        }
        let odd = caller.with_header("x-request-id", "fine").with_header("prefer", &refused);
        let odd = odd.with_header("cookie", &refused).with_header("traceparent", &refused);
        self.write(
            "an answer to odd headers",
            &odd.with_header("idempotency-key", &refused.repeat(20)).chat(&stack.agent, "x").await,
        );
    }

    async fn send_nonsense(&mut self, stack: &Stack) {
        let (caller, refused) = (Caller::of(stack), canary("refused"));
        let nobody = "01a20041-b7f8-71fc-b820-9ed86ed9b996";
        let bodies = [
            format!("{{\"prompt\": {refused}"),
            format!("{{\"prompt\": \"{refused}\", \"employee_id\": \"{refused}\"}}"),
            format!("{{\"prompt\": [\"{refused}\"]}}"),
            format!("{{\"employee_id\": \"{nobody}\", \"prompt\": \"{refused}\"}}"),
            format!("{{\"employee_id\": \"{}\", \"prompt\": \"{refused}\\u0000\"}}", stack.agent),
            refused.repeat(4_000),
        ];
        for body in &bodies {
            for path in ["/api/v1/chat", "/api/agents/chat", MESSAGES, "/api/v1/webhook", "/api/v1/webhook-endpoints"] {
                let answer = caller.post(path, body.clone()).await;
                assert!((400..500).contains(&answer.status), "{path}: {answer}");
                self.write("an answer to nonsense", &answer);
            }
            let request =
                caller.request(Method::POST, "/api/v1/batches").header("content-type", "application/x-ndjson");
            self.write("an answer to nonsense in a batch", &Answer::to(request.body(body.clone())).await);
        }
        let head = raw::head(
            "POST /api/v1/chat",
            &[&format!("Authorization: Bearer {}", stack.key), "Content-Length: 900", "Content-Type: application/json"],
        );
        let slow = raw::exchange(&stack.url(""), format!("{head}{refused}")).await;
        self.write("an answer to a slow body", &slow);
        let mut connection = Connection::to(&stack.url("")).await;
        connection.send(format!("GET /{refused} {refused}\r\n{refused}\r\n\r\n")).await;
        self.written
            .push(("what no HTTP is told".to_owned(), String::from_utf8_lossy(&connection.rest().await).into_owned()));
    }

    /// Processes that meet wrong settings, and running ones that lose the queue.
    pub async fn stop_and_start(&mut self, stack: &mut Stack) {
        let setting = canary("setting");
        let wrong = [
            ("gateway", "DATABASE_URL", format!("postgres://user:{setting}@127.0.0.1:1/x")),
            ("gateway", "DATABASE_URL", format!("mysql://user:{setting}@127.0.0.1:1/x")),
            ("gateway", "DATABASE_URL", format!("postgres://user:{setting}@[broken/x?sslmode=nonsense")),
            ("gateway", "NATS_URL", format!("nats://user:{setting}@[broken")),
            ("gateway", "NATS_URL", format!("nats://user:{setting}@127.0.0.1:1")),
            ("gateway", "NATS_PASSWORD", setting.clone()),
            ("worker", "DATABASE_URL", format!("postgres://user:{setting}@127.0.0.1:1/x")),
            ("worker", "NATS_URL", format!("nats://user:{setting}@[broken")),
            ("worker", "NATS_PASSWORD", setting.clone()),
            ("worker", "FRONTDESK_OPENAI_KEY", format!("{setting}\n")),
            ("worker", "FRONTDESK_OPENAI_URL", format!("https://user:{setting}@127.0.0.1:1/v1")),
            ("worker", "FRONTDESK_OPENAI_URL", format!("https://127.0.0.1:1/v1?key={setting}")),
        ]
        .map(|(program, name, value)| {
            let arguments = if program == "gateway" { &["migrate"][..] } else { &[] };
            let mut command = stack.command(program);
            command.args(arguments).env("NATS_USER", "admin").env("NATS_PASSWORD", PASSWORD).env(name, value);
            async move { (format!("what a {program} says of a wrong {name}"), said(command).await) }
        });
        self.written.extend(join_all(wrong).await);
        stack.nats.restart().await.expect("nats comes back");
        let caller = Caller::of(stack);
        until("all is well again", async || {
            let answer = caller.chat(&stack.agent, &canary("prompt")).await;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Notes an error; what succeeds may say what it was asked for.
    fn write(&mut self, what: &str, answer: &Answer) {
        if answer.status < 300 {
            return;
        }
        self.written.push((format!("{what} ({})", answer.status), format!("{answer}")));
    }
}

/// What a process says that ends soon, or is ended after a while.
async fn said(command: Command) -> String {
    let file = NamedTempFile::new().expect("a file");
    let out = || file.reopen().expect("a file");
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(out()).stderr(out()).kill_on_drop(true);
    command.env("FRONTDESK_WORKER_METRICS_LISTEN", "127.0.0.1:0");
    let mut child = command.spawn().expect("a process");
    let _ = timeout(Duration::from_secs(3), child.wait()).await;
    let _ = child.kill().await;
    std::fs::read_to_string(file.path()).expect("what it said")
}
