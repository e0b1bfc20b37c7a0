//! `Idempotency-Key`: the same request sent again, on whatever gateway, is the same message.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, future::join_all};
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::{
    answer::Answer,
    caller::{Caller, chat_body},
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    patience::{nonce, until},
    stack::{Stack, metric},
};
use tokio::time::{Duration, sleep};

const CHAT: &str = "/api/v1/chat";
const AGENT_CHAT: &str = "/api/agents/chat";
const MESSAGES: &str = "/api/v1/messages";
const WEBHOOK: &str = "/api/v1/webhook";

/// A stack of two gateways that both know the channels `api` and `webhooks`.
async fn two_gateways(database: Database, model: &ModelServer) -> Stack {
    let stack = Stack::with_model(database, model).gateways(2).set("FRONTDESK_KEY_LIMIT", 10_000).start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    stack
}

/// The first key at each gateway, with one idempotency key.
fn keyed(stack: &Stack, key: &str) -> [Caller; 2] {
    [0, 1].map(|index| Caller::of(stack).at(&stack.gateways[index]).with_header("idempotency-key", key))
}

fn replayed(answer: &Answer) -> Option<&str> {
    answer.header("idempotent-replayed")
}

#[rstest]
#[tokio::test]
async fn fifty_equal_requests_at_once_are_one_message(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
    #[values(CHAT, AGENT_CHAT)] path: &str,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["one ", "answer"]).held_after(1, &gate));
    let stack = two_gateways(database, &model).await;
    let callers = keyed(&stack, "fifty");
    let prompt = nonce();
    let body = match path {
        CHAT => chat_body(&stack.agent, &prompt),
        _ => json!({ "agentId": stack.agent, "message": prompt }),
    };
    let calls = callers.iter().cycle().take(50).map(|caller| caller.post(path, body.to_string()));
    let opens = async {
        model.called(1).await;
        gate.open();
    };
    let (answers, ()) = tokio::join!(join_all(calls), opens);
    let bodies: BTreeSet<String> = answers.iter().map(|answer| answer.ok().to_string()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(answers[0].json()["content"], "one answer");
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer.header("x-message-id")).collect();
    assert_eq!((ids.len(), model.calls().len()), (1, 1));
    let mut accepted = 0.0;
    for gateway in &stack.gateways {
        accepted += metric(stack.client(), &gateway.metrics_url, "frontdesk_jobs_accepted_total").await;
    }
    assert_eq!(accepted, 1.0);
    stack.until_billed(1, Duration::from_secs(30)).await.expect("one bill");
}

#[rstest]
#[tokio::test]
async fn fifty_equal_submissions_at_once_are_one_message(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
    #[values(MESSAGES, WEBHOOK)] path: &str,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = two_gateways(database, &model).await;
    let body = chat_body(&stack.agent, &nonce()).to_string();
    let callers = keyed(&stack, "fifty");
    let calls = callers.iter().cycle().take(50).map(|caller| caller.post(path, body.as_str()));
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{:?}", answers.iter().find(|a| a.status != 202));
    let bodies: BTreeSet<String> = answers.iter().map(|answer| answer.json().to_string()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    stack.until_billed(1, Duration::from_secs(30)).await.expect("one bill");
    let late = callers[1].post(path, body.as_str()).await;
    assert_eq!((late.status, replayed(&late), late.json()), (202, Some("true"), answers[0].json()));
    assert_eq!(model.calls().len(), 1);
}

/// Once a message has ended, its outcome is what every equal request gets, however it went.
#[rstest]
#[tokio::test]
async fn what_has_ended_is_answered_again(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    model.always(Behaviour::answer(["as ", "before"]));
    let mut stack = two_gateways(database, &model).await;
    let (chat, message) = (chat_body(&stack.agent, "hello").to_string(), json!("hello"));
    let other = json!({ "agentId": stack.agent, "message": message }).to_string();
    let streamed = json!({ "agentId": stack.agent, "message": message, "stream": true }).to_string();
    let requests = [("a", CHAT, chat), ("b", AGENT_CHAT, other), ("c", AGENT_CHAT, streamed)];
    let mut first = Vec::new();
    for (key, path, body) in &requests {
        let answer = keyed(&stack, key)[0].post(path, body.as_str()).await;
        assert_eq!((answer.status, replayed(&answer)), (200, None), "{answer}");
        first.push(answer);
    }
    model.always(Behaviour::wrong_key());
    let failing = chat_body(&stack.agent, "fail").to_string();
    let failed = keyed(&stack, "d")[0].post(CHAT, failing.as_str()).await;
    failed.fault(502, "agent_failed");
    let calls = model.calls().len();

    stack.restart_gateway(0).await;
    stack.until_status("/readyz", 200, Duration::from_secs(60)).await.expect("ready");
    for index in [0, 1] {
        for ((key, path, body), first) in requests.iter().zip(&first) {
            let again = keyed(&stack, key)[index].post(path, body.as_str()).await;
            assert_eq!((again.status, replayed(&again)), (200, Some("true")), "{again}");
            assert_eq!((again.text(), again.header("x-message-id")), (first.text(), first.header("x-message-id")));
        }
        let again = keyed(&stack, "d")[index].post(CHAT, failing.as_str()).await;
        let fault = again.fault(502, "agent_failed");
        assert_eq!((&fault["message_id"], replayed(&again)), (&failed.json()["message_id"], Some("true")));
    }
    assert_eq!(model.calls().len(), calls);
}

/// Whoever hung up, or whose gateway died, sends the same again and finds the message still running.
#[rstest]
#[tokio::test]
async fn a_repeated_request_attaches_to_what_runs(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["one ", "answer"]).held_after(1, &gate));
    let mut stack = two_gateways(database, &model).await;
    let body = chat_body(&stack.agent, &nonce());
    let cut_off = {
        let [caller, _] = keyed(&stack, "attach");
        let request = caller.request(Method::POST, CHAT).header("content-type", "application/json");
        let call = Box::pin(request.body(body.to_string()).send());
        let called = Box::pin(model.called(1));
        futures_util::future::select(call, called).await;
        stack.restart_gateway(0).await;
        keyed(&stack, "attach")
    };
    stack.until_status("/readyz", 200, Duration::from_secs(60)).await.expect("ready");
    let opens = async {
        sleep(Duration::from_millis(500)).await;
        gate.open();
    };
    let calls = join_all(cut_off.iter().map(|caller| caller.post(CHAT, body.to_string())));
    let (answers, ()) = tokio::join!(calls, opens);
    assert_eq!(answers[0].ok(), answers[1].ok());
    assert_eq!((&answers[0].json()["content"], model.calls().len()), (&json!("one answer"), 1));
}

