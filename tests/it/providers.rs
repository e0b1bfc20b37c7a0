//! A model provider that answers badly, slowly or oddly, and what a caller of either API sees of it.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    database::Database,
    model::{Behaviour, Ending, ModelServer},
    stack::{Builder, Stack},
};

/// The most calls that one job makes: the default of `FRONTDESK_MODEL_TRIES`.
const TRIES: usize = 3;

/// A stack whose agent is answered by `model`, and that is soon tired of waiting for it.
fn scripted(database: Database, model: &ModelServer) -> Builder {
    Stack::on(database)
        .agent(json!({ "name": "Assistant", "model": "m", "provider": "openai", "instructions": "be kind" }))
        .set("FRONTDESK_OPENAI_URL", model.url())
        .set("FRONTDESK_MODEL_FIRST_BYTE_TIMEOUT", "400ms")
        .set("FRONTDESK_MODEL_IDLE_TIMEOUT", "400ms")
        .set("FRONTDESK_KEY_LIMIT", 10_000)
}

/// Both APIs say that the agent failed, each in its own way; returns how often the model was called by each of them.
async fn fails(stack: &Stack, model: &ModelServer, what: &str, behaviour: Behaviour, sentence: &str) -> Vec<usize> {
    model.always(behaviour);
    let mut calls = Vec::new();
    for (status, path) in [(502, "/api/v1/chat"), (500, "/api/agents/chat"), (500, "/api/agents/chat?stream")] {
        let before = model.calls().len();
        let response = match path {
            "/api/v1/chat" => stack.chat("a private prompt").await,
            _ => stack.agent_chat("a private prompt", json!({ "stream": path.ends_with("stream") })).await,
        };
        let answer = Answer::of(response).await;
        answer.fault(status, "agent_failed");
        let body = answer.json();
        let said = body["error"].as_str().expect("a sentence");
        assert!(said.contains(sentence), "{what}, {path}: {said}");
        assert!(!answer.text().contains("private prompt") && !answer.text().contains("sk-quoted"), "{what}: {said}");
        assert_eq!(body["message_id"].as_str(), answer.header("x-message-id"), "{what}, {path}");
        assert_eq!(body["accepted"], true, "{what}, {path}");
        calls.push(model.calls().len() - before);
    }
    calls
}

fn overloaded() -> Value {
    json!({ "error": { "message": "a private prompt", "type": "server_error", "code": 503 } })
}

#[rstest]
#[tokio::test]
async fn what_cannot_pass_is_told_after_one_call(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    for (what, behaviour, sentence) in [
        ("quota", Behaviour::quota(), "quota"),
        ("a wrong key", Behaviour::wrong_key(), "credentials"),
        ("context length", Behaviour::context_length(), "does not fit the model"),
        ("a bad request", Behaviour::bad_request(), "could not use the request"),
        ("a page instead of JSON", Behaviour::web_page(200), "made no sense"),
    ] {
        assert_eq!(fails(&stack, &model, what, behaviour, sentence).await, [1; 3], "{what}");
    }
    assert!(stack.charges().iter().all(|entry| entry["output_tokens"] == 0), "nothing was made, nothing is counted");
}

#[rstest]
#[tokio::test]
async fn what_may_pass_is_tried_three_times(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    for (what, behaviour, sentence) in [
        ("429", Behaviour::rate_limited(None), "slow down"),
        ("503 with a number for a code", Behaviour::unavailable(), "cannot serve now"),
        ("an HTML page of a proxy", Behaviour::web_page(502), "cannot serve now"),
        ("a closed connection", Behaviour::raw(""), "could not be reached"),
        ("silence", Behaviour::hang_before_head(), "silent for too long"),
    ] {
        assert_eq!(fails(&stack, &model, what, behaviour, sentence).await, [TRIES; 3], "{what}");
    }
}

#[rstest]
#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let half = || Behaviour::answer(["half an ", "answer"]);
    for (what, behaviour, sentence) in [
        ("a cut in mid-stream", half().ending(Ending::Cut), "broke off"),
        ("an error event in mid-stream", half().ending(Ending::Error(overloaded())), "cannot serve now"),
        ("no finish mark", half().marks(false, false), "broke off"),
        ("silence in mid-stream", half().ending(Ending::Hang), "silent for too long"),
    ] {
        model.always(behaviour);
        let before = model.calls().len();
        let answer = Answer::of(stack.chat("a private prompt").await).await;
        answer.fault(502, "agent_failed");
        assert!(answer.json()["error"].as_str().expect("a sentence").contains(sentence), "{what}: {}", answer.text());
        assert_eq!(model.calls().len() - before, TRIES, "{what}");
        let answer = Answer::of(stack.agent_chat("a private prompt", json!({})).await).await;
        answer.fault(500, "agent_failed");
    }
    // "be kind" and "a private prompt" are 23 bytes, "half an answer" 14: 6 and 4 tokens in each of three calls.
    let charges = stack.charges();
    assert_eq!(charges.len(), 8);
    for entry in charges {
        let used = (&entry["input_tokens"], &entry["output_tokens"], &entry["estimated"]);
        assert_eq!(used, (&json!(18), &json!(12), &json!(true)), "{entry}");
    }
}

