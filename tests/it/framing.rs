//! Heads that two servers could read in two ways: refused, and the connection closed.

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

/// What comes back until the connection is closed.
async fn said(stack: &Stack, request: &str) -> String {
    let mut connection = Connection::to(&stack.url("")).await;
    connection.send(request).await;
    String::from_utf8_lossy(&connection.rest().await).into_owned()
}

#[rstest]
#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_400_and_closes(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let body = chat_body(&stack.agent, &nonce()).to_string();
    let chunked = String::from_utf8(raw::chunked(body.as_bytes(), 9)).expect("text");
    let (length, host) = (format!("Content-Length: {}", body.len()), "Host: a");
    let te = "Transfer-Encoding: chunked";
    let heads: [&[&str]; 12] = [
        &[&length],
        &[host, "Host: b", &length],
        &[host, host, &length],
        &[host, &length, te],
        &[host, te, &length],
        &[host, te, "Content-Length: 0"],
        &[host, te, te],
        &[host, "Transfer-Encoding: gzip, chunked"],
        &[host, "Transfer-Encoding: chunked, chunked"],
        &[host, "Transfer-Encoding: identity", &length],
        &[host, "Transfer-Encoding: xchunked", &length],
        &[host, &length, "Content-Length: 5"],
    ];
    for lines in heads {
        let body = if lines.iter().any(|line| line.starts_with("Transfer")) { &chunked } else { &body };
        // Behind it stands what a smuggler would have somebody else's server run.
        let smuggled = request(&stack, &[host, &length], body);
        let said = said(&stack, &(request(&stack, lines, body) + &smuggled)).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{lines:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{lines:?}: a second request was answered: {said}");
    }
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0);
}

#[rstest]
#[tokio::test]
async fn a_head_that_is_no_http_is_4xx_and_closes(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let host = "Host: a";
    let long = format!("X-Long: {}", "x".repeat(100_000));
    let requests = [
        "hello\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".repeat(10),
        "GET /api/v1/health HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(),
        "GET /api/v1/hea lth HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /api/v1/health HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n".to_owned(),
        "GET /api/v1/health HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n".to_owned(),
        request(&stack, &[host, "Content-Length: -1"], "{}"),
        request(&stack, &[host, "Content-Length: +2"], "{}"),
        request(&stack, &[host, "Content-Length: 2, 2"], "{}"),
        request(&stack, &[host, "Content-Length: two"], "{}"),
        request(&stack, &[host, "Content-Length: 99999999999999999999999"], "{}"),
        request(&stack, &[host, "Transfer-Encoding : chunked"], "2\r\n{}\r\n0\r\n\r\n"),
        request(&stack, &[host, &long], "{}"),
        request(&stack, &[host, &"X: y\r\n".repeat(2_000)], "{}"),
    ];
    for request in requests {
        let said = said(&stack, &request).await;
        let status = said.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{request:.300}: {said}"));
        assert!(status.starts_with('4'), "{request:.300}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{request:.300}: {said}");
    }
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0);
}

#[rstest]
#[tokio::test]
async fn chunks_that_make_no_sense_are_400(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let lines = ["Host: a", "Transfer-Encoding: chunked"];
    for chunks in ["zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n", "fffffffffffffffff\r\n{}"] {
        let answer = raw::exchange(&stack.url(""), request(&stack, &lines, chunks)).await;
        answer.fault(400, "invalid_request");
    }
    // An extension of a chunk, a trailer and any case of the encoding's name are HTTP's own.
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
