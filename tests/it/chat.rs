//! `POST /api/v1/chat`: a prompt goes in, the employee's answer comes out.

use std::{collections::BTreeSet, process::Command, time::Duration};

use common::domain::ids::MessageId;
use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    patience::nonce,
    raw,
    stack::Stack,
};
use tokio::time::Instant;

const CHAT: &str = "/api/v1/chat";

#[rstest]
#[tokio::test]
async fn a01_a_prompt_is_answered_with_the_seeds_fields_and_no_others(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let prompt = nonce();
    let answer = Caller::of(&stack).chat(&stack.agent, &prompt).await;
    let body = answer.ok();
    assert_eq!(answer.members(), BTreeSet::from(["content", "employee_id", "message_id"].map(str::to_owned)));
    assert_eq!(body["employee_id"], stack.agent);
    assert_eq!(body["content"], prompt);
}

#[rstest]
#[tokio::test]
async fn a02_the_call_blocks_until_the_employee_responds(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let (began, prompt) = (Instant::now(), nonce());
    let answer = Caller::of(&stack).chat(&stack.agent, &format!("/sleep 1s\n{prompt}")).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "answered before the employee was done");
    assert_eq!(answer.ok()["content"], prompt);
}

#[rstest]
#[tokio::test]
async fn a04_a05_employee_id_and_prompt_are_required_strings(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    for field in ["employee_id", "prompt"] {
        let mut body = chat_body(&stack.agent, &nonce());
        for wrong in [json!(5), json!(["x"]), json!({}), json!(true), json!(null), json!("")] {
            body[field] = wrong;
            assert_names(&caller.post(CHAT, body.to_string()).await.fault(400, "invalid_request"), field);
        }
        body.as_object_mut().expect("an object").remove(field);
        assert_names(&caller.post(CHAT, body.to_string()).await.fault(400, "invalid_request"), field);
    }
}

fn assert_names(fault: &Value, field: &str) {
    assert!(fault["error"].as_str().expect("a sentence").contains(&format!("`{field}`")), "{fault}");
}

#[rstest]
#[tokio::test]
async fn a06_a_message_has_an_id_of_its_own(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    let exchanges = (0..30).map(async |_| {
        let prompt = nonce();
        let answer = caller.chat(&stack.agent, &prompt).await;
        let body = answer.ok();
        assert_eq!(body["content"], prompt, "somebody else's answer");
        assert_eq!(body["message_id"].as_str(), answer.header("x-message-id"));
        let id: MessageId = body["message_id"].as_str().expect("a string").parse().expect("a UUID");
        assert_eq!(body["message_id"], id.to_string(), "not in the usual form");
        assert_eq!(id.0.get_version_num(), 7);
        id
    });
    let ids: BTreeSet<MessageId> = join_all(exchanges).await.into_iter().collect();
    assert_eq!(ids.len(), 30);
}

#[rstest]
#[tokio::test]
async fn a07_the_employee_that_was_asked_is_the_one_that_responds(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let other = stack.make_agent(&stack.account, &json!({ "name": "Other", "model": "demo", "provider": "demo" }));
    let caller = Caller::of(&stack);
    for (asked, responded) in
        [(&stack.agent, &stack.agent), (&other, &other), (&stack.agent.to_uppercase(), &stack.agent)]
    {
        let prompt = nonce();
        let body = caller.chat(asked, &prompt).await.ok();
        assert_eq!((&body["employee_id"], &body["content"]), (&json!(responded), &json!(prompt)));
    }
}

#[rstest]
#[tokio::test]
async fn a08_the_content_arrives_as_the_employee_wrote_it(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    let texts = [
        "  white space at both ends \t",
        "lines\nand\r\nlines\n\n",
        "\"quotes\", \\backslashes\\ and </script>",
        "Grüße, 你好, مرحبا, 👩‍👩‍👧‍👦, e\u{301}, \u{feff}, \u{2028}, \u{10ffff}",
        "control \u{1}\u{7f}\u{1b}[31m",
        "{\"content\":\"not mine\"}",
    ];
    for text in texts {
        let prompt = format!("{text}{}", nonce());
        assert_eq!(caller.chat(&stack.agent, &prompt).await.ok()["content"], prompt);
    }
}

#[rstest]
#[tokio::test]
async fn a27_both_apis_go_through_the_same_dispatcher_and_pipeline(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let agent = json!({ "name": "Kind", "model": "demo", "provider": "demo", "instructions": "be brief and kind" });
    let stack = Stack::on(database).agent(agent).start().await;
    let (caller, prompt) = (Caller::of(&stack), nonce());
    assert_eq!(caller.chat(&stack.agent, &prompt).await.ok()["content"], prompt);
    let other = caller.agent_chat(&stack.agent, &prompt).await.ok();
    assert_eq!(other["content"], prompt);
    assert_eq!(other["usage"]["inputTokens"], 6, "four words of instructions, two of the prompt");
    let total = |field: &str| -> i64 {
        let rows = stack.admin(&["usage", &stack.account]);
        rows.as_array().expect("rows").iter().filter_map(|row| row[field].as_i64()).sum()
    };
    assert_eq!((total("messages"), total("input_tokens"), total("output_tokens")), (2, 12, 4));
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 2.0);
}

#[rstest]
#[tokio::test]
async fn a32_the_answer_is_never_streamed(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack).with_header("accept", "text/event-stream");
    let prompt = nonce();
    let mut body = chat_body(&stack.agent, &format!("/pace 100ms\n{prompt}"));
    body["stream"] = json!(true);
    let answer = caller.post(CHAT, body.to_string()).await;
    assert_eq!(answer.ok()["content"], prompt);
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.header("transfer-encoding"), None);
}

/// The seed's own call, without a library: as Python's standard library sends it, and byte by byte as curl does.
#[rstest]
#[tokio::test]
async fn a36_plain_clients_suffice(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let prompt = nonce();
    let python = Command::new("python3")
        .args(["-c", PYTHON, &stack.url(CHAT), &stack.key, &stack.agent, &prompt])
        .output()
        .expect("python3");
    assert_eq!(String::from_utf8_lossy(&python.stdout).trim_end(), prompt, "{python:?}");

    let body = chat_body(&stack.agent, &prompt).to_string();
    let lines = [
        &format!("Authorization: Bearer {}", stack.key),
        "User-Agent: curl/8.14.1",
        "Accept: */*",
        "Content-Type: application/json",
        &format!("Content-Length: {}", body.len()),
    ];
    let request = raw::head("POST /api/v1/chat", &lines) + &body;
    assert_eq!(raw::exchange(&stack.url(""), request).await.ok()["content"], prompt);
}

const PYTHON: &str = r#"
import json, sys, urllib.request
url, key, employee, prompt = sys.argv[1:]
body = json.dumps({"employee_id": employee, "prompt": prompt}).encode()
request = urllib.request.Request(url, body, {"Authorization": "Bearer " + key, "Content-Type": "application/json"})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(json.load(opener.open(request))["content"])
"#;
