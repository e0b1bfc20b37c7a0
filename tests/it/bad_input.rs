//! Bodies that are wrong in every way that came to mind: each is a 400 whose sentence names what is wrong.

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::{Caller, chat_body},
    database::Database,
    patience::nonce,
    stack::{Builder, Stack},
};

const CHAT: &str = "/api/v1/chat";
/// Deep enough to end a process whose parser calls itself.
const DEEP: usize = 30_000;

fn unlimited(database: Database) -> Builder {
    Stack::on(database).set("FRONTDESK_KEY_LIMIT", 100_000)
}

/// The stack has taken nothing of what was wrong, and answers what is right.
async fn assert_unharmed(stack: &Stack) {
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0, "something wrong was taken");
    let prompt = nonce();
    assert_eq!(Caller::of(stack).chat(&stack.agent, &prompt).await.ok()["content"], prompt);
}

fn assert_says(answer: &Answer, words: &str, what: &str) {
    let fault = answer.fault(400, "invalid_request");
    let sentence = fault["error"].as_str().expect("a sentence");
    assert!(sentence.contains(words), "{what:.200}: {words:?} is not in {sentence:?}");
}

#[rstest]
#[tokio::test]
async fn a11_what_is_no_json_object_is_400(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = unlimited(database).start().await;
    let good = chat_body(&stack.agent, &nonce()).to_string();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "empty"),
        (b" \r\n\t".to_vec(), "empty"),
        (b"null".to_vec(), "object"),
        (b"true".to_vec(), "object"),
        (b"17".to_vec(), "object"),
        (b"\"text\"".to_vec(), "object"),
        (format!("[{good}]").into_bytes(), "object"),
        (b"{".to_vec(), "JSON"),
        (good[..good.len() - 1].into(), "JSON"),
        (format!("{good}x").into_bytes(), "JSON"),
        (format!("{good}{good}").into_bytes(), "JSON"),
        (format!("\u{feff}{good}").into_bytes(), "JSON"),
        (good.replace('"', "'").into_bytes(), "JSON"),
        (good.replacen('}', ",}", 1).into_bytes(), "JSON"),
        (good.replacen('{', "{/* hello */", 1).into_bytes(), "JSON"),
        (good.replace("nonce ", "nonce\n").into_bytes(), "JSON"),
        (good.replace("nonce ", "\\x41").into_bytes(), "JSON"),
        (good.replacen('{', "{\"n\":NaN,", 1).into_bytes(), "JSON"),
        (good.replacen('{', "{\"n\":1e999,", 1).into_bytes(), "JSON"),
        (good.replacen('{', "{\"n\":01,", 1).into_bytes(), "JSON"),
        (b"employee_id=x&prompt=y".to_vec(), "JSON"),
        (utf16, "JSON"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(), "UTF-8"),
    ];
    for (body, words) in bodies {
        let what = String::from_utf8_lossy(&body).into_owned();
        assert_says(&Caller::of(&stack).post(CHAT, body).await, words, &what);
    }
    assert_unharmed(&stack).await;
}

#[rstest]
#[tokio::test]
async fn a11_text_that_no_database_takes_is_400(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = unlimited(database).start().await;
    let good = chat_body(&stack.agent, "PROMPT").to_string();
    let with = |text: &[u8]| -> Vec<u8> {
        let (before, after) = good.split_once("PROMPT").expect("the prompt");
        [before.as_bytes(), text, after.as_bytes()].concat()
    };
    let extra = |member: &str| good.replacen('{', &format!("{{{member},"), 1).into_bytes();
    let bodies = [
        (with(br"a\u0000b"), "`prompt`"),
        (with(b"a\x00b"), "JSON"),
        (with(b"\xff\xfe"), "UTF-8"),
        (with(b"\xc3\x28"), "UTF-8"),
        (with(b"\xed\xa0\x80"), "UTF-8"),
        (with(b"\xf4\x90\x80\x80"), "UTF-8"),
        (with(b"\xc0\x80"), "UTF-8"),
        (with(br"\ud800"), "JSON"),
        (with(br"\udc00\ud800"), "JSON"),
        (with(br"\ud83dx"), "JSON"),
        (extra(r#""more":["\u0000"]"#), "`more[0]`"),
        (extra(r#""na\u0000me":1"#), "`na"),
    ];
    for (body, words) in bodies {
        let what = String::from_utf8_lossy(&body).into_owned();
        assert_says(&Caller::of(&stack).post(CHAT, body).await, words, &what);
    }
    assert_unharmed(&stack).await;
}

#[rstest]
#[tokio::test]
async fn a11_a_nesting_bomb_is_400(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = unlimited(database).start().await;
    let caller = Caller::of(&stack);
    let good = chat_body(&stack.agent, &nonce()).to_string();
    let bombs = [
        "[".repeat(DEEP),
        "{\"a\":".repeat(DEEP / 3),
        format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP)),
        good.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(DEEP), "]".repeat(DEEP)), 1),
        good.replacen('{', &format!("{{\"x\":{}1{},", "{\"a\":".repeat(DEEP / 6), "}".repeat(DEEP / 6)), 1),
    ];
    for bomb in bombs {
        assert_says(&caller.post(CHAT, bomb.clone()).await, "JSON", &bomb);
        assert_says(&caller.post("/api/agents/chat", bomb.clone()).await, "JSON", &bomb);
    }
    assert_unharmed(&stack).await;
}