/// A stream that is asked for again comes from the beginning, and as it is made.
#[rstest]
#[tokio::test]
async fn a_repeated_stream_is_the_same_text_from_its_beginning(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["once ", "upon ", "a time"]).held_after(1, &gate));
    let stack = two_gateways(database, &model).await;
    let body = json!({ "agentId": stack.agent, "message": "tell me", "stream": true }).to_string();
    let begin = async |caller: &Caller| {
        let request = caller.request(Method::POST, AGENT_CHAT).header("content-type", "application/json");
        let answer = request.body(body.clone()).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let mut pieces = answer.bytes_stream();
        let first = pieces.next().await.expect("a piece").expect("bytes");
        assert_eq!(first, "once ");
        pieces
    };
    let [here, there] = keyed(&stack, "stream");
    let streams = [begin(&here).await, begin(&there).await, begin(&here).await];
    gate.open();
    for stream in streams {
        let rest: Vec<u8> = stream.map(|piece| piece.expect("bytes").to_vec()).collect::<Vec<_>>().await.concat();
        assert_eq!(rest, b"upon a time");
    }
    let again = there.post(AGENT_CHAT, body.as_str()).await;
    assert_eq!((again.text(), replayed(&again), model.calls().len()), ("once upon a time", Some("true"), 1));
}

/// A purged message is still the message of its key: what was accepted is accepted, and what was answered is gone.
#[rstest]
#[tokio::test]
async fn a_purged_message_is_not_made_again(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let body = chat_body(&stack.agent, &nonce()).to_string();
    let caller = Caller::of(&stack);
    let (chat, message) = (caller.with_header("idempotency-key", "1"), caller.with_header("idempotency-key", "2"));
    let answered = chat.post(CHAT, body.as_str()).await.ok();
    let accepted = message.post(MESSAGES, body.as_str()).await.json();
    stack.until_billed(2, Duration::from_secs(60)).await.expect("both have ended");
    for id in [&answered["message_id"], &accepted["message_id"]] {
        let path = format!("{MESSAGES}/{}", id.as_str().expect("an id"));
        let purged = caller.request(Method::DELETE, &path).send().await.expect("an answer");
        assert_eq!(purged.status(), 204);
    }
    let gone = chat.post(CHAT, body.as_str()).await;
    assert_eq!(
        (gone.fault(410, "purged")["message_id"].clone(), replayed(&gone)),
        (answered["message_id"].clone(), Some("true"))
    );
    let again = message.post(MESSAGES, body.as_str()).await;
    assert_eq!((again.status, again.json(), replayed(&again)), (202, accepted, Some("true")));
}

#[rstest]
#[tokio::test]
async fn after_a_504_the_same_request_gets_the_answer(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["worth ", "waiting for"]).held_after(1, &gate));
    let settings = Stack::with_model(database, &model).gateways(2).set("FRONTDESK_DEADLINE", "1s");
    let stack = settings.start().await;
    let body = chat_body(&stack.agent, &nonce()).to_string();
    let [here, there] = keyed(&stack, "patient");
    let timed_out = here.post(CHAT, body.as_str()).await.fault(504, "timeout");
    let again = there.post(CHAT, body.as_str()).await.fault(504, "timeout");
    assert_eq!(timed_out["message_id"], again["message_id"]);
    gate.open();
    let answer = until("the answer is there", async || {
        let answer = there.post(CHAT, body.as_str()).await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!((&answer["message_id"], &answer["content"]), (&timed_out["message_id"], &json!("worth waiting for")));
    assert_eq!(model.calls().len(), 1);
}
