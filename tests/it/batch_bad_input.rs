//! Bodies of batches that make no sense: each is refused with the numbers of its lines, and nothing of it runs.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    batch::{BATCHES, LINES, body, counts, ended, id_of, line, results_by_id, submission, submit},
    caller::Caller,
    database::Database,
    raw::{self, Connection},
    stack::Stack,
};

/// The numbers and sentences of the lines that were refused.
fn refused(answer: &Answer) -> Vec<(u64, String)> {
    let fault = answer.fault(422, "invalid_lines");
    let lines = fault["invalid_lines"].as_array().expect("lines");
    let named = lines
        .iter()
        .map(|line| (line["line"].as_u64().expect("a number"), line["error"].as_str().expect("a sentence").to_owned()));
    named.collect()
}

/// Nothing was accepted, and nobody finds a batch.
async fn nothing_is_there(stack: &Stack) {
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0);
    assert_eq!(Answer::of(stack.get(BATCHES).await).await.ok()["batches"], json!([]));
    assert_eq!(Answer::of(stack.get("/api/v1/messages").await).await.ok()["messages"], json!([]));
}

#[rstest]
#[tokio::test]
async fn every_bad_line_is_named_by_its_number(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let agent = &stack.agent;
    let forbidden = stack.make_agent(&stack.account, &json!({ "name": "Other", "model": "demo", "provider": "demo" }));
    let limited = stack.make_key(&stack.account, "limited", &[agent]);
    let (_, foreign, _) = stack.another_account("second");
    let nobody = "0190b5a0-0000-7000-8000-000000000000";
    let too_long = line("long", agent, &"x".repeat(65_536));
    let lines: Vec<(String, &str)> = vec![
        (line("a", agent, "good"), ""),
        (String::new(), ""),
        ("{\"custom_id\":".to_owned(), "the line is not usable JSON: EOF while parsing a value at column 13"),
        (line("a", agent, "twice"), "`custom_id` is that of line 1 too"),
        (json!({ "employee_id": agent, "prompt": "hi" }).to_string(), "`custom_id` is missing"),
        (line("", agent, "hi"), "`custom_id` must not be empty"),
        (line(&"x".repeat(256), agent, "hi"), "`custom_id` is longer than 255 characters"),
        (line("b", nobody, "hi"), "there is no such agent in this account"),
        (line("c", &foreign, "hi"), "there is no such agent in this account"),
        (line("d", &forbidden, "hi"), "this API key has no access to that agent"),
        (line("e", "Assistant", "hi"), "`employee_id` is not a UUID"),
        (line("f", agent, " "), "`prompt` must not be empty"),
        (line("g", agent, "a\0b"), "`prompt` holds the character U+0000, which cannot be stored"),
        (too_long, "the line is longer than 65536 bytes"),
        ("[1]".to_owned(), "the line has to be a JSON object, not a list"),
        (
            json!({ "custom_id": "h", "method": "POST", "url": "/v1/embeddings", "body": {} }).to_string(),
            "`url` has to be /api/v1/chat, /api/agents/chat or /v1/chat/completions",
        ),
        (
            json!({ "custom_id": "i", "method": "POST", "url": "/v1/chat/completions",
            "body": { "model": "Nobody", "messages": [{ "role": "user", "content": "hi" }] } })
            .to_string(),
            "there is no such agent in this account",
        ),
        (
            json!({ "custom_id": "j", "employee_id": agent, "prompt": "hi", "callback_url": "https://example.com" })
                .to_string(),
            "`callback_url` is not for lines of a batch; a webhook endpoint is told of their ends",
        ),
        (line("z", agent, "good too"), ""),
    ];
    let body: String = lines.iter().map(|(line, _)| format!("{line}\r\n")).collect();
    let wanted: Vec<_> = (1..)
        .zip(&lines)
        .filter(|(_, (_, error))| !error.is_empty())
        .map(|(n, (_, error))| (n, (*error).to_owned()))
        .collect();
    let ask = async |query: &str| {
        let request = stack.request_at(0, Method::POST, &format!("{BATCHES}{query}"), &limited);
        Answer::to(request.header("content-type", LINES).body(body.clone())).await
    };
    for query in ["", "?on_invalid=fail"] {
        let answer = ask(query).await;
        assert_eq!(refused(&answer), wanted);
        assert_eq!(answer.json()["invalid_count"], json!(wanted.len()));
    }
    nothing_is_there(&stack).await;

    let rest = ask("?on_invalid=skip").await;
    assert_eq!((rest.status, &rest.json()["skipped"]), (202, &json!(wanted.len())), "{rest}");
    let id = id_of(&rest);
    assert_eq!(counts(&ended(&stack, &id).await), [2, 2, 0, 0]);
    assert_eq!(results_by_id(&stack, &id).await.keys().collect::<Vec<_>>(), ["a", "z"]);
}

