//! JSON that is made to hurt, on every route that takes some and in the lines of batches: refused clearly, or stored
//! right.

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Map, Value, json};
use tests::{
    answer::Answer,
    batch::{BATCHES, LINES},
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::Stack,
};

use super::json_routes::{JsonRoute, json_routes};

/// Deep enough to end a process whose parser calls itself.
const DEEP: usize = 30_000;
const KEYS: usize = 10_000;
/// As large as what 10,000 keys need.
const BODY_LIMIT: usize = 200_000;

/// What is wrong with a body, as the fault's sentence says it; `None` when nothing is.
type Wrong = Option<&'static str>;

/// Bodies made of the good one of `route`.
fn hostile(route: &JsonRoute) -> Vec<(&'static str, Vec<u8>, Wrong)> {
    let good = &route.body;
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1).into_bytes();
    let in_text = |text: &str| with_text(route, text);
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let keys: String = (0..KEYS).map(|n| format!(r#""k{n}":{n},"#)).collect();
    let text = route.text;
    vec![
        ("lists in lists", with(&format!(r#""x":{}"#, nested("[", "]", DEEP))), Some("JSON")),
        ("objects in objects", with(&format!(r#""x":{}"#, nested(r#"{"a":"#, "}", DEEP))), Some("JSON")),
        ("nesting for a text", in_text(&nested("[", "]", DEEP)), Some("JSON")),
        ("nesting that never ends", "[".repeat(DEEP).into_bytes(), Some("JSON")),
        ("nesting within bounds", with(&format!(r#""x":{}"#, nested("[", "]", 100))), None),
        ("10,000 keys", good.replacen('{', &format!("{{{keys}"), 1).into_bytes(), None),
        ("10,000 keys within", with(&format!(r#""x":{{{}}}"#, keys.trim_end_matches(','))), None),
        ("one key 10,000 times", good.replacen('{', &format!("{{{}", r#""k":1,"#.repeat(KEYS)), 1).into_bytes(), None),
        ("a doubled key, the last good", with(&format!(r#""{text}":"first""#)), None),
        ("a doubled key, the first a number", with(&format!(r#""{text}":5"#)), None),
        ("a doubled key, the last a number", doubled(route, "5"), Some(text)),
        ("a doubled key, the last null", doubled(route, "[null]"), Some(text)),
        ("a lone high surrogate", in_text(r#""a\ud800b""#), Some("JSON")),
        ("a lone low surrogate", in_text(r#""a\udc00b""#), Some("JSON")),
        ("surrogates in the wrong order", in_text(r#""\udc00\ud800""#), Some("JSON")),
        ("a surrogate at the end", in_text(r#""\ud83d""#), Some("JSON")),
        ("a lone surrogate in a key", with(r#""\ud800":1"#), Some("JSON")),
        ("a lone surrogate within", with(r#""x":[{"y":"\udfff"}]"#), Some("JSON")),
        ("NUL in a text", in_text(r#""a\u0000b""#), Some("U+0000")),
        ("NUL in a key", with(r#""a\u0000b":1"#), Some("U+0000")),
        ("NUL within", with(r#""x":[{"y":"\u0000"}]"#), Some("U+0000")),
        ("a bare NUL", in_text("\"a\0b\""), Some("JSON")),
        ("no number", with(r#""x":NaN"#), Some("JSON")),
        ("too large a number", with(r#""x":1e999"#), Some("JSON")),
        ("a number of 10,000 digits", with(&format!(r#""x":{}"#, "9".repeat(10_000))), Some("JSON")),
    ]
}

/// The good body with another value for its text.
fn with_text(route: &JsonRoute, value: &str) -> Vec<u8> {
    let mut members: Map<String, Value> = serde_json::from_str(&route.body).expect("a good body");
    members.insert(route.text.to_owned(), json!("TEXT"));
    Value::Object(members).to_string().replace("\"TEXT\"", value).into_bytes()
}

fn doubled(route: &JsonRoute, last: &str) -> Vec<u8> {
    let body = String::from_utf8(with_text(route, "\"first\"")).expect("text");
    format!(r#"{},"{}":{last}}}"#, &body[..body.len() - 1], route.text).into_bytes()
}

async fn send(caller: &Caller, route: &JsonRoute, body: Vec<u8>) -> Answer {
    let request = caller.request(route.method.clone(), &route.path).header("content-type", "application/json");
    Answer::to(request.body(body)).await
}

#[rstest]
#[tokio::test]
async fn it_is_refused_clearly_or_accepted(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let settings = Stack::on(database).set("FRONTDESK_KEY_LIMIT", 100_000).set("FRONTDESK_BODY_LIMIT", BODY_LIMIT);
    let mut stack = settings.start().await;
    let (caller, routes) = (Caller::of(&stack), json_routes(&stack).await);
    let (mut refused, mut accepted) = (0, 0);
    for route in &routes {
        for (what, body, wrong) in hostile(route) {
            let answer = send(&caller, route, body).await;
            // How deep and how long numbers may be is the parser's affair; that it says so is ours.
            if let Some(words) = wrong {
                let fault = answer.fault(400, "invalid_request");
                let sentence = fault["error"].as_str().expect("a sentence");
                assert!(sentence.contains(words), "{} with {what}: {sentence}", route.path);
                refused += 1;
            } else {
                assert!((200..300).contains(&answer.status), "{} with {what}: {answer}", route.path);
                accepted += 1;
            }
        }
    }
    let lines = in_the_lines_of_a_batch(&caller, &routes[0].body, &stack.agent).await;
    let stored = what_is_accepted_is_stored(&stack, &caller).await;
    assert!(!stack.gateways[0].process.has_ended().expect("a state"), "the gateway has ended");
    assert!(!stack.logs().contains("panicked"), "something panicked");
    println!(
        "hostile JSON ({database:?}): {} routes, {refused} bodies refused, {accepted} accepted, {lines} lines of batches \
         refused, {stored} texts and objects read back; no 5xx",
        routes.len()
    );
}

/// Each as a line of its own between good ones: its number is named, and nothing of the batch is accepted.
async fn in_the_lines_of_a_batch(caller: &Caller, body: &str, agent: &str) -> usize {
    let body = body.replacen('{', r#"{"custom_id":"one","#, 1);
    let route = JsonRoute { method: Method::POST, path: BATCHES.to_owned(), body, text: "prompt" };
    let wrong: Vec<_> = hostile(&route).into_iter().filter(|(.., wrong)| wrong.is_some()).collect();
    let good = |n: usize| tests::batch::line(&format!("good {n}"), agent, "hello").into_bytes();
    let mut lines = Vec::new();
    for (n, (_, line, _)) in wrong.iter().enumerate() {
        lines.extend([good(n), line.clone()]);
    }
    let request = caller.request(Method::POST, BATCHES).header("content-type", LINES);
    let fault = Answer::to(request.body(lines.join(&b'\n'))).await.fault(422, "invalid_lines");
    let named = fault["invalid_lines"].as_array().expect("lines");
    let numbers: Vec<u64> = named.iter().filter_map(|line| line["line"].as_u64()).collect();
    let expected: Vec<u64> = (1..).map(|n| 2 * n).take(wrong.len()).collect();
    assert!(fault["invalid_line_count"].as_u64().is_none_or(|count| count == expected.len() as u64), "{fault}");
    assert_eq!(numbers, expected[..numbers.len()], "{fault}");
    wrong.len()
}

/// What is odd but right comes back as it was sent, from the answer and from the store.
async fn what_is_accepted_is_stored(stack: &Stack, caller: &Caller) -> usize {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let keys: Map<String, Value> = (0..1_000).map(|n| (format!("k{n}"), json!(n))).collect();
    let metadata = [
        json!({ "deep": deep }),
        Value::Object(keys),
        json!({ "": "", "__proto__": { "a": 1 }, "k\"'\\`;--": "'; DROP TABLE messages; --", "\u{202e}": "\u{fffd}" }),
        json!({ "n": [0, -1, 1.5e300, i64::MIN, u64::MAX, 5e-324] }),
    ];
    let texts =
        ["\u{1f600}\u{10ffff}\u{feff}", "\\u0000 \\ud800", "%00%n${jndi:ldap://x}", "'; DROP TABLE messages; --"];
    let asked = metadata.iter().flat_map(|metadata| texts.iter().map(move |text| (metadata, *text)));
    let checked = join_all(asked.map(async |(metadata, text)| {
        let prompt = format!("{} {text}", nonce());
        let body = json!({ "employee_id": stack.agent, "prompt": prompt, "metadata": metadata });
        let made = caller.post("/api/v1/messages", body.to_string()).await;
        assert_eq!(made.status, 202, "{made}");
        let path = format!("/api/v1/messages/{}", made.json()["message_id"].as_str().expect("an id"));
        let message = until("the message is completed", async || {
            let message = caller.get(&format!("{path}?wait=20")).await.ok();
            (message["status"] == "completed").then_some(message)
        })
        .await;
        assert_eq!((&message["content"], &message["metadata"]), (&json!(prompt), metadata));
    }))
    .await;
    let doubled =
        format!(r#"{{"employee_id":"{}","prompt":"first","prompt":"last","prompt":"very last"}}"#, stack.agent);
    assert_eq!(caller.post("/api/v1/chat", doubled).await.ok()["content"], "very last");
    checked.len() + 1
}
