//! What an operator sees of running processes: counts, readiness, logs and traces.

use std::{collections::BTreeSet, time::Duration};

use reqwest::{Client, Method};
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    nats,
    stack::Stack,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The page of counts at `url`.
async fn page(stack: &Stack, url: &str) -> String {
    let answer = Answer::to(stack.client().get(format!("{url}/metrics"))).await;
    assert_eq!(answer.status, 200);
    answer.text().to_owned()
}

/// The value of the line that begins with `name` and its labels; 0 when there is none.
fn value(page: &str, name: &str) -> f64 {
    let rest = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    rest.map_or(0.0, |value| value.parse().expect("a number"))
}

fn entries(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[rstest]
#[tokio::test]
async fn jobs_are_counted_by_channel_and_outcome(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    for _ in 0..3 {
        assert_eq!(stack.chat("two words").await.status(), 200);
    }
    assert_eq!(Answer::of(stack.agent_chat("two words", json!({ "stream": true })).await).await.status, 200);
    assert_eq!(stack.chat("/fail 401").await.status(), 502);
    assert_eq!(stack.chat(" ").await.status(), 400);

    let answer = Answer::to(stack.client().get(format!("{}/metrics", stack.gateways[0].metrics_url))).await;
    assert!(
        answer.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")),
        "{:?}",
        answer.headers
    );
    let gateway = answer.text();
    for (name, expected) in [
        (r#"frontdesk_jobs_accepted_total{channel="api"}"#, 5.0),
        (r#"frontdesk_requests_total{route="/api/v1/chat",method="POST",status="200"}"#, 3.0),
        (r#"frontdesk_requests_total{route="/api/v1/chat",method="POST",status="502"}"#, 1.0),
        (r#"frontdesk_requests_total{route="/api/v1/chat",method="POST",status="400"}"#, 1.0),
        (r#"frontdesk_requests_total{route="/api/agents/chat",method="POST",status="200"}"#, 1.0),
        (r#"frontdesk_request_duration_seconds_count{route="/api/v1/chat"}"#, 5.0),
        ("frontdesk_waiters", 0.0),
    ] {
        assert_eq!(value(gateway, name), expected, "{name}\n{gateway}");
    }
    assert!(gateway.contains("\nfrontdesk_waiters 0\n"), "{gateway}");
    let worker = page(&stack, &stack.worker_metrics_url(0)).await;
    for (name, expected) in [
        (r#"frontdesk_jobs_finished_total{channel="api",outcome="completed"}"#, 4.0),
        (r#"frontdesk_jobs_finished_total{channel="api",outcome="failed"}"#, 1.0),
        (r#"frontdesk_model_calls_total{provider="demo",outcome="ok"}"#, 4.0),
        (r#"frontdesk_model_calls_total{provider="demo",outcome="provider_auth"}"#, 1.0),
        (r#"frontdesk_model_tokens_total{direction="input"}"#, 8.0),
        (r#"frontdesk_model_tokens_total{direction="output"}"#, 8.0),
        ("frontdesk_job_queue_wait_seconds_count", 5.0),
        ("frontdesk_job_run_seconds_count", 5.0),
        ("frontdesk_job_redeliveries_total", 0.0),
    ] {
        assert_eq!(value(&worker, name), expected, "{name}\n{worker}");
    }
    assert_eq!(
        Answer::to(stack.request(Method::GET, "/metrics")).await.status,
        404,
        "metrics have a port of their own"
    );
}

#[rstest]
#[tokio::test]
async fn waiters_are_counted_while_they_wait(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let stack = Stack::on(database)
        .agent(json!({ "name": "Assistant", "model": "m", "provider": "openai" }))
        .set("FRONTDESK_OPENAI_URL", model.url())
        .start()
        .await;
    let gate = Gate::closed();
    model.always(Behaviour::answer(["at last"]).held_after(0, &gate));
    let until_waiting = async |count: f64| {
        while stack.metric("frontdesk_waiters").await != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let watch = async {
        until_waiting(3.0).await;
        gate.open();
    };
    let calls = futures_util::future::join_all((0..3).map(|_| stack.chat("go on")));
    let (answers, ()) = futures_util::future::join(calls, watch).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(stack.metric("frontdesk_waiters").await, 0.0);

    // A caller that hangs up waits no more.
    let closed = Gate::closed();
    model.always(Behaviour::answer(["too late"]).held_after(0, &closed));
    let hangs_up = async {
        let call = stack.chat("go on");
        let _ = futures_util::future::select(Box::pin(call), Box::pin(until_waiting(1.0))).await;
    };
    hangs_up.await;
    timeout(PATIENCE, until_waiting(0.0)).await.expect("the waiter is gone with its caller");
    closed.open();
}

#[rstest]
#[tokio::test]
async fn accepting_a_request_makes_no_query(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_CACHE_TTL", "1h").set("FRONTDESK_KEY_LIMIT", 10_000).start().await;
    assert_eq!(stack.chat("hello").await.status(), 200);
    // A gateway says every 5 s in the store that it runs: some hundred requests fall between two such beats.
    let mut made = Vec::new();
    while made.last() != Some(&0.0) {
        assert!(made.len() < 20, "no 100 cached requests without a statement: {made:?}");
        let before = stack.metric("frontdesk_store_statements_total").await;
        assert!(before > 0.0, "nobody counts");
        a_hundred_requests(&stack).await;
        made.push(stack.metric("frontdesk_store_statements_total").await - before);
    }
    let accepted = 1 + 100 * u32::try_from(made.len()).expect("few");
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, f64::from(accepted));
}

/// Rows of submitted messages are written behind, in groups: most submissions fall between two of them.
#[rstest]
#[tokio::test]
async fn accepting_a_submission_makes_no_query(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let settings = Stack::on(database).set("FRONTDESK_CACHE_TTL", "1h").set("FRONTDESK_KEY_LIMIT", 10_000);
    let stack = settings.workers(0).start().await;
    let body = json!({ "employee_id": stack.agent, "prompt": "hello" });
    assert_eq!(stack.post("/api/v1/messages", &body).await.status(), 202);
    let mut made = Vec::new();
    while made.last() != Some(&0.0) {
        assert!(made.len() < 100, "no submission without a statement: {made:?}");
        let before = stack.metric("frontdesk_store_statements_total").await;
        assert_eq!(stack.post("/api/v1/messages", &body).await.status(), 202);
        made.push(stack.metric("frontdesk_store_statements_total").await - before);
    }
}

/// A hundred calls of both APIs, ten at a time, each with an answer of its own.
async fn a_hundred_requests(stack: &Stack) {
    for round in 0..10 {
        let nonces: Vec<_> = (0..10).map(|call| format!("nonce-{round}-{call}")).collect();
        let answers = futures_util::future::join_all(nonces.iter().map(async |nonce| match round % 3 {
            0 => Answer::of(stack.chat(nonce).await).await,
            1 => Answer::of(stack.agent_chat(nonce, json!({})).await).await,
            _ => Answer::of(stack.agent_chat(nonce, json!({ "stream": true })).await).await,
        }));
        for (nonce, answer) in nonces.iter().zip(answers.await) {
            assert!(answer.status == 200 && answer.text().contains(nonce), "{nonce}: {answer}");
        }
    }
}

#[rstest]
#[tokio::test]
async fn readiness_says_why_not_and_liveness_stays(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let mut stack = Stack::start(database).await;
    let ports = [stack.url(""), stack.gateways[0].metrics_url.clone(), stack.worker_metrics_url(0)];
    let client = stack.client().clone();
    for port in &ports {
        assert_eq!(until_status(&client, port, 200).await["status"], "ready");
        assert_eq!(alive(&client, port).await, 200);
    }
    stack.nats.process().kill();
    for port in &ports {
        let reasons = until_status(&client, port, 503).await["reasons"].to_string();
        assert!(reasons.contains("queue") && !reasons.contains("database"), "{port}: {reasons}");
        assert_eq!(alive(&client, port).await, 200);
    }
    stack.nats.restart().await.expect("nats comes back");
    for port in &ports {
        until_status(&client, port, 200).await; // without a restart
    }
}

async fn alive(client: &Client, port: &str) -> u16 {
    Answer::to(client.get(format!("{port}/livez"))).await.status
}

/// What `/readyz` says once it says it with `status`.
async fn until_status(client: &Client, port: &str, status: u16) -> Value {
    let asked = async {
        loop {
            let answer = Answer::to(client.get(format!("{port}/readyz"))).await;
            if answer.status == status {
                return answer.json();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{port}/readyz never answered {status}"))
}

#[rstest]
#[tokio::test]
async fn logs_name_requests_and_messages_and_keep_secrets(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = Stack::on(database)
        .agent(json!({ "name": "A", "model": "m", "provider": "openai", "instructions": "canary-instructions" }))
        .set("FRONTDESK_OPENAI_URL", model.url())
        .set("FRONTDESK_OPENAI_KEY", "sk-canary-of-the-provider")
        .set("FRONTDESK_MODEL_TRIES", 1)
        .set("FRONTDESK_LOG", "debug")
        .start()
        .await;
    model.always(Behaviour::answer(["canary-", "answer"]));
    let good = Answer::of(stack.chat("canary-prompt").await).await;
    assert_eq!((good.status, &good.json()["content"]), (200, &json!("canary-answer")));
    let named = stack.request(Method::POST, "/api/agents/chat").header("x-request-id", "my-own-id");
    let body = json!({ "agentId": stack.agent, "message": "canary-prompt", "stream": true });
    let streamed = Answer::to(named.header("content-type", "application/json").body(body.to_string())).await;
    assert_eq!((streamed.text(), streamed.header("x-request-id")), ("canary-answer", Some("my-own-id")));

    for quoting in [
        Behaviour::wrong_key(),
        Behaviour::json(400, &json!({ "error": { "message": "canary-prompt" } })),
        Behaviour::json(500, &json!({ "error": "canary-answer" })),
        Behaviour::json_text("canary-answer"),
    ] {
        model.script(quoting);
        assert_eq!(stack.chat("canary-prompt").await.status(), 502);
    }
    assert_eq!(stack.post("/api/v1/chat", &json!({ "prompt": "canary-prompt" })).await.status(), 400);
    assert_eq!(stack.get("/canary-path?canary-query=1").await.status(), 404);
    let wrong = stack.anonymous(Method::GET, "/api/agents");
    assert_eq!(Answer::to(wrong.header("x-api-key", "sk-canary-of-a-caller")).await.status, 401);

    let logs = stack.logs();
    for secret in ["canary", stack.key.as_str(), "sk-quoted", nats::PASSWORD] {
        let leak = logs.lines().find(|line| line.contains(secret));
        assert_eq!(leak, None, "`{secret}` is in the logs");
    }
    for answer in [&good, &streamed] {
        let named = |header: &str| answer.header(header).expect("an id");
        let (request_id, message_id) = (named("x-request-id"), named("x-message-id"));
        let gateway = entries(&stack.gateways[0].process.output());
        let lines: Vec<_> = gateway.iter().filter(|entry| entry["fields"]["request_id"] == request_id).collect();
        assert_eq!(lines.len(), 1, "one line a request: {lines:?}");
        let fields = &lines[0]["fields"];
        assert_eq!((&fields["message_id"], &fields["status"]), (&json!(message_id), &json!(200)));
        assert!(fields["duration_ms"].is_u64() && lines[0]["timestamp"].is_string(), "{fields}");
        let worker = entries(&stack.workers[0].output());
        let ended = worker.iter().filter(|entry| entry["fields"]["message"] == "job ended");
        assert_eq!(ended.filter(|entry| entry["span"]["message.id"] == message_id).count(), 1);
    }
    let levels: BTreeSet<String> = entries(&logs).iter().map(|entry| entry["level"].to_string()).collect();
    assert!(!levels.contains("\"ERROR\""), "nothing here is an operator's concern: {levels:?}");
}

#[rstest]
#[tokio::test]
async fn a_callers_trace_reaches_the_workers_spans(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let traced = async |traceparent: &str| {
        let body = json!({ "employee_id": stack.agent, "prompt": "hello" }).to_string();
        let request = stack.request(Method::POST, "/api/v1/chat").header("traceparent", traceparent);
        let answer = Answer::to(request.header("content-type", "application/json").body(body)).await;
        assert_eq!(answer.status, 200);
        answer.header("x-message-id").expect("an id").to_owned()
    };
    let trace_of = |message_id: &str| {
        let worker = entries(&stack.workers[0].output());
        let of_job = worker.iter().find(|entry| entry["span"]["message.id"] == message_id).expect("a line of the job");
        let in_span = of_job["span"]["traceparent"].as_str().expect("a trace").to_owned();
        let gateway = entries(&stack.gateways[0].process.output());
        let line = gateway.iter().find(|entry| entry["fields"]["message_id"] == message_id).expect("a line");
        (in_span, line["fields"]["trace_id"].as_str().expect("a trace").to_owned())
    };
    let given = traced(&format!("00-{TRACE_ID}-00f067aa0ba902b7-01")).await;
    let (span, trace_id) = trace_of(&given);
    assert_eq!((span.split('-').nth(1), trace_id.as_str()), (Some(TRACE_ID), TRACE_ID));

    let nonsense = traced("00-nonsense").await;
    let (span, trace_id) = trace_of(&nonsense);
    assert_eq!((span.len(), span.split('-').nth(1)), (55, Some(trace_id.as_str())), "a new trace is made: {span}");
    assert_ne!(trace_id, TRACE_ID);
}
