//! How large and how slow a body may be.

use rstest::rstest;
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    patience::nonce,
    raw::{self, Connection},
    stack::Stack,
};

const LIMIT: usize = 65_536;
const CHAT: &str = "POST /api/v1/chat";

/// A chat of exactly `length` bytes, and its prompt.
fn chat_of(stack: &Stack, length: usize) -> (String, String) {
    let start = format!("{} ", nonce());
    let rest = length - chat_body(&stack.agent, &start).to_string().len();
    let prompt = start + &"x".repeat(rest);
    let body = chat_body(&stack.agent, &prompt).to_string();
    assert_eq!(body.len(), length);
    (body, prompt)
}

/// A request's head with the first key.
fn head(stack: &Stack, length: &str) -> Vec<u8> {
    let key = format!("Authorization: Bearer {}", stack.key);
    raw::head(CHAT, &[&key, "Content-Type: application/json", length]).into_bytes()
}

#[rstest]
#[tokio::test]
async fn a15_65536_bytes_pass_and_65537_are_413(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    let (body, prompt) = chat_of(&stack, LIMIT);
    assert_eq!(caller.post("/api/v1/chat", body.clone()).await.ok()["content"], prompt);
    assert_eq!(caller.post("/api/agents/chat", " ".repeat(LIMIT)).await.status, 400);

    let (larger, _) = chat_of(&stack, LIMIT + 1);
    for too_large in [larger, format!("{body} "), "x".repeat(LIMIT + 1), "x".repeat(5_000_000)] {
        caller.post("/api/v1/chat", too_large.clone()).await.fault(413, "body_too_large");
        caller.post("/api/agents/chat", too_large).await.fault(413, "body_too_large");
    }
}

#[rstest]
#[tokio::test]
async fn a15_the_limit_is_the_same_without_a_content_length(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    for size in [700, 65_536, 100_000] {
        let (body, prompt) = chat_of(&stack, LIMIT);
        let request = [head(&stack, "Transfer-Encoding: chunked"), raw::chunked(body.as_bytes(), size)].concat();
        assert_eq!(raw::exchange(&stack.url(""), request).await.ok()["content"], prompt);

        let (body, _) = chat_of(&stack, LIMIT + 1);
        let request = [head(&stack, "Transfer-Encoding: chunked"), raw::chunked(body.as_bytes(), size)].concat();
        raw::exchange(&stack.url(""), request).await.fault(413, "body_too_large");
    }
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 3.0);
}

/// Not a byte of the body is ever sent: only a gateway that does not wait for it can answer.
#[rstest]
#[tokio::test]
async fn a15_a_larger_declared_length_is_refused_unread(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    for length in ["65537", "10000000000", "9223372036854775808"] {
        let head = head(&stack, &format!("Content-Length: {length}"));
        raw::exchange(&stack.url(""), head).await.fault(413, "body_too_large");
    }
    // Whoever waits for leave to send gets the refusal instead.
    let head = head(&stack, "Content-Length: 10000000000\r\nExpect: 100-continue");
    raw::exchange(&stack.url(""), head).await.fault(413, "body_too_large");
}

/// An endless body is cut off soon after its 65,537th byte.
#[rstest]
#[tokio::test]
async fn a15_an_endless_body_is_refused_and_cut_off(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let mut connection = Connection::to(&stack.url("")).await;
    connection.send(head(&stack, "Transfer-Encoding: chunked")).await;
    let chunk = raw::chunked(&[b'x'; 10_000], 10_000);
    for _ in 0..7 {
        connection.send(&chunk[..chunk.len() - 5]).await;
    }
    connection.answer().await.fault(413, "body_too_large");
    assert!(connection.rest().await.is_empty(), "it went on");
}

#[rstest]
#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_408_and_one_that_breaks_off_is_not_run(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_BODY_TIMEOUT", "1s").start().await;
    let (body, _) = chat_of(&stack, 500);
    let begun = [head(&stack, "Content-Length: 500"), body.as_bytes()[..400].to_vec()].concat();
    raw::exchange(&stack.url(""), &begun).await.fault(408, "body_timeout");

    let mut connection = Connection::to(&stack.url("")).await;
    connection.send(&begun).await.finish().await;
    let said = String::from_utf8_lossy(&connection.rest().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0);
    let prompt = nonce();
    assert_eq!(Caller::of(&stack).chat(&stack.agent, &prompt).await.ok()["content"], prompt);
}
