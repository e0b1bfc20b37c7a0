//! The operator's commands: what they do, what they print and how they end.

use std::fmt::Write as _;

use common::domain::{
    ids::{AgentId, KeyId, MessageId},
    key,
};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    database::{Database, query},
    model::{Behaviour, Gate, ModelServer},
    stack::{Ran, Stack},
};

fn code(stack: &Stack, arguments: &[&str]) -> i32 {
    let ran = stack.operator(arguments);
    assert_eq!(ran.code == 0, !ran.stdout.is_empty(), "{arguments:?}: {ran:?}");
    assert!(ran.code == 0 || !ran.stderr.is_empty(), "{arguments:?} does not say why");
    ran.code
}

#[rstest]
#[tokio::test]
async fn a22_a34_accounts_and_their_channels(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).gateways(0).workers(0).start().await;
    let made = stack.admin(&["account", "create", "acme", "--email", "ops@acme.example"]);
    assert_eq!((&made["email_verified"], &made["channels"]), (&json!(false), &json!([])));
    assert_eq!(made["balance_micro_credits"], 0);
    assert_eq!(stack.admin(&["account", "verify", "acme"])["email_verified"], true);
    let id = made["id"].as_str().expect("an id");
    assert_eq!(stack.admin(&["account", "show", id])["name"], "acme");
    assert_eq!(stack.admin(&["account", "list"]).as_array().expect("a list").len(), 2);

    let on = |states: &Value| -> Vec<String> {
        let states = states.as_array().expect("a list");
        assert_eq!(states.len(), 5, "every channel is listed");
        let on = states.iter().filter(|state| state["enabled"] == true);
        on.map(|state| state["channel"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(on(&stack.admin(&["channel", "list", "acme"])), [""; 0]);
    assert_eq!(on(&stack.admin(&["channel", "on", "acme", "webhooks", "api", "a2a"])), ["api", "webhooks", "a2a"]);
    assert_eq!(on(&stack.admin(&["channel", "off", "acme", "webhooks"])), ["api", "a2a"]);
    assert_eq!(stack.admin(&["account", "show", "acme"])["channels"], json!(["api", "a2a"]));

    let listed = stack.operator(&["account", "list"]).stdout;
    let row = listed.lines().find(|line| line.contains("acme")).expect("a row");
    assert!(row.contains(id) && row.contains("yes") && row.contains("api, a2a"), "{listed}");
    let channels = stack.operator(&["channel", "list", "acme"]).stdout;
    assert!(["api", "webhooks", "mcp", "a2a", "email"].iter().all(|name| channels.contains(name)), "{channels}");

    for (expected, arguments) in [
        (0, &["account", "list"][..]),
        (2, &["account", "create", "no-email"]),
        (2, &["account", "fly"]),
        (2, &["channel", "on", "acme"]),
        (2, &["channel", "on", "acme", "fax"]),
        (3, &["account", "show", "nobody"]),
        (3, &["channel", "on", "nobody", "api"]),
        (4, &["account", "create", "acme", "--email", "other@acme.example"]),
        (4, &["account", "create", "fine", "--email", "nonsense"]),
        (4, &["account", "create", " ", "--email", "a@b.example"]),
    ] {
        assert_eq!(code(&stack, arguments), expected, "{arguments:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a23_a24_a_secret_is_shown_once_and_never_kept(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(0).workers(0).start().await;
    let made = stack.admin(&["key", "create", "first", "ci"]);
    let (secret, id) = (made["secret"].as_str().expect("a secret"), made["id"].as_str().expect("an id"));
    assert!(secret.starts_with("sk-") && key::is_well_formed(secret), "{secret}");
    assert_eq!(made["last_four"].as_str(), secret.get(secret.len() - 4..));
    let Ran { stdout, stderr, .. } = stack.operator(&["key", "create", "first", "for people"]);
    let printed = stdout.split_whitespace().find(|word| word.starts_with("sk-")).expect("a secret");
    assert!(key::is_well_formed(printed) && stderr.contains("once"), "{stderr}");

    let renamed = stack.admin(&["key", "rename", id, "deploys"]);
    assert_eq!((&renamed["name"], &renamed["id"]), (&json!("deploys"), &json!(id)));
    let names: Vec<Value> = stack
        .admin(&["key", "list", "first"])
        .as_array()
        .expect("keys")
        .iter()
        .map(|key| key["name"].clone())
        .collect();
    assert_eq!(names.len(), 3);
    assert!(["first", "deploys", "for people"].iter().all(|name| names.contains(&json!(name))), "{names:?}");
    for shown in [
        stack.operator(&["key", "list", "first"]).stdout,
        stack.operator(&["key", "list", "first", "--json"]).stdout,
        stack.operator(&["key", "rename", id, "again"]).stdout,
        stack.operator(&["key", "revoke", id]).stdout,
        query(&stack.database_url, "SELECT * FROM api_keys").expect("rows"),
    ] {
        assert!(!shown.contains(secret) && !shown.contains(printed) && !shown.contains(&stack.key), "{shown}");
        assert!(shown.contains(&secret[secret.len() - 4..]), "{shown}");
    }
    let stored = match database {
        Database::Sqlite => "SELECT lower(hex(hash)) FROM api_keys WHERE name = 'again'",
        Database::Postgres => "SELECT encode(hash, 'hex') FROM api_keys WHERE name = 'again'",
    };
    let sha256 = key::hash(secret).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    assert_eq!(query(&stack.database_url, stored).expect("a row"), sha256);

    let foreign = stack.another_account("second").1;
    let unknown = KeyId::new().to_string();
    for (expected, arguments) in [
        (0, &["key", "create", "first", "limited", "--agent", &stack.agent][..]),
        (0, &["key", "revoke", id]),
        (2, &["key", "create", "first"]),
        (2, &["key", "revoke", "not-a-uuid"]),
        (3, &["key", "create", "nobody", "ci"]),
        (3, &["key", "create", "first", "limited", "--agent", &foreign]),
        (3, &["key", "rename", &unknown, "x"]),
        (3, &["key", "revoke", &unknown]),
        (4, &["key", "rename", id, ""]),
    ] {
        assert_eq!(code(&stack, arguments), expected, "{arguments:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a35_agents_come_from_a_file_that_can_be_applied_again(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(0).workers(0).start().await;
    let apply = |text: &str| {
        let file = stack.write_file("team.toml", text);
        stack.operator(&["agent", "apply", "first", file.to_str().expect("UTF-8"), "--json"])
    };
    let applied = |text: &str| -> Vec<(Value, Value, Value)> {
        let ran = apply(text);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let agents: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let agents = agents.as_array().expect("a list").iter();
        agents.map(|agent| (agent["applied"].clone(), agent["version"].clone(), agent["id"].clone())).collect()
    };
    let team = "[[agents]]\nname = 'Ada'\nmodel = 'demo'\ninstructions = 'be kind'\n\n[[agents]]\nname = 'Bob'\nmodel = 'demo'\n";
    let made = applied(team);
    assert!(made.iter().all(|(what, version, _)| (what, version) == (&json!("created"), &json!(1))), "{made:?}");
    assert!(applied(team).iter().zip(&made).all(|(again, made)| again.0 == "unchanged" && again.2 == made.2));
    let changed = applied(&team.replace("be kind", "be brief"));
    assert_eq!((&changed[0].0, &changed[0].1, &changed[0].2), (&json!("updated"), &json!(2), &made[0].2));
    assert_eq!(changed[1].0, "unchanged");

    let ada = made[0].2.as_str().expect("an id");
    assert_eq!(stack.admin(&["agent", "show", ada])["instructions"], "be brief");
    assert!(stack.operator(&["agent", "show", ada]).stdout.contains("be brief"));
    let listed = stack.operator(&["agent", "list", "first"]).stdout;
    assert!(["Ada", "Bob", "Assistant", ada].iter().all(|text| listed.contains(text)), "{listed}");

    for (text, fault) in [
        ("", "there is no [[agents]]"),
        ("[[agents]]\nname = 'Ada'\n", "model"),
        ("[[agents]]\nname = 'Ada'\nmodel = 'm'\ntemperature = 3.0\n", "line 4"),
        ("[[agents]]\nname = 'Ada'\nmodel = 'm'\nprovider = 'oracle'\n", "unknown provider `oracle`"),
        ("[[agents]]\nname = 'Ada'\nmodel = 'm'\ncolour = 'red'\n", "colour"),
        ("[[agents]]\nname = 'Ada'\nmodel = 'm'\n[[agents]]\nname = 'Ada'\nmodel = 'm'\n", "twice"),
        ("not toml", "line 1"),
    ] {
        let ran = apply(text);
        assert_eq!(ran.code, 4, "{text}: {ran:?}");
        assert!(ran.stderr.contains(fault) && ran.stdout.is_empty(), "{text}: {}", ran.stderr);
    }
    let (_, foreign, _) = stack.another_account("second");
    let theft = apply(&format!("[[agents]]\nid = '{foreign}'\nname = 'Ada'\nmodel = 'm'\n"));
    assert_eq!(theft.code, 4, "{theft:?}");
    assert_eq!(stack.admin(&["agent", "show", ada])["version"], 2, "nothing of a faulty file is applied");

    let unknown = AgentId::new().to_string();
    for (expected, arguments) in [
        (0, &["agent", "remove", ada][..]),
        (2, &["agent", "show", "not-a-uuid"]),
        (3, &["agent", "show", &unknown]),
        (3, &["agent", "remove", &unknown]),
        (3, &["agent", "list", "nobody"]),
        (4, &["agent", "apply", "first", "/no/such/file.toml"]),
    ] {
        assert_eq!(code(&stack, arguments), expected, "{arguments:?}");
    }
    assert!(!stack.operator(&["agent", "list", "first"]).stdout.contains("Ada"));
}

#[rstest]
#[tokio::test]
async fn a28_credits_are_granted_charged_once_and_shown(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_PRICES", "demo=1000000:2000000").start().await;
    let granted = stack.admin(&["credit", "grant", "first", "12.5", "--note", "welcome"]);
    assert_eq!(granted["balance_micro_credits"], 12_500_000);
    let second = stack.make_key("first", "second", &[]);
    assert_eq!(Answer::of(stack.chat("one two three").await).await.status, 200);
    assert_eq!(Answer::of(stack.agent_chat("/tokens 10", json!({ "stream": true })).await).await.status, 200);
    let body = json!({ "employee_id": stack.agent, "prompt": "hello" }).to_string();
    let request = stack.request_at(0, Method::POST, "/api/v1/chat", &second).header("content-type", "application/json");
    assert_eq!(Answer::to(request.body(body)).await.status, 200);

    // Three words in and out; two in, ten out; one in and out: at 1,000 and 2,000 micro-credits a token.
    stack.until_charges(3).await;
    let shown = stack.admin(&["credit", "show", "first", "--ledger", "10"]);
    assert_eq!(shown["balance_micro_credits"], 12_500_000 - 9_000 - 22_000 - 3_000);
    let entries = shown["ledger"].as_array().expect("entries");
    let amounts: Vec<i64> =
        entries.iter().map(|entry| entry["amount_micro_credits"].as_i64().expect("a sum")).collect();
    assert_eq!(amounts.iter().sum::<i64>(), 12_466_000, "the entries add up to the balance: {amounts:?}");
    assert_eq!((amounts.len(), &entries[3]["note"]), (4, &json!("welcome")));
    let readable = stack.operator(&["credit", "show", "first", "--ledger", "10"]).stdout;
    assert!(["12.466", "welcome", "grant", "charge"].iter().all(|text| readable.contains(text)), "{readable}");

    let days = stack.admin(&["usage", "first"]);
    let mut rows: Vec<_> = days.as_array().expect("rows").iter().map(usage_row).collect();
    rows.sort();
    assert_eq!(rows, [("first".to_owned(), 2, 5, 13, 31_000), ("second".to_owned(), 1, 1, 1, 3_000)]);
    assert_eq!(days[0]["agent_name"], "Assistant");
    let readable = stack.operator(&["usage", "first"]).stdout;
    assert!(["Assistant", "second", "0.031"].iter().all(|text| readable.contains(text)), "{readable}");
    assert_eq!(stack.admin(&["usage", "first", "--from", "2020-01-01", "--to", "2020-01-31"]), json!([]));

    for (expected, arguments) in [
        (0, &["credit", "grant", "first", "-0.000001"][..]),
        (2, &["credit", "grant", "first", "1.0000001"]),
        (2, &["credit", "grant", "first", "much"]),
        (2, &["usage", "first", "--from", "2026-02-30"]),
        (3, &["credit", "show", "nobody"]),
        (3, &["usage", "nobody"]),
        (4, &["credit", "grant", "first", "0"]),
        (4, &["usage", "first", "--from", "2026-02-02", "--to", "2026-02-01"]),
    ] {
        assert_eq!(code(&stack, arguments), expected, "{arguments:?}");
    }
}

fn usage_row(row: &Value) -> (String, i64, i64, i64, i64) {
    let number = |name: &str| row[name].as_i64().expect("a number");
    let key = row["key_name"].as_str().expect("a name").to_owned();
    (key, number("messages"), number("input_tokens"), number("output_tokens"), number("micro_credits"))
}

#[rstest]
#[tokio::test]
async fn dead_letters_can_be_listed_and_read(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = Stack::on(database)
        .agent(json!({ "name": "Assistant", "model": "m", "provider": "openai" }))
        .set("FRONTDESK_OPENAI_URL", model.url())
        .set("FRONTDESK_MAX_STARTS", 1)
        .set("FRONTDESK_ACK_WAIT", "1s")
        .start()
        .await;
    assert_eq!(stack.admin(&["dead", "list"]), json!([]));
    let gate = Gate::closed();
    model.script(Behaviour::answer(["half an ", "answer"]).held_after(1, &gate));
    let mut answer = stack.agent_chat("poison", json!({ "stream": true })).await;
    let id = answer.headers()["x-message-id"].to_str().expect("an id").to_owned();
    answer.chunk().await.expect("no break yet").expect("a chunk");
    stack.kill_workers();
    stack.add_worker().await;
    stack.until_charges(1).await;

    let letters = stack.admin(&["dead", "list"]);
    assert_eq!(letters.as_array().expect("letters").len(), 1, "{letters}");
    assert_eq!((&letters[0]["message_id"], &letters[0]["reason"]), (&json!(id), &json!("poisoned")));
    assert!(!letters.to_string().contains("poison\""), "a list keeps the conversation to itself: {letters}");
    let letter = stack.admin(&["dead", "show", &id]);
    assert_eq!(letter["turns"], json!([{ "role": "user", "content": "poison" }]));
    assert!(stack.operator(&["dead", "list"]).stdout.contains(&id));
    assert!(stack.operator(&["dead", "show", &id]).stdout.contains("poison"));
    assert_eq!(code(&stack, &["dead", "show", &MessageId::new().to_string()]), 3);
    assert_eq!(code(&stack, &["dead", "show", "not-a-uuid"]), 2);
    assert_eq!(model.calls().len(), 1, "a poisoned job is not run again");
}

#[rstest]
#[tokio::test]
async fn callbacks_have_a_secret_and_endpoints_are_listed(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(0).workers(0).start().await;
    let shown = stack.admin(&["webhook", "secret", "first"]);
    let secret = shown["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("whsec_") && shown["previous_until"].is_null(), "{shown}");
    assert_eq!(stack.admin(&["webhook", "secret", "first"]), shown);
    let rotated = stack.admin(&["webhook", "secret", "first", "--rotate"]);
    assert!(rotated["secret"] != shown["secret"] && rotated["previous_until"].is_string(), "{rotated}");
    assert_eq!(stack.admin(&["webhook", "secret", "first"]), rotated);
    assert_eq!(stack.admin(&["endpoint", "list", "first"]), json!([]));
    assert_eq!(code(&stack, &["webhook", "secret", "nobody"]), 3);
    assert_eq!(code(&stack, &["endpoint", "list", "nobody"]), 3);
}
