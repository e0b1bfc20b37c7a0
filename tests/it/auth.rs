//! Who gets in: a key with every request, and no other way.

use common::domain::key::Secret;
use rstest::rstest;
use serde_json::json;
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    patience::nonce,
    raw,
    stack::Stack,
};

const HEALTH: &str = "/api/v1/health";

#[rstest]
#[tokio::test]
async fn a03_a12_every_request_needs_a_valid_key(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_AUTH_FAILURE_LIMIT", 1_000).start().await;
    let (key, nobody) = (&stack.key, Caller::of(&stack).without_key());
    let unknown = Secret::generate("sk-").reveal().to_owned();
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        key.clone(),
        format!("Basic {key}"),
        format!("Bearer{key}"),
        format!("Bearer {unknown}"),
        format!("Bearer {key}x"),
        format!("Bearer {}", &key[..key.len() - 1]),
        format!("Bearer {}", key.to_uppercase()),
        format!("Bearer {key} {key}"),
        format!("Bearer {key}, Bearer {key}"),
        "Bearer sk-".to_owned(),
        "Bearer ' OR 1=1 --".to_owned(),
        format!("Bearer {}", "x".repeat(8_000)),
    ];
    let callers = wrong.iter().map(|value| nobody.with_header("authorization", value));
    for caller in callers.chain([nobody.clone(), nobody.with_key(key).with_header("x-api-key", &unknown)]) {
        for answer in [
            caller.get(HEALTH).await,
            caller.get(&format!("{HEALTH}?key={key}")).await,
            caller.chat(&stack.agent, &nonce()).await,
        ] {
            answer.fault(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.header("ratelimit"), None, "{answer}");
        }
    }
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0);
    let prompt = nonce();
    for value in [format!("Bearer {key}"), format!("bearer {key}"), format!("BEARER   {key}")] {
        let answer = nobody.with_header("authorization", &value).chat(&stack.agent, &prompt).await;
        assert_eq!(answer.ok()["content"], prompt);
    }
    let logs = stack.logs();
    assert!(!logs.contains(key) && !logs.contains(&unknown) && !logs.contains(&prompt), "a secret is in the logs");
}

/// Keys are not text to us before they are known: bytes that no text has must not matter either.
#[rstest]
#[tokio::test]
async fn a12_a_key_of_arbitrary_bytes_is_invalid(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    for bytes in [&b"\xff\xfe"[..], b"\xc3\x28", b"sk-\t\t", "sk-ключ".as_bytes()] {
        let request =
            [b"GET /api/v1/health HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer ", bytes, b"\r\n\r\n"].concat();
        raw::exchange(&stack.url(""), request).await.fault(401, "unauthorized");
    }
}

#[rstest]
#[tokio::test]
async fn a09_a10_health_is_ok_for_whoever_has_a_key(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    assert_eq!(caller.get(HEALTH).await.ok(), json!({ "status": "ok" }));
    caller.without_key().get(HEALTH).await.fault(401, "unauthorized");

    // It asks for nothing but the key: neither a channel nor a verified address.
    stack.admin(&["account", "create", "fresh", "--email", "fresh@example.com"]);
    let fresh = caller.with_key(&stack.make_key("fresh", "first", &[]));
    assert_eq!(fresh.get(HEALTH).await.ok(), json!({ "status": "ok" }));
}

#[rstest]
#[tokio::test]
async fn a26_one_key_works_on_every_api_and_a_request_without_one_is_not_read(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let (caller, prompt) = (Caller::of(&stack), nonce());
    assert_eq!(caller.chat(&stack.agent, &prompt).await.ok()["content"], prompt);
    assert_eq!(caller.agent_chat(&stack.agent, &prompt).await.ok()["content"], prompt);
    assert_eq!(caller.get("/api/agents").await.ok()["agents"][0]["id"], stack.agent);

    // The body is promised and never sent: only who does not wait for it can answer.
    let body = chat_body(&stack.agent, &prompt).to_string();
    let length = format!("Content-Length: {}", body.len());
    let head = raw::head("POST /api/v1/chat", &["Content-Type: application/json", &length]);
    raw::exchange(&stack.url(""), head).await.fault(401, "unauthorized");
}
