//! `stream:true` on `/api/agents/chat`: raw text as the model makes it, whole or visibly broken. B13 and B18.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use reqwest::Response;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    database::Database,
    model::{Behaviour, Ending, Gate, ModelServer},
    stack::{Builder, Stack},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longer than anything here takes, and shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(30);
const TEXT: &str = "Grüße, 世界! 🦀🌍 — ﷺ e\u{301}\n\n\tdone\r\n ";
/// The reader of the API's own documentation, to the letter.
const SEED_READER: &str = include_str!("streaming/reader.js");

/// A stack whose agent is answered by `model`.
fn scripted(database: Database, model: &ModelServer) -> Builder {
    Stack::on(database)
        .agent(json!({ "name": "Assistant", "model": "m", "provider": "openai" }))
        .set("FRONTDESK_OPENAI_URL", model.url())
}

async fn stream(stack: &Stack, message: &str) -> Response {
    let answer = timeout(PATIENCE, stack.agent_chat(message, json!({ "stream": true }))).await.expect("a head in time");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    answer
}

/// The next chunk; `None` at a clean end.
async fn next(answer: &mut Response) -> reqwest::Result<Option<String>> {
    let chunk = timeout(PATIENCE, answer.chunk()).await.expect("a chunk in time")?;
    Ok(chunk.map(|chunk| String::from_utf8(chunk.to_vec()).expect("whole characters")))
}

/// All that comes until a clean end, or an error when there is none.
async fn rest(mut answer: Response) -> (String, reqwest::Result<()>) {
    let mut text = String::new();
    loop {
        match next(&mut answer).await {
            Ok(Some(chunk)) => text.push_str(&chunk),
            Ok(None) => return (text, Ok(())),
            Err(error) => return (text, Err(error)),
        }
    }
}

#[rstest]
#[tokio::test]
async fn b13_chunks_arrive_while_the_model_still_makes_them(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let gate = Gate::closed();
    model.script(Behaviour::answer(["the first half, ", "the ", "second"]).held_after(1, &gate));
    let mut answer = stream(&stack, "go on").await;
    assert!(!answer.headers().contains_key("content-length"));
    assert!(!answer.headers()["x-message-id"].is_empty());
    assert_eq!(next(&mut answer).await.expect("no break").expect("a chunk"), "the first half, ");
    gate.open();
    let (text, end) = rest(answer).await;
    assert_eq!((text.as_str(), end.is_ok()), ("the second", true));
}

#[rstest]
#[tokio::test]
async fn b13_an_answer_is_the_models_byte_for_byte(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let pace = Duration::from_millis(5);
    let pieces: Vec<String> = TEXT.chars().map(String::from).collect();
    for behaviour in [
        Behaviour::answer([TEXT]),
        Behaviour::answer([TEXT]).in_pieces(7).paced(pace),
        Behaviour::answer(pieces.clone()).paced(pace),
        Behaviour::answer(pieces).in_pieces(1),
    ] {
        model.script(behaviour);
        let (text, end) = rest(stream(&stack, "go on").await).await;
        assert_eq!((text.as_str(), end.is_ok()), (TEXT, true));
    }
    model.script(Behaviour::answer([""]));
    let (text, end) = rest(stream(&stack, "say nothing").await).await;
    assert_eq!((text.as_str(), end.is_ok()), ("", true), "an empty answer is whole, too");
}

#[rstest]
#[tokio::test]
async fn b13_a_long_answer_is_whole(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let tokens: Vec<String> = (1..=100_000).map(|number| format!("tok{number}")).collect();
    let (text, end) = {
        let mut answer = stream(&stack, "/tokens 100000").await;
        let mut bytes = Vec::new();
        loop {
            match timeout(PATIENCE, answer.chunk()).await.expect("a chunk in time") {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break (bytes, true),
                Err(_) => break (bytes, false),
            }
        }
    };
    assert!(end && text == tokens.join(" ").as_bytes(), "{} bytes, clean end: {end}", text.len());
    let whole = Answer::of(stack.agent_chat("/tokens 100000", json!({})).await).await;
    assert!(whole.json()["content"] == tokens.join(" "), "{}: {} bytes", whole.status, whole.text().len());
}