#[rstest]
#[tokio::test]
async fn a_second_or_third_try_answers(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let half = || Behaviour::answer(["half an ", "answer"]);
    for passing in [
        Behaviour::rate_limited(None),
        Behaviour::rate_limited(Some("0")),
        Behaviour::unavailable(),
        Behaviour::web_page(502),
        Behaviour::raw(""),
        half().ending(Ending::Cut),
        half().ending(Ending::Error(overloaded())),
        half().marks(false, false),
    ] {
        let before = model.calls().len();
        model.script(passing.clone());
        model.script(passing.clone());
        model.script(Behaviour::answer(["a whole ", "one"]));
        let answer = Answer::of(stack.chat("go on").await).await;
        assert_eq!(answer.status, 200, "{passing:?}: {}", answer.text());
        assert_eq!(answer.json()["content"], "a whole one", "{passing:?}");
        assert_eq!(model.calls().len() - before, TRIES, "{passing:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a_pause_that_the_provider_asks_for_is_kept(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).set("FRONTDESK_DEADLINE", "20s").start().await;
    // A short one is sat out; a longer one is spent on the queue; one beyond the caller's time is not begun.
    for seconds in [1, 6] {
        let before = model.calls().len();
        model.script(Behaviour::rate_limited(Some(&seconds.to_string())));
        let answer = Answer::of(stack.chat("go on").await).await;
        assert_eq!((answer.status, &answer.json()["content"]), (200, &json!("go on")), "{}", answer.text());
        let calls = &model.calls()[before..];
        assert_eq!(calls.len(), 2);
        assert!(calls[1].at - calls[0].at >= Duration::from_secs(seconds), "it was called again too early");
    }
    let before = model.calls().len();
    model.script(Behaviour::rate_limited(Some("3600")));
    let answer = Answer::of(stack.chat("go on").await).await;
    answer.fault(502, "agent_failed");
    assert_eq!((model.calls().len() - before, &answer.json()["retryable"]), (1, &json!(true)));
}

#[rstest]
#[tokio::test]
async fn b12_usage_is_the_providers_own_or_an_estimate(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let usage = |input: u32, output: u32| json!({ "inputTokens": input, "outputTokens": output, "totalTokens": input + output });
    let reported = Behaviour::answer(["12345"]).usage(Some((241, 73)));
    // "be kind" and "hello" are 12 bytes, "12345" is 5: three and two tokens.
    for (behaviour, expected, estimated) in [
        (reported.clone(), usage(241, 73), false),
        (Behaviour::plain("12345"), usage(7, 3), false),
        (Behaviour::answer(["12345"]).usage(None), usage(3, 2), true),
    ] {
        model.script(behaviour);
        let body = Answer::of(stack.agent_chat("hello", json!({})).await).await.json();
        assert_eq!(body, json!({ "content": "12345", "model": "scripted-1", "usage": expected }));
        let newest = &stack.charges()[0];
        let counted = (&newest["input_tokens"], &newest["output_tokens"], &newest["estimated"]);
        assert_eq!(counted, (&expected["inputTokens"], &expected["outputTokens"], &json!(estimated)));
    }
    // Streamed, it is counted all the same.
    model.script(reported);
    assert_eq!(Answer::of(stack.agent_chat("hello", json!({ "stream": true })).await).await.text(), "12345");
    assert_eq!(stack.charges()[0]["input_tokens"], 241);
    let days = stack.admin(&["usage", &stack.account]);
    let sums: Vec<_> = ["messages", "input_tokens", "output_tokens"].iter().map(|name| days[0][name].clone()).collect();
    assert_eq!(sums, [json!(4), json!(241 + 7 + 3 + 241), json!(73 + 3 + 2 + 73)]);
}

#[rstest]
#[tokio::test]
async fn odd_but_good_streams_are_answers(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let good = || Behaviour::answer(["Grüße, ", "世界", "! 🦀"]);
    let pace = Duration::from_millis(250);
    for behaviour in [
        good().with_keep_alives(),
        good().with_keep_alives().line_ends("\r\n"),
        good().with_byte_order_mark(),
        good().marks(true, false),
        good().marks(false, true),
        good().content_type("text/event-stream; charset=utf-8"),
        good().in_pieces(1),
        good().in_pieces(3).line_ends("\r\n").with_keep_alives(),
        good().paced(pace), // slow, but never silent for longer than the limit
    ] {
        model.script(behaviour.clone());
        let answer = Answer::of(stack.agent_chat("go on", json!({})).await).await;
        assert_eq!(answer.status, 200, "{behaviour:?}: {}", answer.text());
        assert_eq!(answer.json()["content"], "Grüße, 世界! 🦀", "{behaviour:?}");
    }
    assert_eq!(model.calls().len(), 9, "each at its first try");
}

#[rstest]
#[tokio::test]
async fn frames_split_at_any_byte_are_the_same_answer(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let good = Behaviour::answer(["Grüße 🦀"]);
    let places = good.stream_len();
    for at in 0..=places {
        model.script(good.clone().split_at(at));
    }
    let answers =
        futures_util::future::join_all((0..=places).map(|_| async { Answer::of(stack.chat("go on").await).await }));
    for answer in answers.await {
        assert_eq!((answer.status, &answer.json()["content"]), (200, &json!("Grüße 🦀")), "{}", answer.text());
    }
    assert_eq!(model.calls().len(), places + 1);
}
