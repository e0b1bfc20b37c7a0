//! Ends of lines and other control characters in whatever we send on: refused, or escaped, and never raw on the wire.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::{Caller, chat_body},
    database::Database,
    model::{Behaviour, ModelServer},
    patience::until,
    raw::Connection,
    sink::Sink,
    stack::Stack,
};

/// Headers that we read, keep, log or answer with, and one that we do not know.
const HEADERS: [&str; 18] = [
    "Authorization",
    "X-API-Key",
    "Idempotency-Key",
    "traceparent",
    "tracestate",
    "X-Request-Id",
    "Prefer",
    "Accept",
    "Accept-Encoding",
    "Content-Type",
    "Expect",
    "X-Forwarded-For",
    "Forwarded",
    "Last-Event-ID",
    "User-Agent",
    "Host",
    "Cookie",
    "X-Anything",
];

/// What our requests to models have in their heads, and nothing else.
const TO_MODELS: [&str; 6] = ["accept", "authorization", "content-length", "content-type", "host", "user-agent"];
/// The same of webhooks.
const TO_RECEIVERS: [&str; 8] = [
    "accept",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Every control character, and what some take for one: as bytes, and as text in UTF-8.
fn characters() -> Vec<Vec<u8>> {
    let single = (0..0x20).chain(0x7f..=0xa0).chain([0xff]).map(|byte| vec![byte]);
    let in_utf_8 = ["\u{85}", "\u{2028}", "\u{2029}", "\u{202e}", "\u{feff}", "\u{e0001}"];
    let ends = ["\r\n", "\n\r", "\r\n\r\n", "\r\n "];
    single.chain(in_utf_8.iter().chain(&ends).map(|text| text.as_bytes().to_vec())).collect()
}

/// Everything that JSON can carry of that, and an event, a header and a line that somebody would like to forge.
fn nasty_text() -> String {
    let controls = (1..0x20).chain(0x7f..0xa0).filter_map(char::from_u32);
    let forged = "\r\n\r\nevent: message.completed\ndata: {}\n\n{\"custom_id\":\"forged\"}\r\nInjected: 1\r\n";
    controls.chain("\u{2028}\u{2029}\u{202e}\u{feff}".chars()).chain(forged.chars()).collect()
}

async fn stack(model: &ModelServer) -> Stack {
    let builder = Stack::with_model(Database::Sqlite, model).set("FRONTDESK_KEY_LIMIT", 100_000);
    let builder = builder.set("FRONTDESK_AUTH_FAILURE_LIMIT", 100_000).set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", true);
    let stack = builder.set("FRONTDESK_HEADER_TIMEOUT", "1s").start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    stack
}

/// A whole request in which `name` has `character` in the midst of its value.
fn request(stack: &Stack, name: &str, character: &[u8]) -> Vec<u8> {
    // Each asks something else: an idempotency key that is read as an earlier one is refused then.
    let body = chat_body(&stack.agent, &format!("hello from {name} {character:x?}")).to_string();
    let mut head = format!("POST /api/v1/chat HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (other, value) in [
        ("Host", "frontdesk"),
        ("Content-Type", "application/json"),
        ("Authorization", &format!("Bearer {}", stack.key)),
    ] {
        if other != name {
            head += &format!("{other}: {value}\r\n");
        }
    }
    let mut bytes = format!("{head}{name}: before").into_bytes();
    bytes.extend(character);
    bytes.extend(format!("Injected: 1\r\n\r\n{body}").bytes());
    bytes
}

#[tokio::test]
async fn no_header_of_a_request_carries_a_control_character_on() {
    let model = ModelServer::start().await.expect("a model server");
    let stack = stack(&model).await;
    let url = stack.url("");
    let all: Vec<_> = HEADERS.iter().flat_map(|name| characters().into_iter().map(move |c| (*name, c))).collect();
    let answers = stream::iter(&all).map(async |(name, character)| {
        let mut connection = Connection::to(&url).await;
        connection.send(request(&stack, name, character)).await;
        connection.rest().await
    });
    let answers: Vec<_> = answers.buffered(16).collect().await;
    let mut refused = 0;
    for ((name, character), answer) in all.iter().zip(&answers) {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&answer[..end]).expect("a head of text");
        let what = || format!("{name} with {character:x?}: {head}");
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 4"), "{}", what());
        assert!(head.split("\r\n").all(|line| line.bytes().all(|byte| (b' '..=b'~').contains(&byte))), "{}", what());
        assert!(!head.to_lowercase().contains("injected"), "{}", what());
        refused += usize::from(head.starts_with("HTTP/1.1 4"));
    }
    for call in model.calls() {
        check_head(&call.headers, &TO_MODELS);
    }
    let calls = model.calls().len();
    assert_eq!(calls, all.len() - refused, "each that was not refused is one call");
    let lines = log_is_whole(&stack);
    println!(
        "control characters: {} headers, {} of them refused, {calls} calls of models with clean heads, {lines} whole lines \
         of logs",
        all.len(),
        refused
    );
}

