//! Everything that a provider can do wrong, and what it is called.

use std::time::Duration;

use serde_json::json;
use tests::model::{Behaviour, Ending, ModelServer};
use tokio::{net::TcpListener, time::Instant};
use worker::providers::provider::ErrorKind::{self, *};

use crate::support::{KEY, ask, ask_one_that, openai};

async fn expect(name: &str, behaviour: Behaviour, said: &str, kind: ErrorKind, status: Option<u16>) {
    let (texts, end) = ask_one_that(behaviour).await;
    assert_eq!(texts.concat(), said, "{name}");
    let error = end.err().unwrap_or_else(|| panic!("{name}: no failure"));
    assert_eq!((error.kind, error.status), (kind, status), "{name}: {error:?}");
    let shown = format!("{error} {error:?}");
    for hidden in [KEY, "sk-quoted", "secret prompt", "quoted", "half an answer"] {
        assert!(!shown.contains(hidden), "{name} shows `{hidden}`: {shown}");
    }
}

#[tokio::test]
async fn refusals_have_their_kinds() {
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let llama = json!({"error": {"code": 400, "type": "exceed_context_size_error",
        "message": "the request exceeds the available context size, try increasing it"}});
    let moved = Behaviour::page(307, "text/html", "moved").with_header("location", "http://127.0.0.1:1/");
    for (name, behaviour, kind, status) in [
        ("429", Behaviour::rate_limited(None), RateLimited, 429),
        ("quota", Behaviour::quota(), Quota, 429),
        ("401", Behaviour::wrong_key(), Auth, 401),
        ("context length", Behaviour::context_length(), ContextLength, 400),
        ("llama.cpp's context length", Behaviour::json(400, &llama), ContextLength, 400),
        ("400", Behaviour::bad_request(), BadRequest, 400),
        ("404", Behaviour::json(404, &json!({"error": "model not found"})), BadRequest, 404),
        ("503", Behaviour::unavailable(), Unavailable, 503),
        ("529", Behaviour::json(529, &overloaded), Unavailable, 529),
        ("502 with a page", Behaviour::web_page(502), Unavailable, 502),
        ("an empty 500", Behaviour::page(500, "text/plain", ""), Unavailable, 500),
        ("a redirect", moved, Protocol, 307),
    ] {
        expect(name, behaviour, "", kind, Some(status)).await;
    }
}

#[tokio::test]
async fn broken_answers_have_their_kinds() {
    let half = || Behaviour::answer(["half an ", "answer"]);
    let overloaded = json!({"error": {"code": 503, "message": "half an answer"}});
    let slow_down = json!({"error": {"code": "429", "message": "slow down"}});
    for (name, behaviour, said, kind, status) in [
        ("silence before the head", Behaviour::hang_before_head(), "", Timeout, None),
        ("silence after the head", Behaviour::hang_after_head(), "", Timeout, None),
        ("silence in the middle", half().ending(Ending::Hang), "half an answer", Timeout, None),
        ("cut in the middle", half().ending(Ending::Cut), "half an answer", Truncated, None),
        ("no finish mark", half().marks(false, false), "half an answer", Truncated, None),
        ("no body at all", Behaviour::page(200, "text/event-stream", ""), "", Truncated, None),
        ("an error in the middle", half().ending(Ending::Error(overloaded)), "half an answer", Unavailable, Some(503)),
        ("a limit in the middle", half().ending(Ending::Error(slow_down)), "half an answer", RateLimited, Some(429)),
        ("an error event", sse("event: error\ndata: {\"message\":\"boom\"}\n\n"), "", Protocol, None),
        (
            "a finish for an error",
            sse("data: {\"choices\":[{\"finish_reason\":\"error\"}]}\n\n"),
            "",
            Unavailable,
            None,
        ),
        ("a page with a good status", Behaviour::web_page(200), "", Protocol, None),
        ("no JSON in an event", sse("data: half an answer\n\n"), "", Protocol, None),
        ("other JSON in an event", sse("data: 17\n\n"), "", Protocol, None),
        ("text", Behaviour::page(200, "text/plain", "half an answer"), "", Truncated, None),
        ("bytes", Behaviour::page(200, "text/event-stream", [0, 159, 146, 150, 10, 255, 10, 10]), "", Truncated, None),
        ("half a plain completion", Behaviour::json_text("{\"choices\":[{\"mess"), "", Truncated, None),
        ("a plain completion of nothing", Behaviour::json_text("{\"object\":\"list\"}"), "", Protocol, None),
        ("an error with a good status", Behaviour::json_text("{\"error\":{\"code\":503}}"), "", Unavailable, Some(503)),
        ("a closed connection", Behaviour::raw(""), "", Connect, None),
        ("no HTTP", Behaviour::raw("SSH-2.0-OpenSSH\r\n"), "", Connect, None),
    ] {
        expect(name, behaviour, said, kind, status).await;
    }
}

#[tokio::test]
async fn an_endless_answer_is_given_up() {
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(1 << 20));
    let (said, end) = ask_one_that(sse(&event.repeat(10))).await;
    assert_eq!(end.expect_err("too large").kind, Protocol);
    assert_eq!(said.concat().len(), 8 << 20, "what fits had left");

    expect("an endless line", sse(&"x".repeat(9 << 20)), "", Protocol, None).await;
    let document = format!("{{\"choices\":[{}", " ".repeat(9 << 20));
    expect("an endless document", Behaviour::json_text(&document), "", Protocol, None).await;
}

#[tokio::test]
async fn a_delay_is_understood_as_seconds_and_as_a_date() {
    for (value, most) in [("3", 3), ("0.5", 1), ("Thu, 01 Jan 2099 00:00:00 GMT", 3_600)] {
        let (_, end) = ask_one_that(Behaviour::rate_limited(Some(value))).await;
        let wait = end.expect_err("refused").retry_after.unwrap_or_else(|| panic!("{value}: no delay"));
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(most), "{value}: {wait:?}");
    }
    let (_, end) = ask_one_that(Behaviour::unavailable().with_header("retry-after", "2")).await;
    assert_eq!(end.expect_err("refused").retry_after, Some(Duration::from_secs(2)));
    let (_, end) = ask_one_that(Behaviour::wrong_key().with_header("retry-after", "2")).await;
    assert_eq!(end.expect_err("refused").retry_after, None, "waiting does not mend a key");
}

#[tokio::test]
async fn nobody_there_is_no_connection() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port").local_addr().expect("its number");
    let (_, end) = ask(&openai(&format!("http://{free}/v1"))).await;
    assert_eq!(end.expect_err("nobody there").kind, Connect);
    let (_, end) = ask(&openai("http://no-such-host.invalid/v1")).await;
    assert_eq!(end.expect_err("no such host").kind, Connect);
}

#[tokio::test]
async fn a_refusal_is_told_even_when_its_page_never_ends() {
    let head = "HTTP/1.1 503 Busy\r\ncontent-length: 1000\r\n\r\n{\"error\":";
    let began = Instant::now();
    expect("a cut page", Behaviour::raw(head), "", Unavailable, Some(503)).await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_connection_that_died_between_calls_is_no_failure() {
    let server = ModelServer::start().await.expect("a model server");
    let provider = openai(&server.url());
    let body = "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
    let closing = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for _ in 0..5 {
        server.script(Behaviour::raw(closing.clone()));
        ask(&provider).await.1.expect("a good answer before the connection is closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask(&provider).await.1.expect("a new connection");
}

fn sse(body: &str) -> Behaviour {
    Behaviour::page(200, "text/event-stream", body)
}
