//! What stands in an answer's headers, and the two shapes of an error.

use common::domain::ids::RequestId;
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::{answer::Answer, caller::Caller, database::Database, patience::nonce, stack::Stack};

#[rstest]
#[tokio::test]
async fn an_answer_names_its_message_and_says_how_long_it_took(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    let prompt = format!("/sleep 300ms\n{}", nonce());
    for answer in [caller.chat(&stack.agent, &prompt).await, caller.agent_chat(&stack.agent, &prompt).await] {
        answer.ok();
        let id = answer.header("x-message-id").expect("an id");
        assert_eq!(answer.header("location"), Some(format!("/api/v1/messages/{id}").as_str()));
        let timing = answer.header("server-timing").expect("a timing");
        let (queue, run) = timing.split_once(", ").expect("two of them");
        queue.strip_prefix("queue;dur=").expect("the queue's").parse::<f64>().expect("milliseconds");
        let run: f64 = run.strip_prefix("run;dur=").expect("the run's").parse().expect("milliseconds");
        assert!(run >= 299.0, "{timing}");
    }
    let failed = caller.chat(&stack.agent, "/fail 401").await;
    let fault = failed.fault(502, "agent_failed");
    assert_eq!(fault["message_id"].as_str(), failed.header("x-message-id"));
    assert_eq!(fault["accepted"], true);
}

#[rstest]
#[tokio::test]
async fn a_request_keeps_its_callers_id_if_that_is_fit_for_a_log(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    let mine = nonce().replace(' ', "-");
    let answer = caller.with_header("x-request-id", &mine).chat(&stack.agent, &nonce()).await;
    answer.ok();
    assert_eq!(answer.header("x-request-id"), Some(mine.as_str()));
    let refused = caller.with_header("x-request-id", &mine).without_key().get("/api/v1/health").await;
    assert_eq!(refused.fault(401, "unauthorized")["request_id"], mine);
    assert!(stack.logs().contains(&mine), "the request cannot be found in the logs");

    let longest = "x".repeat(129);
    for unfit in ["", "two words", "tab\there", &longest] {
        let answer = caller.with_header("x-request-id", unfit).get("/api/v1/health").await;
        answer.header("x-request-id").expect("an id").parse::<RequestId>().expect("one of ours");
    }
}

#[rstest]
#[tokio::test]
async fn errors_have_the_shape_of_rfc_9457_for_who_asks_for_it(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_DEADLINE", "500ms").start().await;
    let caller = Caller::of(&stack).with_header("accept", "application/problem+json, application/json");
    let answers = [
        (400, "invalid_request", caller.post("/api/v1/chat", "{}").await),
        (401, "unauthorized", caller.without_key().get("/api/v1/health").await),
        (404, "not_found", caller.get("/api/v1/nothing").await),
        (404, "agent_not_found", caller.chat("0190b5a0-0000-7000-8000-000000000000", &nonce()).await),
        (405, "method_not_allowed", caller.get("/api/v1/chat").await),
        (413, "body_too_large", caller.post("/api/v1/chat", "x".repeat(65_537)).await),
        (504, "timeout", caller.chat(&stack.agent, "/sleep 20s").await),
    ];
    for (status, code, answer) in answers {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
        let body = answer.json();
        assert_eq!((answer.status, &body["status"], &body["code"]), (status, &json!(status), &json!(code)));
        assert!(body["title"].is_string() && body["detail"].is_string(), "{answer}");
        assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
        assert_eq!(body["message_id"].as_str(), answer.header("x-message-id"));
        if code == "timeout" {
            assert_eq!((&body["accepted"], &body["message_status"]), (&json!(true), &json!("in_progress")));
        }
    }
}

#[rstest]
#[tokio::test]
async fn what_is_not_there_is_said_in_the_same_shape(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).start().await;
    let caller = Caller::of(&stack);
    for path in ["/", "/api", "/api/v1/", "/api/v1/chat/", "/api/v1/chat/x", "/api/v1/%2e%2e/chat", "//api/v1/chat"] {
        caller.get(path).await.fault(404, "not_found");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH, Method::from_bytes(b"BREW").expect("tea")] {
        let answer = caller.request(method.clone(), "/api/v1/chat").send().await.expect("an answer");
        let answer = Answer::of(answer).await;
        answer.fault(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
    }
}
