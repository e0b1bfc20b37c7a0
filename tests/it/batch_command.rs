//! `gateway batch` as people run it, against a scripted server that fails in every way that a network knows.

use std::{collections::BTreeSet, fs::File, time::Duration};

use serde_json::{Value, json};
use tests::{
    batch_server::{Asked, BatchServer, KEY, Mishap, Route},
    client::Client,
    model::Gate,
    stack::Ran,
};

const SUBMIT: &[&str] = &["submit", "prompts.jsonl", "-o", "results.jsonl"];
const STATE: &str = "results.jsonl.frontdesk";
const AGENT: &str = "0190b5a0-0000-7000-8000-000000000001";
const PATIENCE: Duration = Duration::from_secs(60);

/// A line for each prompt, with its custom_id.
fn lines(prompts: &[&str]) -> String {
    let line = |(prompt, number): (&&str, usize)| {
        format!("{}\n", json!({ "custom_id": format!("c-{number}"), "employee_id": AGENT, "prompt": prompt }))
    };
    prompts.iter().zip(1..).map(line).collect()
}

/// A server, and somebody with that many prompts.
async fn with_prompts(prompts: &[&str]) -> (BatchServer, Client) {
    let server = BatchServer::start().await;
    let client = Client::of(&server.url(), KEY);
    client.write("prompts.jsonl", lines(prompts));
    (server, client)
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[track_caller]
fn assert_ends(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    words.iter().for_each(|words| assert!(ran.stderr.contains(words), "{words:?} is not in {ran:?}"));
}

/// Every custom_id from `c-1` on stands once in the two files together.
#[track_caller]
fn assert_each_once(client: &Client, count: usize) {
    let mut all = client.custom_ids("results.jsonl");
    all.extend(client.custom_ids("results.failures.jsonl"));
    assert_eq!(all.len(), count, "{all:?}");
    let expected: BTreeSet<_> = (1..=count).map(|number| format!("c-{number}")).collect();
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
}

fn keys(asked: &[Asked]) -> BTreeSet<String> {
    asked.iter().map(|asked| asked.headers["idempotency-key"].clone()).collect()
}

#[tokio::test]
async fn answers_and_failures_come_apart() {
    let (server, client) = with_prompts(&["one", "fail", "three", "expire"]).await;
    let ran = client.run(&[SUBMIT, &["--json"]].concat()).await;
    assert_ends(&ran, 5, &["2 of 4 prompts were not answered", "results.failures.jsonl", "retry-failed"]);
    let expected = json!({
        "batch_id": server.batches()[0], "status": "completed", "total": 4, "completed": 2, "failed": 1, "expired": 1,
        "cancelled": 0, "missing": 0, "results": "results.jsonl", "failures": "results.failures.jsonl",
    });
    assert_eq!(json_of(&ran), expected);
    assert_eq!(client.custom_ids("results.jsonl"), ["c-1", "c-3"]);
    assert_eq!(client.custom_ids("results.failures.jsonl"), ["c-2", "c-4"]);
    assert_eq!(client.files(), ["prompts.jsonl", "results.failures.jsonl", "results.jsonl", STATE]);

    let sent = &server.asked(Route::Submit)[..];
    assert_eq!((sent.len(), String::from_utf8_lossy(&sent[0].body)), (1, client.read("prompts.jsonl").into()));
    assert_eq!(sent[0].headers["content-type"], "application/x-ndjson");
    assert!(sent[0].headers["idempotency-key"].len() > 30, "{sent:?}");
}

#[tokio::test]
async fn a_run_whose_prompts_are_all_answered_ends_well_and_is_not_repeated() {
    let (server, client) = with_prompts(&["one", "two"]).await;
    let first = client.run(&["submit", "prompts.jsonl"]).await;
    assert_ends(&first, 0, &["2 prompts"]);
    assert!(first.stdout.contains("prompts.results.jsonl"), "{first:?}");
    assert_eq!(client.files(), ["prompts.jsonl", "prompts.results.jsonl", "prompts.results.jsonl.frontdesk"]);
    let asked = server.all_asked();
    let again = client.run(&["submit", "prompts.jsonl", "--json"]).await;
    assert_ends(&again, 0, &["already"]);
    assert_eq!((json_of(&again)["completed"].as_u64(), server.all_asked()), (Some(2), asked));

    // What somebody removed is read again, and not run again.
    std::fs::remove_file(client.path("prompts.results.jsonl")).expect("removed");
    assert_ends(&client.run(&["submit", "prompts.jsonl"]).await, 0, &[]);
    assert_eq!(client.custom_ids("prompts.results.jsonl"), ["c-1", "c-2"]);
    assert_eq!(server.asked(Route::Submit).len(), 1);
}

#[tokio::test]
async fn rows_of_csv_are_sent_as_lines() {
    let (server, client) = with_prompts(&[]).await;
    client.write("prompts.csv", "\u{feff}prompt,custom_id\r\n\"Hello, \"\"you\"\"\r\nthere\",mine\r\n,\r\nfail,\r\n");
    let submit = ["submit", "prompts.csv", "-o", "results.jsonl", "--agent", AGENT];
    assert_ends(&client.run(&submit).await, 5, &["1 of 2 prompts"]);
    let body = String::from_utf8(server.asked(Route::Submit)[0].body.clone()).expect("UTF-8");
    let sent: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    let expected = [
        json!({ "custom_id": "mine", "employee_id": AGENT, "prompt": "Hello, \"you\"\r\nthere" }),
        Value::Null,
        json!({ "custom_id": "row-4", "employee_id": AGENT, "prompt": "fail" }),
    ];
    assert_eq!(sent, expected);
    assert_eq!(client.custom_ids("results.failures.jsonl"), ["row-4"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_table_is_said_before_anything_is_sent() {
    let (server, client) = with_prompts(&[]).await;
    for (table, words) in [
        ("prompt,colour\na,red\n", &["unknown column \"colour\"", "custom_id"][..]),
        ("prompt\na\nb\n", &["row 2", "row 3", "employee_id", "--agent"]),
        ("", &["no column prompt"]),
    ] {
        client.write("table", table);
        let ran = client.run(&["submit", "--csv", "table", "-o", "results.jsonl"]).await;
        assert_ends(&ran, 4, words);
    }
    assert_eq!((server.all_asked(), client.files()), (0, vec!["prompts.jsonl".to_owned(), "table".to_owned()]));
}

#[tokio::test]
async fn prompts_may_come_through_a_pipe() {
    let (server, client) = with_prompts(&["one"]).await;
    assert_ends(&client.run(&["submit", "-"]).await, 2, &["-o"]);
    for _ in 0..2 {
        let mut command = client.command(&["submit", "-", "-o", "results.jsonl"]);
        command.stdin(File::open(client.path("prompts.jsonl")).expect("the prompts"));
        assert_ends(&client.finish(command).await, 0, &[]);
    }
    assert_eq!(server.asked(Route::Submit).len(), 1);
}

#[tokio::test]
async fn a_crash_while_it_sends_repeats_nothing() {
    let (server, client) = with_prompts(&["one", "two", "three"]).await;
    let gate = Gate::closed();
    server.script(Route::Submit, Mishap::Held(gate.clone()));
    let mut crashed = client.start(SUBMIT);
    server.until_asked(Route::Submit, 1).await;
    crashed.kill();
    gate.open();
    assert_ends(&client.run(SUBMIT).await, 0, &[]);
    let sent = server.asked(Route::Submit);
    assert_eq!((sent.len(), keys(&sent).len(), server.batches().len()), (2, 1, 1));
    assert_eq!(sent[0].body, sent[1].body);
    assert_each_once(&client, 3);
}

#[tokio::test]
async fn a_crash_while_it_waits_repeats_nothing() {
    let (server, client) = with_prompts(&["one", "fail", "three", "four", "five"]).await;
    server.let_through(4);
    let mut crashed = client.start(SUBMIT);
    client.until_lines("results.jsonl", 3).await;
    crashed.kill();
    // As a crash leaves it: the last line is torn.
    let results = client.read("results.jsonl");
    client.write("results.jsonl", &results[..results.len() - 5]);
    let read_before = server.asked(Route::Results).len();
    server.let_through(usize::MAX);
    assert_ends(&client.run(SUBMIT).await, 5, &[]);
    assert!(server.asked(Route::Results)[read_before].path.ends_with("after=3"));
    assert_eq!(server.asked(Route::Submit).len(), 1);
    assert_each_once(&client, 5);
}

#[tokio::test]
async fn who_interrupts_it_is_told_how_to_go_on() {
    let (server, client) = with_prompts(&["one", "two"]).await;
    server.let_through(1);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut run = client.start(SUBMIT);
        client.until_lines("results.jsonl", 1).await;
        // It listens for signals before it reads results.
        server.until_asked(Route::Results, server.asked(Route::Results).len() + 1).await;
        run.signal(signal);
        assert_eq!(run.ended(PATIENCE).await.expect("an end"), code);
        let id = server.batches()[0].to_string();
        for words in ["interrupted", &id, "the same command again", "batch cancel"] {
            assert!(run.output().contains(words), "{words:?} is not in {}", run.output());
        }
    }
    server.let_through(2);
    assert_ends(&client.run(SUBMIT).await, 0, &[]);
    assert_eq!(server.asked(Route::Submit).len(), 1);
    assert_each_once(&client, 2);
}

#[tokio::test]
async fn a_bad_network_changes_nothing() {
    let (server, client) = with_prompts(&["one", "fail", "three", "four"]).await;
    let cut_short = || Mishap::CutAfter(60);
    server.page(2);
    server.script(Route::Health, Mishap::Cut);
    for mishap in [Mishap::Cut, Mishap::CutAfter(0), cut_short(), Mishap::busy(429, 1), Mishap::status(502, "x")] {
        server.script(Route::Submit, mishap);
    }
    for mishap in [Mishap::busy(503, 0), cut_short(), Mishap::status(500, "internal")] {
        server.script(Route::Look, mishap);
    }
    for mishap in [Mishap::CutAfter(300), cut_short(), Mishap::Cut, Mishap::busy(429, 0)] {
        server.script(Route::Results, mishap);
    }
    assert_ends(&client.run(SUBMIT).await, 5, &["trying again for 10 minutes", "going on"]);
    let sent = server.asked(Route::Submit);
    assert_eq!((sent.len(), keys(&sent).len(), server.batches().len()), (6, 1, 1));
    assert!(sent.iter().all(|asked| asked.body == client.read("prompts.jsonl").as_bytes()));
    assert_each_once(&client, 4);
}

#[tokio::test]
async fn patience_has_an_end() {
    let (server, client) = with_prompts(&["one"]).await;
    let impatient = [SUBMIT, &["--patience", "1s"]].concat();
    // What the server did not take is forgotten.
    server.always(Route::Submit, Mishap::busy(503, 0));
    assert_ends(&client.run(&impatient).await, 1, &["503", "as scripted"]);
    assert_eq!(client.files(), ["prompts.jsonl"]);
    // What it may have taken is not.
    server.always(Route::Submit, Mishap::CutAfter(0));
    assert_ends(&client.run(&impatient).await, 1, &["broke off", "runs nothing twice"]);
    server.always(Route::Submit, None);
    server.always(Route::Look, Mishap::busy(503, 90));
    let id = server.batches()[0].to_string();
    assert_ends(&client.run(&impatient).await, 1, &["503", &id, "the same command again"]);
    server.always(Route::Look, None);
    assert_ends(&client.run(&impatient).await, 0, &[]);
    assert_eq!(server.batches().len(), 1);

    let nowhere = Client::of("http://127.0.0.1:1", KEY);
    nowhere.write("prompts.jsonl", lines(&["one"]));
    assert_ends(&nowhere.run(&impatient).await, 1, &["http://127.0.0.1:1 cannot be reached", "trying again"]);
    assert_eq!(nowhere.files(), ["prompts.jsonl"]);
}

#[tokio::test]
async fn lines_that_the_server_refuses_are_named_and_can_be_mended() {
    let (server, client) = with_prompts(&["one", "two"]).await;
    let bad = json!({
        "error": "lines of the body make no sense", "code": "invalid_lines", "request_id": "r-1", "invalid_count": 3,
        "invalid_lines": [{ "line": 1, "error": "`prompt` is missing" }, { "line": 2, "error": "no such agent" }],
    });
    client.write("prompts.csv", "prompt\none\ntwo\n");
    for (input, first, second) in [("prompts.jsonl", "line 1: ", "line 2: "), ("prompts.csv", "row 2: ", "row 3: ")] {
        server.script(Route::Submit, Mishap::Answer(422, Vec::new(), bad.clone()));
        let ran = client.run(&["submit", input, "-o", "results.jsonl", "--agent", AGENT]).await;
        let words = [&format!("{first}`prompt` is missing"), &format!("{second}no such agent"), "and 1 more", input];
        assert_ends(&ran, 4, &words);
        assert_eq!(client.files(), ["prompts.csv", "prompts.jsonl"]);
    }
    client.write("prompts.jsonl", lines(&["one"]));
    assert_ends(&client.run(SUBMIT).await, 0, &[]);
    assert_eq!(keys(&server.asked(Route::Submit)).len(), 3);
}

#[tokio::test]
async fn a_refusal_is_told_as_the_server_says_it() {
    let (server, client) = with_prompts(&["one"]).await;
    for (status, code, expected) in [(401, "unauthorized", 4), (413, "batch_too_large", 4), (404, "not_found", 3)] {
        server.script(Route::Submit, Mishap::status(status, code));
        assert_ends(&client.run(SUBMIT).await, expected, &["as scripted", code, &status.to_string(), "r-1"]);
        assert_eq!(client.files(), ["prompts.jsonl"]);
    }
    let moved = Mishap::Answer(308, vec![("location", "https://elsewhere/".to_owned())], Value::Null);
    server.script(Route::Health, moved);
    assert_ends(&client.run(SUBMIT).await, 4, &["https://elsewhere/"]);
    server.script(Route::Health, Mishap::Answer(200, Vec::new(), json!("not ours")));
    server.script(Route::Submit, Mishap::Answer(200, Vec::new(), json!("not ours")));
    assert_ends(&client.run(SUBMIT).await, 1, &["not what was expected"]);

    // After an answer that was lost, nothing is forgotten.
    client.run(&[SUBMIT, &["--restart"]].concat()).await;
    let (server, client) = with_prompts(&["one"]).await;
    server.script(Route::Submit, Mishap::CutAfter(0));
    server.script(Route::Submit, Mishap::status(403, "channel_disabled"));
    assert_ends(&client.run(SUBMIT).await, 4, &["channel_disabled", "runs nothing twice"]);
    assert_ends(&client.run(SUBMIT).await, 0, &[]);
    assert_eq!((server.batches().len(), keys(&server.asked(Route::Submit)).len()), (1, 1));
}

#[tokio::test]
async fn it_needs_an_address_and_a_key_that_nobody_sees() {
    let (server, client) = with_prompts(&["one"]).await;
    let without = |name: &str| {
        let mut command = client.command(SUBMIT);
        command.env_remove(name);
        command
    };
    assert_ends(&client.finish(without("FRONTDESK_URL")).await, 2, &["--url", "FRONTDESK_URL"]);
    assert_ends(&client.finish(without("FRONTDESK_KEY")).await, 2, &["--key-file", "FRONTDESK_KEY"]);
    let wrong = [SUBMIT, &["--url", "localhost:8080"]].concat();
    assert_ends(&client.run(&wrong).await, 2, &["localhost:8080"]);
    let mut command = without("FRONTDESK_KEY");
    command.args(["--key-file", "key", "--url", &format!("{}/", server.url())]).env_remove("FRONTDESK_URL");
    client.write("key", "sk-another\n");
    assert_ends(&client.run(&[SUBMIT, &["--key-file", "key"]].concat()).await, 4, &["401", "a valid API key"]);
    assert_eq!(client.files(), ["key", "prompts.jsonl"]);
    client.write("key", format!("{KEY}\n"));
    assert_ends(&client.finish(command).await, 0, &[]);
    assert!(!client.read(STATE).contains(KEY));
}

#[tokio::test]
async fn other_prompts_are_not_taken_for_those_of_an_earlier_run() {
    let (server, client) = with_prompts(&["one", "fail"]).await;
    let ask = async |more: &[&str]| client.run(&[SUBMIT, more].concat()).await;
    assert_ends(&ask(&[]).await, 5, &[]);
    client.write("prompts.jsonl", lines(&["other"]));
    let before = client.read("results.jsonl");
    assert_ends(&ask(&[]).await, 4, &["other prompts", "--restart", "another -o"]);
    client.write("prompts.jsonl", lines(&["one", "fail"]));
    assert_ends(&ask(&["--agent", AGENT]).await, 5, &["already"]);
    let elsewhere = BatchServer::start().await;
    let id = server.batches()[0].to_string();
    let ran = ask(&["--url", &elsewhere.url()]).await;
    assert_ends(
        &ran,
        4,
        &[&server.url(), &elsewhere.url(), &format!("batch results {id} -o results.jsonl"), "--restart"],
    );
    assert_eq!((client.read("results.jsonl"), elsewhere.all_asked()), (before, 0));

    client.write("prompts.jsonl", lines(&["other"]));
    assert_ends(&ask(&["--restart"]).await, 0, &[]);
    assert_eq!(client.lines("results.jsonl")[0]["content"], "other");
    assert_eq!(client.files(), ["prompts.jsonl", "results.jsonl", STATE]);
    assert_eq!((server.batches().len(), keys(&server.asked(Route::Submit)).len()), (2, 2));
}

#[tokio::test]
async fn files_of_somebody_else_are_left_alone() {
    let (server, client) = with_prompts(&["one"]).await;
    for name in ["results.jsonl", "results.failures.jsonl"] {
        client.write(name, "{\"mine\":1}\n");
        assert_ends(&client.run(SUBMIT).await, 4, &["results.jsonl", "another -o"]);
        assert_eq!(client.read(name), "{\"mine\":1}\n");
        std::fs::remove_file(client.path(name)).expect("removed");
    }
    for output in ["prompts.jsonl", "./prompts.jsonl", "/dev/null", "/no/such/folder/results.jsonl"] {
        let ran = client.run(&["submit", "prompts.jsonl", "-o", output]).await;
        assert!(matches!(ran.code, 1 | 2) && !ran.stderr.is_empty(), "{ran:?}");
    }
    assert_eq!((client.read("prompts.jsonl"), server.all_asked()), (lines(&["one"]), 0));
}

#[tokio::test]
async fn two_at_once_do_not_write_to_one_file() {
    let (server, client) = with_prompts(&["one"]).await;
    let gate = Gate::closed();
    server.script(Route::Submit, Mishap::Held(gate.clone()));
    let mut first = client.start(SUBMIT);
    server.until_asked(Route::Submit, 1).await;
    assert_ends(&client.run(&[SUBMIT, &["--restart"]].concat()).await, 4, &["another `gateway batch`"]);
    gate.open();
    assert_eq!(first.ended(PATIENCE).await.expect("an end"), 0);
    assert_each_once(&client, 1);
}

#[tokio::test]
async fn what_was_sent_long_ago_is_not_sent_again() {
    let (server, client) = with_prompts(&["one"]).await;
    server.always(Route::Submit, Mishap::CutAfter(0));
    assert_ends(&client.run(&[SUBMIT, &["--patience", "0s"]].concat()).await, 1, &[]);
    server.always(Route::Submit, None);
    let mut state: Value = serde_json::from_str(&client.read(STATE)).expect("JSON");
    let begun_at = state["upload"]["begun_at"].as_i64().expect("a time");
    state["upload"]["begun_at"] = json!(begun_at - 86_400_000);
    client.write(STATE, state.to_string());
    assert_ends(&client.run(SUBMIT).await, 4, &["too long ago", "batch list", "--restart"]);
    assert_eq!(server.batches().len(), 1);
}

#[tokio::test]
async fn a_batch_that_somebody_else_cancels_ends() {
    let (server, client) = with_prompts(&["one", "two", "three"]).await;
    server.let_through(1);
    let mut run = client.start(&[SUBMIT, &["--patience", "1s", "--json"]].concat());
    client.until_lines("results.jsonl", 1).await;
    server.cancel();
    assert_eq!(run.ended(PATIENCE).await.expect("an end"), 5);
    let output = run.output();
    assert!(output.contains("\"missing\": 2") && output.contains("\"status\": \"cancelled\""), "{output}");
}

#[tokio::test]
async fn batches_are_shown_read_stopped_and_run_again() {
    let (server, client) = with_prompts(&["one", "fail"]).await;
    assert_ends(&client.run(&[SUBMIT, &["-q"]].concat()).await, 5, &["1 of 2 prompts were not answered"]);
    let id = &server.batches()[0].to_string()[..];
    let shown = json_of(&client.run(&["status", id, "--json"]).await);
    assert_eq!((&shown["batch_id"], &shown["request_counts"]["failed"]), (&json!(id), &json!(1)));
    assert_eq!(json_of(&client.run(&["list", "--json"]).await)[0]["batch_id"], id);
    let again = json_of(&client.run(&["retry-failed", id, "--json"]).await)["batch_id"].clone();
    assert_ne!(again, json!(id));
    let row = client.run(&["list"]).await.stdout;
    assert!(row.contains(id) && row.contains("completed"), "{row}");

    for _ in 0..2 {
        assert_ends(&client.run(&["results", id, "-o", "copy.jsonl"]).await, 5, &["1 of 2 prompts"]);
        assert_eq!(client.custom_ids("copy.jsonl"), ["c-1"]);
        assert_eq!(client.custom_ids("copy.failures.jsonl"), ["c-2"]);
    }
    let again = again.as_str().expect("an id");
    assert_ends(&client.run(&["results", again, "-o", "copy.jsonl"]).await, 4, &["another batch"]);
    assert_ends(&client.run(&["submit", "prompts.jsonl", "-o", "copy.jsonl"]).await, 4, &["another -o"]);
    assert_eq!(json_of(&client.run(&["cancel", id, "--json"]).await)["status"], "cancelled");
    let stranger = common::domain::ids::BatchId::new().to_string();
    for command in ["status", "cancel", "retry-failed"] {
        let ran = client.run(&[command, &stranger]).await;
        assert!(ran.code == 3 || command == "retry-failed", "{ran:?}");
    }
    assert_ends(&client.run(&["results", &stranger, "-o", "none.jsonl"]).await, 3, &["no such batch"]);
    assert!(!client.files().iter().any(|name| name.starts_with("none")), "{:?}", client.files());
}
