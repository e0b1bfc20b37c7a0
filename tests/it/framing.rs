//! Where requests end on a connection. Those that could be read in two ways are in `security/smuggling.rs`.

use rstest::rstest;
use serde_json::json;
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    patience::nonce,
    raw::{self, Connection},
    stack::Stack,
};

/// A request with these lines in its head and this body.
fn request(stack: &Stack, lines: &[&str], body: &str) -> String {
    let head = format!("POST /api/v1/chat HTTP/1.1\r\nAuthorization: Bearer {}\r\n", stack.key);
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{head}Content-Type: application/json\r\n{lines}\r\n{body}")
}

#[rstest]
#[tokio::test]
async fn an_extension_of_a_chunk_a_trailer_and_any_case_are_https_own(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let prompt = nonce();
    let body = chat_body(&stack.agent, &prompt).to_string();
    let chunks = format!("{:x};name=value\r\n{body}\r\n0\r\nX-Trailer: x\r\n\r\n", body.len());
    let request = request(&stack, &["Host: a", "transfer-encoding: Chunked"], &chunks);
    assert_eq!(raw::exchange(&stack.url(""), request).await.ok()["content"], prompt);
}

/// What of the body is still on its way would be taken for the next request: the connection ends, and a client that
/// was not told would send its next request into the void.
#[rstest]
#[tokio::test]
async fn an_answer_before_the_bodys_end_closes_and_says_so(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).start().await;
    let large = "x".repeat(70_000);
    let length = format!("Content-Length: {}", large.len());
    let requests = [
        (413, request(&stack, &["Host: a", &length], &large)),
        (401, request(&stack, &["Host: a", &length], &large).replace(&stack.key, "sk-wrong")),
        (404, request(&stack, &["Host: a", &length], &large).replace("/api/v1/chat", "/nothing")),
        (405, request(&stack, &["Host: a", &length], &large).replace("POST", "PUT")),
        (401, request(&stack, &["Host: a", "Content-Length: 9"], "").replace(&stack.key, "sk-wrong")),
    ];
    for (status, request) in requests {
        let mut connection = Connection::to(&stack.url("")).await;
        connection.send(&request).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, status, "{answer}");
        assert_eq!(answer.header("connection"), Some("close"), "{answer}");
        assert!(connection.rest().await.is_empty());
    }
    // A body that was read does no such harm.
    let mut connection = Connection::to(&stack.url("")).await;
    for _ in 0..3 {
        connection.send(request(&stack, &["Host: a", "Content-Length: 2"], "{}")).await;
        let answer = connection.answer().await;
        answer.fault(400, "invalid_request");
        assert_eq!(answer.header("connection"), None);
    }
}

#[rstest]
#[tokio::test]
async fn a_connection_is_kept_for_the_next_request_and_pipelined_ones_are_answered_in_order(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let prompts = [nonce(), nonce(), nonce()];
    let all: String = prompts
        .iter()
        .map(|prompt| {
            let body = chat_body(&stack.agent, prompt).to_string();
            request(&stack, &["Host: a", &format!("Content-Length: {}", body.len())], &body)
        })
        .collect();
    let mut connection = Connection::to(&stack.url("")).await;
    connection.send(&all).await;
    for prompt in &prompts {
        assert_eq!(connection.answer().await.ok()["content"], *prompt);
    }
    connection.send(&all[..all.len() / 3]).await;
    assert_eq!(connection.answer().await.ok()["content"], prompts[0]);
}

#[rstest]
#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).set("FRONTDESK_HEADER_TIMEOUT", "1s").start().await;
    for begun in ["", "G", "GET /api/v1/health HTTP/1.1\r\nHost: a\r\n"] {
        let mut connection = Connection::to(&stack.url("")).await;
        connection.send(begun).await;
        let said = String::from_utf8_lossy(&connection.rest().await).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{begun:?}: {said}");
    }
    assert_eq!(Caller::of(&stack).get("/api/v1/health").await.ok(), json!({ "status": "ok" }));
}
