//! The life of a key: made with a name, shown once, renamed, limited, revoked.

use std::path::Path;

use common::domain::key;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    caller::Caller,
    database::{Database, psql},
    patience::{nonce, until},
    stack::Stack,
};

fn listed(stack: &Stack, id: &Value) -> Value {
    let keys = stack.admin(&["key", "list", &stack.account]);
    keys.as_array().expect("a list").iter().find(|key| key["id"] == *id).expect("the key").clone()
}

/// Everything that the database holds on keys, as text.
fn stored_keys(stack: &Stack) -> String {
    let url = &stack.database_url;
    let Some(file) = url.strip_prefix("sqlite://").and_then(|rest| rest.split('?').next()) else {
        return psql(url, "SELECT * FROM api_keys").expect("the rows of all keys");
    };
    let folder = Path::new(file).parent().expect("a folder");
    let files = std::fs::read_dir(folder).expect("the folder of the database");
    let of_database = files.map(|entry| entry.expect("an entry").path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("frontdesk.db")
    });
    of_database.map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("a file")).into_owned()).collect()
}

#[rstest]
#[tokio::test]
async fn a23_a24_a_key_has_a_name_and_its_secret_is_shown_once(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let made = stack.admin(&["key", "create", &stack.account, "for the build"]);
    let secret = made["secret"].as_str().expect("a secret");
    assert_eq!(made["name"], "for the build");
    assert!(secret.starts_with("sk-") && key::is_well_formed(secret), "{secret}");
    let prompt = nonce();
    let answer = Caller::of(&stack).with_key(secret).chat(&stack.agent, &prompt).await;
    assert_eq!(answer.ok()["content"], prompt);

    let shown = listed(&stack, &made["id"]);
    assert_eq!((&shown["name"], &shown["last_four"]), (&made["name"], &json!(secret[secret.len() - 4..])));
    assert!(!stack.admin(&["key", "list", &stack.account]).to_string().contains(secret));
    let stored = stored_keys(&stack);
    assert!(stored.contains("for the build"), "looked in the wrong place");
    assert!(!stored.contains(secret) && !stored.contains(&secret[3..40]), "the secret is in the database");
}

#[rstest]
#[tokio::test]
async fn a23_a_renamed_key_goes_on_working(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let made = stack.admin(&["key", "create", &stack.account, "before"]);
    let (id, secret) = (made["id"].as_str().expect("an id"), made["secret"].as_str().expect("a secret"));
    let renamed = stack.admin(&["key", "rename", id, "after"]);
    assert_eq!((&renamed["name"], &renamed["id"], &renamed["secret"]), (&json!("after"), &json!(id), &json!(null)));
    assert_eq!(listed(&stack, &made["id"])["name"], "after");
    let prompt = nonce();
    let answer = Caller::of(&stack).with_key(secret).chat(&stack.agent, &prompt).await;
    assert_eq!(answer.ok()["content"], prompt);
    assert_eq!(stack.admin_output(&["key", "rename", &stack.agent, "no key"]).status.code(), Some(3));
}

/// The cache would believe the key for an hour: only the revocation itself can end it.
#[rstest]
#[tokio::test]
async fn a25_a_revoked_key_is_refused_at_once_on_every_gateway_and_channel(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(2).set("FRONTDESK_CACHE_TTL", "1h").start().await;
    let made = stack.admin(&["key", "create", &stack.account, "to be revoked"]);
    let (id, secret) = (made["id"].as_str().expect("an id"), made["secret"].as_str().expect("a secret"));
    let doomed = Caller::of(&stack).with_key(secret);
    let doomed_at = [doomed.at(&stack.gateways[0]), doomed.at(&stack.gateways[1])];
    for caller in &doomed_at {
        caller.chat(&stack.agent, &nonce()).await.ok();
    }

    let revoked = stack.admin(&["key", "revoke", id]);
    assert_eq!(
        (revoked["announced"].as_bool(), revoked["unconfirmed"].as_array().map(Vec::len)),
        (Some(true), Some(0))
    );
    assert_eq!(revoked["confirmed_by"].as_array().map(Vec::len), Some(2), "{revoked}");
    for caller in &doomed_at {
        caller.chat(&stack.agent, &nonce()).await.fault(401, "unauthorized");
        caller.agent_chat(&stack.agent, &nonce()).await.fault(401, "unauthorized");
        caller.get("/api/agents").await.fault(401, "unauthorized");
        caller.get("/api/v1/health").await.fault(401, "unauthorized");
    }
    assert!(listed(&stack, &made["id"])["revoked_at"].is_string());
    let prompt = nonce();
    assert_eq!(Caller::of(&stack).chat(&stack.agent, &prompt).await.ok()["content"], prompt, "another key was hit");
}

