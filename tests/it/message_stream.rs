//! `GET /api/v1/messages/{id}/stream`: events on any gateway, cut anywhere and resumed without loss.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use rstest::rstest;
use serde_json::json;
use tests::{
    answer::Answer,
    caller::Caller,
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    patience::until,
    sse::{self, Event, Events, names, text},
    stack::Stack,
};

use crate::messages::{get, submit};

const TEXT: &str = "Grüße, 世界! 🦀🌍 — ﷺ e\u{301}\n\n\tdone\r\n: no comment\ndata: no data\n ";

/// Every character is a piece of its own.
fn pieces() -> Vec<String> {
    TEXT.chars().map(String::from).collect()
}

fn request(stack: &Stack, index: usize, id: &str, last: Option<&str>) -> RequestBuilder {
    let request = stack.request_at(index, Method::GET, &format!("/api/v1/messages/{id}/stream"), &stack.key);
    last.into_iter().fold(request, |request, last| request.header("last-event-id", last))
}

async fn follow(stack: &Stack, index: usize, id: &str) -> Events {
    Events::open(request(stack, index, id, None)).await
}

#[rstest]
#[tokio::test]
async fn events_come_while_the_answer_is_made_through_any_gateway(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.script(Behaviour::answer([TEXT, "the rest"]).held_after(1, &gate));
    let mut stack = Stack::with_model(database, &model).gateways(2).workers(0).start().await;
    let id = submit(&stack, "go on").await;
    let mut readers = [follow(&stack, 0, &id).await, follow(&stack, 1, &id).await];
    for reader in &mut readers {
        assert_eq!(reader.expect("message.queued").await.data["message_id"], json!(id));
    }
    stack.add_worker().await;
    let mut late = follow(&stack, 1, &id).await;
    late.expect("message.queued").await;
    for reader in readers.iter_mut().chain([&mut late]) {
        reader.expect("message.started").await;
        assert_eq!(reader.expect("message.delta").await.data, json!({ "text": TEXT }));
    }
    gate.open();
    let [first, second] = readers;
    for reader in [first, second, late] {
        let rest = reader.rest().await;
        assert_eq!(names(&rest), ["message.delta", "message.completed"]);
        assert_eq!(text(&rest), "the rest");
        let message = &rest.last().expect("an end").data;
        assert_eq!(message["content"], json!(format!("{TEXT}the rest")));
        assert_eq!(*message, get(&stack, 0, &format!("/api/v1/messages/{id}")).await.ok());
    }
}

#[rstest]
#[tokio::test]
async fn cut_at_any_event_of_a_running_message_nothing_is_lost_or_doubled(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(pieces()).paced(Duration::from_millis(40)));
    let stack = Stack::with_model(database, &model).gateways(2).set("FRONTDESK_READ_LIMIT", 10_000).start().await;
    let id = submit(&stack, "go on").await;
    let mut seen: Vec<Event> = Vec::new();
    for connection in 0.. {
        let last = seen.last().map(|event| event.id.clone()).filter(|id| !id.is_empty());
        let mut events = Events::open(request(&stack, connection % 2, &id, last.as_deref())).await;
        let mut event = events.next().await.expect("an event");
        if event.name == "message.queued" {
            // It has no id: who was cut here begins anew.
            event = events.next().await.expect("an event");
        }
        seen.push(event);
        if seen.last().is_some_and(|event| event.name == "message.completed") {
            break;
        }
    }
    assert_eq!(names(&seen), ["message.started", "message.delta", "message.completed"]);
    assert_eq!(text(&seen), TEXT);
    assert!(seen.len() > 5, "it was cut often: {}", seen.len());
    assert_eq!(model.calls().len(), 1);
}