#[rstest]
#[tokio::test]
async fn a_hundred_bad_lines_are_named_and_all_are_counted(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).start().await;
    let bad = format!("{{}}\n{}", "no\n".repeat(499));
    let answer = submit(&stack, bad.clone()).await;
    let lines = refused(&answer);
    assert_eq!((answer.json()["invalid_count"].clone(), lines.len(), lines[99].0), (json!(500), 100, 100));
    // There is nothing left to be accepted.
    let request = stack.request(Method::POST, &format!("{BATCHES}?on_invalid=skip")).header("content-type", LINES);
    assert_eq!(refused(&Answer::to(request.body(bad)).await).len(), 100);
    for empty in ["", "\n", "\r\n \t\n", "\u{feff}"] {
        let fault = submit(&stack, empty).await.fault(400, "invalid_request");
        assert_eq!(fault["error"], "the body is empty; lines of JSON objects are needed", "{empty:?}");
    }
    let caller = Caller::of(&stack);
    let lines = body(&stack.agent, 1);
    for media_type in ["application/json", "text/plain", "application/x-ndjson-not"] {
        let request = stack.request(Method::POST, BATCHES).header("content-type", media_type);
        Answer::to(request.body(lines.clone())).await.fault(400, "invalid_request");
    }
    caller.post(&format!("{BATCHES}?on_invalid=maybe"), lines.clone()).await.fault(400, "invalid_request");
    let no_key = caller.without_key().request(Method::POST, BATCHES).header("content-type", LINES);
    Answer::to(no_key.body(lines.clone())).await.fault(401, "unauthorized");
    stack.admin(&["channel", "off", &stack.account, "api"]);
    submit(&stack, lines).await.fault(403, "channel_disabled");
    stack.admin(&["channel", "on", &stack.account, "api"]);
    nothing_is_there(&stack).await;
}

#[rstest]
#[tokio::test]
async fn a_batch_has_50000_lines_at_most(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).workers(0).start().await;
    let just_as_many = "no\n".repeat(50_000);
    // The last line is one too many, whatever it is.
    submit(&stack, format!("{just_as_many}no")).await.fault(413, "batch_too_large");
    assert_eq!(submit(&stack, just_as_many).await.fault(422, "invalid_lines")["invalid_count"], 50_000);
    nothing_is_there(&stack).await;
}

fn head(stack: &Stack, length: &str) -> String {
    let key = format!("Authorization: Bearer {}", stack.key);
    raw::head(&format!("POST {BATCHES}"), &[&key, &format!("Content-Type: {LINES}"), length])
}

#[rstest]
#[tokio::test]
async fn a_body_has_200_mb_at_most_declared_or_not(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).workers(0).start().await;
    for length in ["200000001", "201000000", "10000000000"] {
        let head = head(&stack, &format!("Content-Length: {length}"));
        raw::exchange(&stack.url(""), head).await.fault(413, "batch_too_large");
    }
    // Blank lines are no requests, but they are bytes.
    let mut connection = Connection::to(&stack.url("")).await;
    connection.send(head(&stack, "Transfer-Encoding: chunked")).await;
    let chunk = raw::chunked(&vec![b'\n'; 1_000_000], 1_000_000);
    for _ in 0..201 {
        connection.send(&chunk[..chunk.len() - 5]).await;
    }
    connection.answer().await.fault(413, "batch_too_large");
    nothing_is_there(&stack).await;
}

#[rstest]
#[tokio::test]
async fn a_body_that_breaks_off_or_does_not_come_leaves_nothing(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_BODY_TIMEOUT", "1s").start().await;
    let whole = body(&stack.agent, 1_000);
    let half = &whole[..whole.len() / 2];
    let declared = head(&stack, &format!("Content-Length: {}", whole.len()));
    raw::exchange(&stack.url(""), format!("{declared}{half}")).await.fault(408, "body_timeout");

    let chunked = raw::chunked(half.as_bytes(), 5_000);
    let unended = String::from_utf8_lossy(&chunked[..chunked.len() - 5]).into_owned();
    for (head, sent) in [(declared, half.to_owned()), (head(&stack, "Transfer-Encoding: chunked"), unended)] {
        let mut connection = Connection::to(&stack.url("")).await;
        connection.send(head + &sent).await.finish().await;
        let said = String::from_utf8_lossy(&connection.rest().await).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    nothing_is_there(&stack).await;
    // A body without a last line end is whole.
    let id = id_of(&Answer::to(submission(&stack, 0, whole.trim_end().to_owned())).await);
    assert_eq!(counts(&ended(&stack, &id).await), [1_000, 1_000, 0, 0]);
    let _: Value = Answer::of(stack.get(&format!("{BATCHES}/{id}")).await).await.ok();
}