#[rstest]
#[tokio::test]
async fn b13_the_seeds_own_reader_prints_the_answer_as_it_comes(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let gate = Gate::closed();
    model.script(Behaviour::answer([TEXT, "the rest"]).held_after(1, &gate));
    let mut reader = tokio::process::Command::from(seed_reader(&stack, &stack.key))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("this test runs the reader of the API's documentation and needs Node.js 20 or newer: install `nodejs`");
    let mut printed = vec![0; TEXT.len()];
    let mut stdout = reader.stdout.take().expect("its output");
    timeout(PATIENCE, stdout.read_exact(&mut printed)).await.expect("the first half in time").expect("a first half");
    gate.open();
    timeout(PATIENCE, stdout.read_to_end(&mut printed)).await.expect("an end in time").expect("a second half");
    assert_eq!(String::from_utf8(printed).expect("UTF-8"), format!("{TEXT}the rest"));
    assert!(reader.wait().await.expect("its end").success());
    assert_eq!(model.calls()[0].prompt(), "Walk me through this month's KPI changes.");

    let refused = seed_reader(&stack, "sulta_sk_wrong").output().expect("node");
    assert!(!refused.status.success(), "a status other than 2xx has to reach the reader as one");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Request failed"));
}

/// The seed's reader with this stack's address, agent and `key` in place of the seed's.
fn seed_reader(stack: &Stack, key: &str) -> Command {
    let script = SEED_READER
        .replace("https://ai.sultatech.com", &stack.url(""))
        .replace("sulta_sk_xxx...", key)
        .replace("AGENT_ID", &stack.agent);
    let mut command = Command::new("node");
    command.args(["--input-type=module", "--eval", &script]);
    command
}

#[rstest]
#[tokio::test]
async fn b18_a_failure_before_the_first_chunk_is_a_status(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).set("FRONTDESK_DEADLINE", "2s").start().await;
    let failed = async |behaviour: Behaviour| {
        model.script(behaviour);
        Answer::of(stack.agent_chat("go on", json!({ "stream": true })).await).await
    };
    for hopeless in [Behaviour::wrong_key(), Behaviour::quota(), Behaviour::web_page(200)] {
        let answer = failed(hopeless).await;
        answer.fault(500, "agent_failed");
        assert_eq!(answer.json()["message_id"].as_str(), answer.header("x-message-id"));
    }
    let late = failed(Behaviour::hang_before_head()).await;
    late.fault(504, "timeout");
    assert_eq!(late.json()["accepted"], true);

    // What was not heard does not count: the second try is the first that the caller sees.
    model.script(Behaviour::unavailable());
    model.script(Behaviour::answer(["fine"]));
    assert_eq!(rest(stream(&stack, "go on").await).await.0, "fine");
}

#[rstest]
#[tokio::test]
async fn a_failure_after_the_first_chunk_breaks_the_connection(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model)
        .set("FRONTDESK_MODEL_TRIES", 1)
        .set("FRONTDESK_MODEL_IDLE_TIMEOUT", "500ms")
        .set("FRONTDESK_KEY_LIMIT", 1_000)
        .start()
        .await;
    let error = json!({ "error": { "message": "overloaded", "type": "server_error", "code": 503 } });
    for (what, ending) in [("cut", Ending::Cut), ("an error event", Ending::Error(error)), ("silence", Ending::Hang)] {
        let gate = Gate::closed();
        model.script(Behaviour::answer(["half an answer"]).ending(ending).held_after(1, &gate));
        let mut answer = stream(&stack, "go on").await;
        assert_eq!(next(&mut answer).await.expect("no break yet").expect("a chunk"), "half an answer", "{what}");
        gate.open();
        let (more, end) = rest(answer).await;
        assert_eq!(more, "", "{what}");
        assert!(end.is_err_and(|error| !error.is_timeout()), "{what} ended cleanly");
    }
}

