//! The guide's sections on not waiting and on batches, as they stand there: their commands are run, and the receiver
//! hears of them.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rstest::rstest;
use serde_json::Value;
use tests::{database::Database, nats::free_port, stack::Stack};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::{sleep, timeout},
};

const GUIDE: &str = include_str!("../../docs/using.md");
const PATIENCE: Duration = Duration::from_secs(60);
const SECRET_OF_DEMO: &str = "scripts/admin webhook secret demo";
const RECEIVER: &str = "127.0.0.1:9000";

/// The section under the heading `name`.
fn section(name: &str) -> &'static str {
    let (_, rest) = GUIDE.split_once(&format!("## {name}\n")).expect("the section");
    rest.split("\n## ").next().expect("its text")
}

/// The indented blocks of `text`, one after the other.
fn commands(text: &str) -> String {
    let outside = text.split("```").step_by(2);
    let lines = outside.flat_map(str::lines).filter_map(|line| line.strip_prefix("    "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// What stands between `before` and `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after}")).0
}

/// What `script` prints; it has to succeed.
async fn run(stack: &Stack, folder: &Path, script: &str) -> String {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(folder).kill_on_drop(true);
    bash.env("FRONTDESK_URL", stack.url("")).env("FRONTDESK_KEY", &stack.key).env("FRONTDESK_AGENT", &stack.agent);
    let out = timeout(PATIENCE, bash.output()).await.expect("an end in time").expect("bash");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

#[rstest]
#[tokio::test]
async fn what_it_says_of_not_waiting_works(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", true).start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    let folder = tempfile::tempdir().expect("a folder");
    let text = section("Without waiting");

    let shown = stack.operator(&["webhook", "secret", &stack.account]).stdout;
    std::fs::write(folder.path().join("shown"), shown).expect("a file");
    let told = between(text, "`export WEBHOOK_SECRET=$(", ")`");
    assert!(told.starts_with(SECRET_OF_DEMO), "{told}");
    let secret = run(&stack, folder.path(), &told.replace(SECRET_OF_DEMO, "cat shown")).await;

    let free = SocketAddr::from(([127, 0, 0, 1], free_port().expect("a free port")));
    let receiver = between(text, "```python\n", "```").replace("9000", &free.port().to_string());
    let mut receiver = Command::new("python3")
        .args(["-c", &receiver])
        .env("WEBHOOK_SECRET", secret.trim())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("python3");
    while TcpStream::connect(free).is_err() {
        assert!(receiver.try_wait().expect("its state").is_none(), "the receiver ended");
        sleep(Duration::from_millis(50)).await;
    }

    let commands = commands(text).replace(". .data/run.env\n", "").replace(RECEIVER, &free.to_string());
    let printed = run(&stack, folder.path(), &commands).await;
    let (message, rest) =
        printed.split_at(printed.find("retry: 3000").unwrap_or_else(|| panic!("no stream: {printed}")));
    let message: Value = serde_json::from_str(message).expect("the message");
    assert_eq!((&message["status"], &message["content"]), (&"completed".into(), &"Hello!".into()));
    assert!(rest.contains("event: message.delta\ndata: {\"text\":\"Hello!\"}\n"), "{rest}");
    let (stream, accepted) = rest.rsplit_once("\n\n").expect("the end of the stream");
    assert!(stream.contains("event: message.completed\n"), "{stream}");
    let accepted: Value = serde_json::from_str(accepted).expect("the answer of the webhook");

    let mut lines = BufReader::new(receiver.stdout.take().expect("its output")).lines();
    let heard =
        timeout(PATIENCE, lines.next_line()).await.expect("a webhook in time").expect("a line").expect("no end");
    let event: Value = serde_json::from_str(heard.strip_prefix("True ").expect("a genuine one")).expect("an event");
    assert_eq!(event["type"], "message.completed");
    assert_eq!(event["data"]["message_id"], accepted["message_id"]);
}

#[rstest]
#[tokio::test]
async fn what_it_says_of_batches_works(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let folder = tempfile::tempdir().expect("a folder");
    let commands = commands(section("Batches")).replace(". .data/run.env\n", "");
    let printed = run(&stack, folder.path(), &commands).await;
    let mut objects =
        serde_json::Deserializer::from_str(&printed).into_iter::<Value>().map(|object| object.expect("JSON"));
    let batch = objects.next().expect("the batch");
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&"completed".into(), &3.into()));
    let mut answers: Vec<_> = objects.map(|line| (line["custom_id"].clone(), line["content"].clone())).collect();
    answers.sort_by_key(|(id, _)| id.to_string());
    let expected = (1..=3).map(|n| (Value::from(format!("q-{n}")), Value::from(format!("Question {n}"))));
    assert_eq!(answers, expected.collect::<Vec<_>>());
}
