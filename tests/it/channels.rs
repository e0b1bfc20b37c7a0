//! Channels and verified addresses: what an account has to have before its key opens anything.

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::Stack,
};

const CHANNELS: [&str; 5] = ["api", "webhooks", "mcp", "a2a", "email"];

/// The channels of `account` that are on.
fn on(stack: &Stack, account: &str) -> Vec<String> {
    let list = stack.admin(&["channel", "list", account]);
    let channels = list.as_array().expect("a list");
    let names: Vec<&str> = channels.iter().filter_map(|channel| channel["channel"].as_str()).collect();
    assert_eq!(names, CHANNELS);
    channels.iter().filter(|channel| channel["enabled"] == true).map(|channel| text(&channel["channel"])).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// An account as it is when nobody has done anything to it, with an agent and a caller for it.
fn fresh_account(stack: &Stack, arguments: &[&str]) -> (String, Caller) {
    stack.admin(&[&["account", "create", "fresh", "--email", "fresh@example.com"], arguments].concat());
    let agent = stack.make_agent("fresh", &json!({ "name": "Fresh", "model": "demo", "provider": "demo" }));
    (agent, Caller::of(stack).with_key(&stack.make_key("fresh", "first", &[])))
}

/// Waits until a chat is answered with `status` and `code`.
async fn until_refused(caller: &Caller, agent: &str, code: &str) {
    until(code, async || {
        let answer = caller.chat(agent, &nonce()).await;
        (answer.status != 200).then(|| answer.fault(403, code))
    })
    .await;
}

async fn until_answered(caller: &Caller, agent: &str) {
    until("the prompt is answered", async || {
        let prompt = nonce();
        let answer = caller.chat(agent, &prompt).await;
        (answer.status == 200).then(|| assert_eq!(answer.ok()["content"], prompt))
    })
    .await;
}

/// The cache would believe the account for an hour: only the operator's change itself can be what is seen.
#[rstest]
#[tokio::test]
async fn a13_a22_the_api_channel_is_off_until_it_is_switched_on(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let settings = Stack::on(database).gateways(2).set("FRONTDESK_CACHE_TTL", "1h");
    let stack = settings.set("FRONTDESK_KEY_LIMIT", 100_000).start().await;
    let (agent, caller) = fresh_account(&stack, &["--verified"]);
    let callers = [caller.at(&stack.gateways[0]), caller.at(&stack.gateways[1])];
    for caller in &callers {
        caller.chat(&agent, &nonce()).await.fault(403, "channel_disabled");
        caller.agent_chat(&agent, &nonce()).await.fault(403, "channel_disabled");
    }
    for _ in 0..2 {
        stack.admin(&["channel", "on", "fresh", "api"]);
        for caller in &callers {
            until_answered(caller, &agent).await;
        }
        stack.admin(&["channel", "off", "fresh", "api"]);
        for caller in &callers {
            until_refused(caller, &agent, "channel_disabled").await;
        }
    }
}

#[rstest]
#[tokio::test]
async fn a14_the_email_address_has_to_be_verified(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let settings = Stack::on(database).set("FRONTDESK_CACHE_TTL", "1h");
    let stack = settings.set("FRONTDESK_KEY_LIMIT", 100_000).start().await;
    let (agent, caller) = fresh_account(&stack, &[]);
    stack.admin(&["channel", "on", "fresh", "api"]);
    caller.chat(&agent, &nonce()).await.fault(403, "email_not_verified");
    caller.agent_chat(&agent, &nonce()).await.fault(403, "email_not_verified");

    assert_eq!(stack.admin(&["account", "verify", "fresh"])["email_verified"], true);
    until_answered(&caller, &agent).await;
    assert_eq!(stack.admin(&["account", "unverify", "fresh"])["email_verified"], false);
    until_refused(&caller, &agent, "email_not_verified").await;
}

#[rstest]
#[tokio::test]
async fn a34_channels_are_listed_and_switched_one_by_one(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).start().await;
    fresh_account(&stack, &["--verified"]);
    assert!(on(&stack, "fresh").is_empty(), "a new account has a channel on");
    stack.admin(&["channel", "on", "fresh", "mcp"]);
    stack.admin(&["channel", "on", "fresh", "webhooks"]);
    assert_eq!(on(&stack, "fresh"), ["webhooks", "mcp"]);
    stack.admin(&["channel", "off", "fresh", "mcp"]);
    assert_eq!(on(&stack, "fresh"), ["webhooks"]);
    assert_eq!(on(&stack, &stack.account), ["api"], "another account was switched");

    assert_eq!(stack.admin_output(&["channel", "on", "fresh", "fax"]).status.code(), Some(2));
    assert_eq!(stack.admin_output(&["channel", "on", "nobody", "api"]).status.code(), Some(3));
}

/// Each switches one channel of the same account: none may undo another's.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a34_operators_who_switch_at_once_do_not_undo_each_other(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = std::sync::Arc::new(Stack::on(database).workers(0).start().await);
    fresh_account(&stack, &["--verified"]);
    for (switch, left) in [("on", &CHANNELS[..]), ("off", &[])] {
        let switched = CHANNELS.map(|channel| {
            let stack = stack.clone();
            tokio::task::spawn_blocking(move || stack.admin(&["channel", switch, "fresh", channel]))
        });
        join_all(switched).await.into_iter().for_each(|done| drop(done.expect("switched")));
        assert_eq!(on(&stack, "fresh"), left);
    }
}