#[rstest]
#[tokio::test]
async fn a_broken_stream_has_no_last_chunk_on_the_wire(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).set("FRONTDESK_MODEL_TRIES", 1).start().await;
    let body = json!({ "agentId": stack.agent, "message": "go on", "stream": true });
    model.script(Behaviour::answer(["all of it"]));
    let whole = until_closed(&mut connect(&stack, &body).await, String::new()).await;
    assert!(whole.starts_with("HTTP/1.1 200 ") && whole.ends_with("9\r\nall of it\r\n0\r\n\r\n"), "{whole}");

    let gate = Gate::closed();
    model.script(Behaviour::answer(["half"]).ending(Ending::Cut).held_after(1, &gate));
    let mut socket = connect(&stack, &body).await;
    let mut received = String::new();
    while !received.ends_with("4\r\nhalf\r\n") {
        let byte = timeout(PATIENCE, socket.read_u8()).await.expect("a byte in time").expect("no break yet");
        received.push(byte.into());
    }
    gate.open();
    let broken = until_closed(&mut socket, received).await;
    assert!(broken.starts_with("HTTP/1.1 200 ") && broken.ends_with("4\r\nhalf\r\n"), "{broken}");
}

/// `received` and all that comes after it, whether the connection is closed or reset.
async fn until_closed(socket: &mut TcpStream, received: String) -> String {
    let mut bytes = received.into_bytes();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("an end in time");
    String::from_utf8(bytes).expect("UTF-8")
}

/// A connection on which `body` was sent as the only request.
async fn connect(stack: &Stack, body: &Value) -> TcpStream {
    let address = stack.gateways[0].url.trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).await.expect("a connection");
    let body = body.to_string();
    let head = format!(
        "POST /api/agents/chat HTTP/1.1\r\nhost: {address}\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        stack.key,
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
    socket
}

#[rstest]
#[tokio::test]
async fn a_second_try_of_the_model_never_follows_the_first_ones_text(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = scripted(database, &model).start().await;
    let gate = Gate::closed();
    model.script(Behaviour::answer(["half "]).ending(Ending::Cut).held_after(1, &gate));
    model.script(Behaviour::answer(["a whole ", "answer"]));
    let mut answer = stream(&stack, "go on").await;
    assert_eq!(next(&mut answer).await.expect("no break yet").expect("a chunk"), "half ");
    gate.open();
    let (more, end) = rest(answer).await;
    assert_eq!((more.as_str(), end.is_err()), ("", true));
}

#[rstest]
#[tokio::test]
async fn a_worker_killed_in_mid_stream_breaks_the_connection(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = scripted(database, &model).set("FRONTDESK_ACK_WAIT", "1s").start().await;
    model.script(Behaviour::answer(["half an ", "answer"]).held_after(1, &Gate::closed()));
    model.script(Behaviour::answer(["half an ", "answer"]));
    let mut answer = stream(&stack, "go on").await;
    let id = answer.headers()["x-message-id"].to_str().expect("an id").to_owned();
    assert_eq!(next(&mut answer).await.expect("no break yet").expect("a chunk"), "half an ");
    stack.kill_workers();
    stack.add_worker().await;
    let (more, end) = rest(answer).await;
    assert!(end.is_err_and(|error| !error.is_timeout()), "it ended cleanly with {more:?}");
    assert_eq!(more, "", "nothing may follow the dead worker's text");

    // The job itself goes on and is answered once.
    let charges = stack.until_charges(1).await;
    assert_eq!((&charges[0]["id"], model.calls().len()), (&json!(id), 2));
}

#[rstest]
#[tokio::test]
async fn a_stream_that_nobody_goes_on_with_breaks_at_the_deadline(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = scripted(database, &model).set("FRONTDESK_DEADLINE", "2s").start().await;
    model.script(Behaviour::answer(["half an ", "answer"]).held_after(1, &Gate::closed()));
    let mut answer = stream(&stack, "go on").await;
    assert_eq!(next(&mut answer).await.expect("no break yet").expect("a chunk"), "half an ");
    stack.kill_workers();
    let (more, end) = rest(answer).await;
    assert_eq!((more.as_str(), end.is_err()), ("", true));
}