/// A head of ours has the names that we give it, and values of printable ASCII.
#[track_caller]
fn check_head(headers: &[(String, String)], names: &[&str]) {
    for (name, value) in headers {
        assert!(names.contains(&name.as_str()), "an unknown header {name}: {value:?}");
        assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}: {value:?}");
    }
}

/// No line of any log is broken, or made by somebody else; how many there are.
#[track_caller]
fn log_is_whole(stack: &Stack) -> usize {
    let log = stack.logs();
    for line in log.split_terminator('\n') {
        let entry = serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(entry["level"].is_string() && !line.contains(|c: char| c.is_control()), "{line:?}");
    }
    log.lines().count()
}

#[tokio::test]
async fn texts_go_everywhere_as_they_are_and_break_out_of_nothing() {
    let model = ModelServer::start().await.expect("a model server");
    let (stack, sink, text) = (stack(&model).await, Sink::start().await, nasty_text());
    let caller = Caller::of(&stack);
    let endpoint = json!({ "url": sink.url("/hook") }).to_string();
    assert_eq!(caller.post("/api/v1/webhook-endpoints", endpoint).await.status, 201);
    let metadata = json!({ text.clone(): { "deeper": [text] } });
    let body = json!({ "employee_id": stack.agent, "prompt": text, "metadata": metadata }).to_string();

    let accepted = caller.post("/api/v1/messages", body).await;
    let id = accepted.json()["message_id"].as_str().expect("an id").to_owned();
    let message = caller.get(&format!("/api/v1/messages/{id}?wait=60")).await.ok();
    assert_eq!((&message["status"], &message["metadata"]), (&json!("completed"), &metadata));
    assert_eq!(message["content"], json!(text));
    assert_eq!(model.calls()[0].prompt(), text);
    check_head(&model.calls()[0].headers, &TO_MODELS);

    let told = sink.until_received("/hook", 1).await.remove(0);
    check_head(&told.headers, &TO_RECEIVERS);
    assert_eq!((&told.json()["data"]["content"], &told.json()["data"]["metadata"]), (&json!(text), &metadata));

    let events = caller.get(&format!("/api/v1/messages/{id}/stream")).await;
    let ends =
        |events: &Answer| events.text().lines().filter(|line| line.starts_with("event: message.completed")).count();
    assert_eq!(ends(&events), 1, "{events}");
    let fields = ["id: ", "event: ", "data: ", "retry: ", ":"];
    let is_field = |line: &str| line.is_empty() || fields.iter().any(|field| line.starts_with(field));
    assert!(events.text().split('\n').all(|line| is_field(line) && !line.contains('\r')), "{events}");

    // What the endpoint says is no safer than what the caller says.
    model.script(Behaviour::json(
        200,
        &json!({
            "model": text, "usage": { "prompt_tokens": 1, "completion_tokens": 1 },
            "choices": [{ "message": { "content": text }, "finish_reason": text }],
        }),
    ));
    let answer = caller.agent_chat(&stack.agent, "hello").await;
    assert_eq!(answer.ok()["content"], json!(text));
    assert!(answer.ok()["model"].as_str().is_some_and(|model| !model.contains(char::is_control)), "{answer}");
    check_head_of(&answer);
    model.script(Behaviour::json(400, &json!({ "error": { "message": text, "type": text, "code": text } })));
    let failed = caller.chat(&stack.agent, "hello").await;
    failed.fault(502, "agent_failed");
    check_head_of(&failed);
    println!(
        "control characters: a text with all {} of them in 6 places, whole at the model, in the message, its stream, \
         its webhook and 2 answers, {} whole lines of logs",
        text.chars().filter(|c| c.is_control()).count(),
        log_is_whole(&stack)
    );
}

