//! How soon running gateways know what an operator has changed, and what `key revoke` says of it. A25.

use std::time::{Duration, Instant};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{answer::Answer, database::Database, stack::Stack};

/// How soon a change has to be known everywhere when NATS tells of it.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How soon it has to be known when NATS cannot tell: 5 s, and a second for a busy machine.
const WITHOUT_NATS: Duration = Duration::from_secs(6);

async fn chat_status(stack: &Stack, gateway: usize, key: &str) -> u16 {
    let body = json!({ "employee_id": stack.agent, "prompt": "hello" }).to_string();
    let request = stack.request_at(gateway, Method::POST, "/api/v1/chat", key);
    Answer::to(request.header("content-type", "application/json").body(body)).await.status
}

/// Waits until every gateway answers a chat with `status`.
async fn until_everywhere(stack: &Stack, status: u16, within: Duration, after: &str) {
    let until = Instant::now() + within;
    for gateway in 0..stack.gateways.len() {
        loop {
            let answered = chat_status(stack, gateway, &stack.key).await;
            if answered == status {
                break;
            }
            assert!(Instant::now() < until, "gateway {gateway} still answers {answered} after `{after}`");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The id of the only key of the first account.
fn first_key(stack: &Stack) -> String {
    stack.admin(&["key", "list", "first"])[0]["id"].as_str().expect("an id").to_owned()
}

#[rstest]
#[tokio::test]
async fn changes_reach_every_running_gateway_at_once(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    // Nothing is forgotten by itself in this test.
    let stack = Stack::on(database)
        .gateways(2)
        .set("FRONTDESK_CACHE_TTL", "1h")
        .set("FRONTDESK_KEY_LIMIT", 10_000)
        .set("FRONTDESK_PRICES", "demo=1000:1000")
        .start()
        .await;
    until_everywhere(&stack, 402, AT_ONCE, "nothing").await;
    for (status, command) in [
        (200, &["credit", "grant", "first", "1"][..]),
        (403, &["channel", "off", "first", "api"]),
        (200, &["channel", "on", "first", "api"]),
        (403, &["account", "unverify", "first"]),
        (200, &["account", "verify", "first"]),
        (402, &["credit", "grant", "first", "-1"]),
        (200, &["credit", "grant", "first", "1"]),
        (404, &["agent", "remove", &stack.agent]),
    ] {
        let ran = stack.operator(command);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{command:?}");
        until_everywhere(&stack, status, AT_ONCE, &command.join(" ")).await;
    }
}

#[rstest]
#[tokio::test]
async fn a25_a_revoked_key_is_refused_as_soon_as_the_command_returns(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(2).set("FRONTDESK_CACHE_TTL", "1h").start().await;
    let second = stack.make_key("first", "second", &[]);
    for gateway in 0..2 {
        assert_eq!(chat_status(&stack, gateway, &stack.key).await, 200);
        assert_eq!(chat_status(&stack, gateway, &second).await, 200);
    }
    let id = first_key(&stack);
    stack.admin(&["key", "rename", &id, "renamed"]);
    assert_eq!(chat_status(&stack, 0, &stack.key).await, 200, "a name is no matter of a key's rights");

    let begun = Instant::now();
    let revoked = stack.admin(&["key", "revoke", &id]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for gateway in 0..2 {
        assert_eq!(chat_status(&stack, gateway, &stack.key).await, 401, "gateway {gateway} did not know yet");
        assert_eq!(chat_status(&stack, gateway, &second).await, 200, "the other key is as good as before");
    }
    assert_eq!((&revoked["announced"], &revoked["unconfirmed"]), (&json!(true), &json!([])));
    assert_eq!(revoked["confirmed_by"].as_array().expect("gateways").len(), 2, "{revoked}");
    assert!(revoked["revoked_at"].is_string(), "{revoked}");
    for path in ["/api/v1/health", "/api/agents"] {
        let answer = Answer::to(stack.request_at(1, Method::GET, path, &stack.key)).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    let again = stack.operator(&["key", "revoke", &id]);
    assert_eq!((again.code, again.stderr.as_str()), (0, ""));
    assert!(again.stdout.contains("confirmed by"), "{}", again.stdout);
}

#[rstest]
#[tokio::test]
async fn a25_a_gateway_that_does_not_confirm_is_named(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(2).start().await;
    let id = first_key(&stack);
    stack.gateways[1].process.signal("STOP");
    let begun = Instant::now();
    let ran = stack.operator(&["key", "revoke", &id, "--json"]);
    let took = begun.elapsed();
    stack.gateways[1].process.signal("CONT");
    let said: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, &said["announced"]), (0, &json!(true)), "{ran:?}");
    assert_eq!(said["confirmed_by"].as_array().map(Vec::len), Some(1), "{said}");
    let silent = said["unconfirmed"].as_array().expect("gateways");
    assert_eq!(silent.len(), 1, "{said}");
    let name = silent[0]["id"].as_str().expect("an id");
    assert!(stack.gateways[1].url.ends_with(silent[0]["address"].as_str().expect("an address")), "{said}");
    assert!(ran.stderr.contains("not confirmed") && ran.stderr.contains(name), "{}", ran.stderr);
    assert!(took < Duration::from_secs(3), "it waits for up to 1 s, not {took:?}");
    assert_eq!(chat_status(&stack, 0, &stack.key).await, 401);
}

#[rstest]
#[tokio::test]
async fn a25_without_nats_a_change_is_made_said_and_known_within_five_seconds(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).gateways(2).start().await;
    let second = stack.make_key("first", "second", &[]);
    let health = async |stack: &Stack, gateway: usize, key: &str| {
        Answer::to(stack.request_at(gateway, Method::GET, "/api/v1/health", key)).await.status
    };
    stack.nats.process().kill();
    let id = first_key(&stack);
    for gateway in 0..2 {
        assert_eq!(health(&stack, gateway, &stack.key).await, 200);
    }
    let ran = stack.operator(&["key", "revoke", &id, "--json"]);
    let revoked = Instant::now();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("the key is revoked, but") && ran.stderr.contains("within 5 s"), "{}", ran.stderr);
    let said: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&said["announced"], &said["confirmed_by"]), (&json!(false), &json!([])));
    for gateway in 0..2 {
        while health(&stack, gateway, &stack.key).await != 401 {
            assert!(revoked.elapsed() < WITHOUT_NATS, "gateway {gateway} still takes the key");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        assert_eq!(health(&stack, gateway, &second).await, 200);
    }
    let switched = stack.operator(&["channel", "off", "first", "api"]);
    assert_eq!(switched.code, 0, "{switched:?}");
    assert!(switched.stderr.contains("the change is made, but"), "{}", switched.stderr);
    assert_eq!(stack.operator(&["dead", "list"]).code, 1, "what needs NATS fails without it");
}