#[rstest]
#[tokio::test]
async fn a_finished_message_is_streamed_from_any_event_on(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(pieces()).paced(Duration::from_millis(25)));
    let stack = Stack::with_model(database, &model).gateways(2).set("FRONTDESK_READ_LIMIT", 10_000).start().await;
    let id = submit(&stack, "go on").await;
    let live = follow(&stack, 0, &id).await.rest().await;
    assert_eq!(text(&live), TEXT);
    let stored = follow(&stack, 1, &id).await.rest().await;
    assert_eq!((text(&stored).as_str(), stored.len()), (TEXT, 4));
    for seen in [&live, &stored] {
        for (index, event) in seen.iter().enumerate().filter(|(_, event)| !event.id.is_empty()) {
            let again = request(&stack, index % 2, &id, Some(&event.id)).send().await.expect("an answer");
            if index + 1 == seen.len() {
                assert_eq!(again.status(), 204, "who has seen the end has no reason to come back");
                continue;
            }
            let rest = Events::of(again).rest().await;
            assert_eq!(text(&[&seen[..=index], &rest[..]].concat()), TEXT, "after {event:?}");
            assert!(rest.iter().all(|event| event.name != "message.restarted"));
            assert_eq!(rest.last().expect("an end").data, seen.last().expect("an end").data);
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_worker_that_dies_shows_as_a_restart_and_one_whole_answer(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.script(Behaviour::answer(["half an ", "answer"]).held_after(1, &Gate::closed()));
    model.script(Behaviour::answer(["half an ", "answer, and more"]).held_after(1, &gate));
    let mut stack = Stack::with_model(database, &model).gateways(2).set("FRONTDESK_ACK_WAIT", "1s").start().await;
    let id = submit(&stack, "go on").await;
    let mut events = follow(&stack, 1, &id).await;
    for name in ["message.queued", "message.started"] {
        events.expect(name).await;
    }
    let lost = events.expect("message.delta").await;
    assert_eq!(lost.data["text"], "half an ");
    stack.kill_workers();
    stack.add_worker().await;
    assert_eq!(events.expect("message.restarted").await.data, json!({ "attempt": 2 }));
    // Who was cut before the restart is told of it as well: while the second run goes on, and after the end.
    let mut cut = Events::open(request(&stack, 0, &id, Some(&lost.id))).await;
    cut.expect("message.restarted").await;
    gate.open();
    let after = Events::open(request(&stack, 0, &id, Some(&lost.id)));
    for (which, reader) in [("the one that stayed", events), ("the one that was cut", cut), ("a late one", after.await)]
    {
        let rest = reader.rest().await;
        assert_eq!(text(&rest), "half an answer, and more", "{which}");
        assert_eq!(rest.last().expect("an end").data["content"], "half an answer, and more", "{which}");
        assert_eq!(rest.last().expect("an end").data["attempts"], 2, "{which}");
    }
    let stored = Events::open(request(&stack, 1, &id, Some(&lost.id))).await.rest().await;
    assert_eq!(names(&stored), ["message.restarted", "message.delta", "message.completed"]);
}

#[rstest]
#[tokio::test]
async fn an_id_that_is_none_of_this_stream_is_refused(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_READ_LIMIT", 10_000).start().await;
    let (id, other) = (submit(&stack, "one two").await, submit(&stack, "one two").await);
    let last = |events: Vec<Event>| events[events.len() - 2].id.clone();
    let good = last(follow(&stack, 0, &id).await.rest().await);
    let foreign = last(follow(&stack, 0, &other).await.rest().await);
    let (place, at) = good.rsplit_once('.').expect("three parts");
    let future = format!("{place}.{}", at.parse::<usize>().expect("an offset") + 1_000);
    let long = "9".repeat(5_000);
    for wrong in [&foreign, &future, "x", "0", "1.2.3", "-1.-1.-1", "1-1-0.0.0", "é", "{}", &long, &format!("{good} ")]
    {
        if wrong.trim() == wrong {
            let by_header = Answer::to(request(&stack, 0, &id, Some(wrong))).await.fault(400, "invalid_request");
            assert!(by_header["error"].as_str().is_some_and(|error| error.contains("Last-Event-ID")), "{by_header}");
        }
        let escaped: String = wrong.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/messages/{id}/stream?after={escaped}");
        get(&stack, 0, &path).await.fault(400, "invalid_request");
    }
    Answer::to(request(&stack, 0, &id, Some(&good)).header("last-event-id", &good)).await.fault(400, "invalid_request");
    let path = format!("/api/v1/messages/{id}/stream?after={good}");
    let rest = Events::open(stack.request(Method::GET, &path)).await.rest().await;
    assert_eq!(names(&rest), ["message.completed"]);
    let both = Events::open(stack.request(Method::GET, &path).header("last-event-id", "")).await.rest().await;
    assert_eq!(names(&both), ["message.completed"]);
}

#[rstest]
#[tokio::test]
async fn a_queue_that_was_gone_costs_readers_nothing(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.script(Behaviour::answer(["before, ", "after"]).held_after(1, &gate));
    let mut stack = Stack::with_model(database, &model).gateways(2).start().await;
    let id = submit(&stack, "go on").await;
    let mut events = follow(&stack, 1, &id).await;
    for name in ["message.queued", "message.started", "message.delta"] {
        events.expect(name).await;
    }
    stack.nats.restart().await.expect("a queue");
    gate.open();
    let rest = events.rest().await;
    assert_eq!(text(&rest), "after");
    assert_eq!(rest.last().expect("an end").data["content"], "before, after");
}

#[rstest]
#[tokio::test]
async fn a_gateway_that_stops_sends_its_readers_on(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.script(Behaviour::answer(["before, ", "after"]).held_after(1, &gate));
    let mut stack = Stack::with_model(database, &model).gateways(2).start().await;
    let id = submit(&stack, "go on").await;
    let mut events = follow(&stack, 1, &id).await;
    for name in ["message.queued", "message.started"] {
        events.expect(name).await;
    }
    let last = events.expect("message.delta").await;
    let caller = Caller::of(&stack).at(&stack.gateways[1]);
    let path = format!("/api/v1/messages/{id}?wait=300");
    let mut looks = 0;
    let stop = async {
        // The gateway has taken the poll once it has counted it, beside the stream and these looks.
        until("the poll is counted", async || {
            looks += 1;
            let look = caller.get(&format!("/api/v1/messages/{id}")).await;
            look.header("ratelimit")?.starts_with(&format!("\"read\";r={};", 598 - looks)).then_some(())
        })
        .await;
        stack.gateways[1].process.signal("TERM");
    };
    let (polled, (), rest) = tokio::join!(caller.get(&path), stop, events.rest());
    assert_eq!(rest.len(), 0, "a clean end without a last event: {rest:?}");
    assert!(polled.ok()["completed_at"].is_null(), "whoever waits is told how it stands");
    stack.gateways[1].process.ended(Duration::from_secs(60)).await.expect("nobody holds it up");
    gate.open();
    let rest = Events::open(request(&stack, 0, &id, Some(&last.id))).await.rest().await;
    assert_eq!((text(&rest).as_str(), rest.len()), ("after", 2));
}

#[rstest]
#[tokio::test]
async fn a_stream_lasts_for_a_while_and_who_comes_back_misses_nothing(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.script(Behaviour::answer(["before, ", "after"]).held_after(1, &gate));
    let stack = Stack::with_model(database, &model).set("FRONTDESK_STREAM_LIFETIME", "1s").start().await;
    let id = submit(&stack, "go on").await;
    let (mut seen, mut streams): (Vec<Event>, _) = (Vec::new(), 0);
    while seen.last().is_none_or(|event| event.name != "message.completed") {
        let last = seen.last().map(|event| event.id.clone()).filter(|id| !id.is_empty());
        let rest = Events::open(request(&stack, 0, &id, last.as_deref())).await.rest().await;
        if last.is_none() {
            seen.clear();
        }
        seen.extend(rest);
        streams += 1;
        if text(&seen) == "before, " {
            gate.open();
        }
    }
    assert!(streams > 1, "the first one ended before the message");
    assert_eq!(text(&seen), "before, after");
    assert_eq!(model.calls().len(), 1);
}

#[rstest]
#[tokio::test]
async fn a_key_holds_so_many_streams_open_and_no_more(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).set("FRONTDESK_STREAM_LIMIT", 2).start().await;
    let id = submit(&stack, "go on").await;
    let (first, _second) = (follow(&stack, 0, &id).await, follow(&stack, 0, &id).await);
    Answer::to(request(&stack, 0, &id, None)).await.fault(429, "too_many_streams");
    drop(first);
    until("there is room again", async || {
        let answer = request(&stack, 0, &id, None).send().await.ok()?;
        (answer.status() == 200).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_slow_reader_is_told_and_cut_and_the_others_go_on(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    // More, and for longer, than a reader may be behind.
    let pieces: Vec<String> = (0..64).map(|number| format!("{number:>65535}")).collect();
    model.script(Behaviour::answer(pieces.clone()).paced(Duration::from_millis(80)));
    let mut stack = Stack::with_model(database, &model).workers(0).start().await;
    let id = submit(&stack, "go on").await;
    let mut slow: Vec<Response> = Vec::new();
    for _ in 0..10 {
        slow.push(request(&stack, 0, &id, None).send().await.expect("a head"));
    }
    let quick = follow(&stack, 0, &id).await;
    stack.add_worker().await;
    let quick = quick.rest().await;
    let whole = pieces.concat();
    assert!(text(&quick) == whole && names(&quick).last() == Some(&"message.completed"), "{:?}", names(&quick));
    for reader in slow {
        let bytes = reader.bytes().await.expect("a clean end").to_vec();
        assert!(String::from_utf8_lossy(&bytes).contains("\n: too slow"), "it is told");
        let seen = sse::read(bytes).await;
        let last = seen.last().expect("an event");
        assert_eq!(last.name, "message.delta", "it is cut before the end");
        let rest = Events::open(request(&stack, 0, &id, Some(&last.id))).await.rest().await;
        assert!(text(&[seen, rest].concat()) == whole, "what it comes back for is the rest");
    }
}