#[rstest]
#[tokio::test]
async fn a25_a_gateway_that_does_not_confirm_is_named(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(2).workers(0).start().await;
    let made = stack.admin(&["key", "create", &stack.account, "to be revoked"]);
    let (id, secret) = (made["id"].as_str().expect("an id"), made["secret"].as_str().expect("a secret"));
    let [awake, frozen] = [&stack.gateways[0], &stack.gateways[1]];
    let doomed = Caller::of(&stack).with_key(secret);
    for gateway in [awake, frozen] {
        doomed.at(gateway).get("/api/v1/health").await.ok();
    }
    frozen.process.signal("STOP");

    let revoked = stack.admin(&["key", "revoke", id]);
    assert_eq!(revoked["confirmed_by"].as_array().map(Vec::len), Some(1), "{revoked}");
    assert_eq!(unconfirmed(&revoked), [frozen.url.trim_start_matches("http://")]);
    doomed.at(awake).get("/api/v1/health").await.fault(401, "unauthorized");
    frozen.process.signal("CONT");
    until_refused(&doomed.at(frozen)).await;
}

/// The addresses of the gateways that did not confirm.
fn unconfirmed(revoked: &Value) -> Vec<&str> {
    let gateways = revoked["unconfirmed"].as_array().expect("a list");
    gateways.iter().map(|gateway| gateway["address"].as_str().expect("an address")).collect()
}

async fn until_refused(caller: &Caller) {
    until("the revoked key is refused", async || {
        let answer = caller.get("/api/v1/health").await;
        (answer.status == 401).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a25_without_nats_a_revoked_key_is_refused_when_the_cache_lets_go(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::start(database).await;
    let made = stack.admin(&["key", "create", &stack.account, "to be revoked"]);
    let (id, secret) = (made["id"].as_str().expect("an id"), made["secret"].as_str().expect("a secret"));
    let doomed = Caller::of(&stack).with_key(secret);
    doomed.get("/api/v1/health").await.ok();
    stack.nats.process().kill();

    let revoked = stack.admin(&["key", "revoke", id]);
    assert_eq!(revoked["announced"], false, "{revoked}");
    assert_eq!(unconfirmed(&revoked), [stack.gateways[0].url.trim_start_matches("http://")]);
    until_refused(&doomed).await;
}

#[rstest]
#[tokio::test]
async fn keys_may_be_limited_to_agents(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let other = stack.make_agent(&stack.account, &json!({ "name": "Other", "model": "demo", "provider": "demo" }));
    let caller = Caller::of(&stack).with_key(&stack.make_key(&stack.account, "limited", &[&other]));
    let prompt = nonce();
    assert_eq!(caller.chat(&other, &prompt).await.ok()["content"], prompt);
    caller.chat(&stack.agent, &prompt).await.fault(403, "agent_forbidden");
    let agents = caller.get("/api/agents").await.ok()["agents"].clone();
    assert_eq!(agents.as_array().expect("a list").len(), 1);
    assert_eq!(agents[0]["id"], other);

    let (.., strangers_agent, _) = stack.another_account("second");
    let refused = stack.admin_output(&["key", "create", &stack.account, "x", "--agent", &strangers_agent]);
    assert_eq!(refused.status.code(), Some(3));
}