#[track_caller]
fn check_head_of(answer: &Answer) {
    for (name, value) in &answer.headers {
        assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)), "{name}: {value:?}");
    }
}

#[tokio::test]
async fn names_of_lines_stay_in_their_lines() {
    let model = ModelServer::start().await.expect("a model server");
    let stack = stack(&model).await;
    let caller = Caller::of(&stack).with_header("content-type", "application/x-ndjson");
    let names: Vec<String> = nasty_text().chars().map(|c| format!("a{c}b")).collect();
    let names: std::collections::BTreeSet<_> = names.into_iter().collect();
    let line =
        |name: &String| json!({ "custom_id": name, "employee_id": stack.agent, "prompt": name }).to_string() + "\n";
    let body: String = names.iter().map(line).collect();
    let request = Caller::of(&stack).request(reqwest::Method::POST, "/api/v1/batches");
    let made = Answer::to(request.header("content-type", "application/x-ndjson").body(body)).await;
    assert_eq!(made.status, 202, "{made}");
    let id = made.json()["batch_id"].as_str().expect("an id").to_owned();
    until("the batch has ended", async || {
        (caller.get(&format!("/api/v1/batches/{id}?wait=60")).await.ok()["status"] == "completed").then_some(())
    })
    .await;
    let results = caller.get(&format!("/api/v1/batches/{id}/results")).await;
    let lines = results.text().split_terminator('\n');
    let found: std::collections::BTreeSet<String> = lines
        .map(|line| {
            assert!(!line.contains(|c: char| c < ' '), "{line:?}");
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            line["custom_id"].as_str().expect("a name").to_owned()
        })
        .collect();
    assert_eq!(found, names);
    println!("control characters: {} names of lines, each in a line of its own", names.len());
}

#[tokio::test]
async fn operators_cannot_name_things_with_control_characters() {
    let model = ModelServer::start().await.expect("a model server");
    let stack = stack(&model).await;
    let key = stack.admin(&["key", "create", &stack.account, "second"])["id"].as_str().expect("an id").to_owned();
    let mut refused = 0;
    for character in (1..0x20).chain([0x7f, 0x85, 0x9b]).filter_map(char::from_u32) {
        let name = format!("a{character}b");
        let file = format!("[[agents]]\nname = {}\nmodel = \"demo\"\nprovider = \"demo\"\n", json!(name));
        let file = stack.write_file("nasty.toml", &file);
        for arguments in [
            vec!["account", "create", &name, "--email", "a@example.com"],
            vec!["account", "create", "fine", "--email", &format!("{name}@example.com")],
            vec!["key", "create", &stack.account, &name],
            vec!["key", "rename", &key, &name],
            vec!["agent", "apply", &stack.account, file.to_str().expect("a path")],
        ] {
            let ran = stack.operator(&arguments);
            assert_ne!(ran.code, 0, "{arguments:?}: {}", ran.stdout);
            refused += 1;
        }
    }
    println!("control characters: {refused} names by operators, all refused");
}