/// Ids end up in subjects of the queue: nothing with a meaning there may come through.
#[rstest]
#[tokio::test]
async fn a11_what_is_no_uuid_is_400(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = unlimited(database).start().await;
    let (caller, agent) = (Caller::of(&stack), &stack.agent);
    let ids = [
        " ".to_owned(),
        "abc".to_owned(),
        "*".to_owned(),
        ">".to_owned(),
        "jobs.interactive.>".to_owned(),
        format!("{agent} "),
        format!(" {agent}"),
        format!("{agent}\n"),
        format!("{agent}.x"),
        format!("{agent}>"),
        format!("*{}", &agent[1..]),
        format!("{} {}", &agent[..8], &agent[9..]),
        agent[1..].to_owned(),
        agent.replace('-', "."),
        agent.replace('-', "–"),
        "../../etc/passwd".to_owned(),
        "' OR '1'='1".to_owned(),
        "$JS.API.STREAM.DELETE.JOBS".to_owned(),
        "x".repeat(60_000),
    ];
    for id in ids {
        let answer = caller.chat(&id, &nonce()).await;
        assert_says(&answer, "`employee_id`", &id);
        assert!(answer.body.len() < 1_000, "the error repeats what it got");
    }
    let unknown = "00000000-0000-0000-0000-000000000000";
    caller.chat(unknown, &nonce()).await.fault(404, "agent_not_found");
    assert_unharmed(&stack).await;
}

#[rstest]
#[tokio::test]
async fn a11_another_content_type_is_400(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = unlimited(database).start().await;
    let caller = Caller::of(&stack);
    let send = async |content_type: Option<&str>, body: &str| {
        let request = caller.request(reqwest::Method::POST, CHAT).body(body.to_owned());
        let request = content_type.into_iter().fold(request, |request, value| request.header("content-type", value));
        Answer::of(request.send().await.expect("an answer")).await
    };
    let wrong = ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"];
    for content_type in wrong.into_iter().map(Some).chain([None, Some("application/jsonp"), Some("json"), Some("*/*")])
    {
        let body = chat_body(&stack.agent, &nonce()).to_string();
        assert_says(&send(content_type, &body).await, "Content-Type", content_type.unwrap_or("none"));
    }
    assert_unharmed(&stack).await;
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"] {
        let prompt = nonce();
        let body = chat_body(&stack.agent, &prompt).to_string();
        assert_eq!(send(Some(content_type), &body).await.ok()["content"], prompt);
    }
}

/// Members that the contract does not know are ignored, and of doubled ones the last counts, as with every JSON
/// parser that callers know.
#[rstest]
#[tokio::test]
async fn odd_but_valid_json_is_answered(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = unlimited(database).start().await;
    let (caller, agent) = (Caller::of(&stack), &stack.agent);
    let members = |prompt: &str| format!(r#""employee_id":"{agent}","prompt":"{prompt}""#);
    let escaped = |prompt: &str| -> String { prompt.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect() };
    let bodies: [&dyn Fn(&str) -> String; 5] = [
        &|prompt| format!(r#"{{"employee_id":"x","prompt":5,{}}}"#, members(prompt)),
        &|prompt| format!(" \r\n\t{{ {} }} \n", members(prompt)),
        &|prompt| format!(r#"{{"__proto__":{{}},"constructor":1,"":[[[]]],{}}}"#, members(prompt)),
        &|prompt| format!(r#"{{"n":123456789012345678901234567890,{}}}"#, members(prompt)),
        &|prompt| format!("{{{}}}", members(&escaped(prompt))),
    ];
    for body in bodies {
        let prompt = nonce();
        assert_eq!(caller.post(CHAT, body(&prompt)).await.ok()["content"], prompt, "{}", body(&prompt));
    }
    let doubled = format!(r#"{{{},"prompt":5}}"#, members("first"));
    assert_says(&caller.post(CHAT, doubled.clone()).await, "`prompt`", &doubled);
}

/// Whatever is sent, the caller learns what was wrong and the gateway goes on.
#[rstest]
#[tokio::test]
async fn no_value_of_any_field_is_answered_5xx(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = unlimited(database).start().await;
    let caller = Caller::of(&stack);
    let values = [
        json!(null),
        json!(false),
        json!(-1),
        json!(1.5e300),
        json!(""),
        json!("\u{10ffff}\u{fffe}\u{202e}"),
        json!("%00%n%s${jndi:ldap://x}{{7*7}}"),
        json!([]),
        json!([{}]),
        json!([{ "role": "user", "content": null }]),
        json!([{ "role": 5, "content": "x" }]),
        json!({ "a": { "b": [] } }),
    ];
    let rest = chat_body(&stack.agent, "/tokens 1");
    let other = json!({ "agentId": stack.agent, "message": "/tokens 1" });
    for (path, body, fields) in [
        (CHAT, &rest, &["employee_id", "prompt"][..]),
        ("/api/agents/chat", &other, &["agentId", "message", "messages", "history", "stream", "newChat"]),
    ] {
        for (field, value) in fields.iter().flat_map(|field| values.iter().map(move |value| (field, value))) {
            let mut body: Value = body.clone();
            body[field] = value.clone();
            let answer = caller.post(path, body.to_string()).await;
            assert!([200, 400, 404].contains(&answer.status), "{body}: {answer}");
        }
    }
    assert!(!stack.logs().contains("panicked"));
}
