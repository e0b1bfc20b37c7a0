//! Credits: granted, looked at by the door, charged once at the end, the same on every API.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::{Builder, Stack},
};

/// A word in costs 2,000 micro-credits and a word out 3,000; the demo agent counts words. `nonce` makes two.
fn priced(database: Database) -> Builder {
    Stack::on(database).set("FRONTDESK_PRICES", "demo=2000000:3000000")
}

const CHARGE: i64 = 2 * 2_000 + 2 * 3_000;

fn balance(stack: &Stack) -> i64 {
    stack.admin(&["credit", "show", &stack.account])["balance_micro_credits"].as_i64().expect("a balance")
}

/// What was charged, by message. Of one that a worker refused nothing was.
fn charges(stack: &Stack) -> BTreeMap<String, i64> {
    let shown = stack.admin(&["credit", "show", &stack.account, "--ledger", "1000"]);
    let charges = shown["ledger"].as_array().expect("a ledger").iter().filter(|entry| entry["kind"] == "charge");
    let by_message: Vec<_> = charges
        .map(|entry| {
            (entry["id"].as_str().expect("an id").to_owned(), entry["amount_micro_credits"].as_i64().expect("one"))
        })
        .collect();
    let count = by_message.len();
    let mut by_message = BTreeMap::from_iter(by_message);
    assert_eq!(by_message.len(), count, "a message was charged twice: {shown}");
    by_message.retain(|_, amount| *amount != 0);
    by_message
}

fn id_of(answer: &Answer) -> String {
    answer.header("x-message-id").expect("an id").to_owned()
}

async fn until_answered(caller: &Caller, agent: &str) -> Answer {
    until("the prompt is answered", async || {
        let answer = caller.chat(agent, &nonce()).await;
        (answer.status == 200).then_some(answer)
    })
    .await
}

#[rstest]
#[tokio::test]
async fn a28_who_has_no_credits_is_refused_until_some_are_granted(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = priced(database).set("FRONTDESK_CACHE_TTL", "1h").start().await;
    let caller = Caller::of(&stack);
    caller.chat(&stack.agent, &nonce()).await.fault(402, "insufficient_credits");
    caller.agent_chat(&stack.agent, &nonce()).await.fault(402, "insufficient_credits");
    assert!(charges(&stack).is_empty());

    let granted = stack.admin(&["credit", "grant", &stack.account, "0.015", "--note", "a gift"]);
    assert_eq!(granted["balance_micro_credits"], 15_000);
    let first = until_answered(&caller, &stack.agent).await;
    assert_eq!(balance(&stack), 15_000 - CHARGE);
    // What is begun is finished: the last one may end below zero.
    let last = until_answered(&caller, &stack.agent).await;
    assert_eq!(balance(&stack), 15_000 - 2 * CHARGE);
    caller.chat(&stack.agent, &nonce()).await.fault(402, "insufficient_credits");
    caller.agent_chat(&stack.agent, &nonce()).await.fault(402, "insufficient_credits");

    let expected = BTreeMap::from([(id_of(&first), -CHARGE), (id_of(&last), -CHARGE)]);
    assert_eq!(charges(&stack), expected);
    let grant = &stack.admin(&["credit", "show", &stack.account, "--ledger", "1000"])["ledger"];
    let grant = grant.as_array().expect("a ledger").iter().find(|entry| entry["kind"] == "grant").expect("the grant");
    assert_eq!((&grant["amount_micro_credits"], &grant["note"]), (&json!(15_000), &json!("a gift")));
}

#[rstest]
#[tokio::test]
async fn a28_every_message_is_charged_once_and_the_same_on_both_apis(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = priced(database).start().await;
    stack.admin(&["credit", "grant", &stack.account, "10"]);
    let caller = Caller::of(&stack);
    let calls = (0..40).map(async |n| {
        let prompt = nonce();
        let rest = async || caller.chat(&stack.agent, &prompt).await;
        let answer = if n % 2 == 0 { rest().await } else { caller.agent_chat(&stack.agent, &prompt).await };
        assert_eq!(answer.ok()["content"], prompt);
        id_of(&answer)
    });
    let ids: BTreeSet<String> = join_all(calls).await.into_iter().collect();
    let charges = charges(&stack);
    assert_eq!(charges.keys().cloned().collect::<BTreeSet<_>>(), ids);
    assert!(charges.values().all(|amount| *amount == -CHARGE), "{charges:?}");
    assert_eq!(balance(&stack), 10_000_000 - 40 * CHARGE);
}

#[rstest]
#[tokio::test]
async fn a28_usage_is_counted_by_key_agent_and_day(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = priced(database).start().await;
    stack.admin(&["credit", "grant", &stack.account, "10"]);
    let other = stack.make_agent(&stack.account, &json!({ "name": "Other", "model": "demo", "provider": "demo" }));
    let first = Caller::of(&stack);
    let second = first.with_key(&stack.make_key(&stack.account, "second", &[]));
    for (caller, agent, times) in [(&first, &stack.agent, 3), (&first, &other, 2), (&second, &other, 1)] {
        for _ in 0..times {
            caller.chat(agent, &nonce()).await.ok();
        }
    }
    let rows = stack.admin(&["usage", &stack.account]);
    let mut totals: BTreeMap<(String, String), [i64; 4]> = BTreeMap::new();
    for row in rows.as_array().expect("rows") {
        assert_eq!(row["day"].as_str().map(str::len), Some("2026-11-21".len()));
        let name = |field: &str| row[field].as_str().expect("a name").to_owned();
        let total = totals.entry((name("key_name"), name("agent_name"))).or_default();
        for (sum, field) in total.iter_mut().zip(["messages", "input_tokens", "output_tokens", "micro_credits"]) {
            *sum += row[field].as_i64().expect("a number");
        }
    }
    let expected = [("first", "Assistant", 3), ("first", "Other", 2), ("second", "Other", 1)];
    let expected = expected.map(|(key, agent, n)| ((key.to_owned(), agent.to_owned()), [n, 2 * n, 2 * n, n * CHARGE]));
    assert_eq!(totals, BTreeMap::from(expected));
    assert_eq!(stack.admin(&["usage", &stack.account, "--to", "2020-01-01"]), json!([]));
}

/// Nobody trips over credits who has not set prices; and a model without a price is free beside one that has one.
#[rstest]
#[tokio::test]
async fn a28_what_has_no_price_is_free(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_PRICES", "other=1000:1000").start().await;
    let caller = Caller::of(&stack);
    caller.chat(&stack.agent, &nonce()).await.ok();
    assert_eq!(balance(&stack), 0);
    let priced = stack.make_agent(&stack.account, &json!({ "name": "Dear", "model": "other", "provider": "demo" }));
    caller.chat(&priced, &nonce()).await.fault(402, "insufficient_credits");
}

/// What a failed agent has used was used.
#[rstest]
#[tokio::test]
async fn a28_a_failed_message_is_charged_for_what_it_used_and_no_more(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = priced(database).start().await;
    stack.admin(&["credit", "grant", &stack.account, "10"]);
    let answer = Caller::of(&stack).chat(&stack.agent, "/fail 401").await;
    answer.fault(502, "agent_failed");
    let charged: i64 = charges(&stack).values().sum();
    assert_eq!(balance(&stack), 10_000_000 + charged);
    let rows: Value = stack.admin(&["usage", &stack.account]);
    let used: i64 = rows.as_array().expect("rows").iter().filter_map(|row| row["micro_credits"].as_i64()).sum();
    assert_eq!(used, -charged);
}
