//! What can be done with a message in each state, and what cannot: cancel, retry, purge.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::Caller,
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    patience::{nonce, until},
    sse::{Events, names},
    stack::Stack,
};

use crate::messages::{get, submit};

async fn act(stack: &Stack, index: usize, method: Method, path: &str) -> Answer {
    Answer::to(stack.request_at(index, method, &format!("/api/v1/messages/{path}"), &stack.key)).await
}

async fn cancel(stack: &Stack, index: usize, id: &str) -> Answer {
    act(stack, index, Method::POST, &format!("{id}/cancel")).await
}

async fn retry(stack: &Stack, id: &str) -> Answer {
    act(stack, 0, Method::POST, &format!("{id}/retry")).await
}

async fn purge(stack: &Stack, id: &str) -> Answer {
    act(stack, 0, Method::DELETE, id).await
}

/// Waits until the message `id` stands at `status`.
async fn stands_at(stack: &Stack, id: &str, status: &str) -> Value {
    until(&format!("{id} is {status}"), async || {
        let message = get(stack, 0, &format!("/api/v1/messages/{id}")).await.ok();
        (message["status"] == status).then_some(message)
    })
    .await
}

#[rstest]
#[tokio::test]
async fn each_state_allows_what_makes_sense(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = Stack::with_model(database, &model)
        .workers(0)
        .set("FRONTDESK_READ_LIMIT", 10_000)
        .set("FRONTDESK_KEY_LIMIT", 10_000)
        .set("FRONTDESK_DEADLINE", "1s")
        .set("FRONTDESK_START_BY_GRACE", "0s")
        .start()
        .await;
    let late = Answer::of(stack.chat("too late").await).await.fault(504, "timeout");
    let expired = late["message_id"].as_str().expect("an id").to_owned();
    stack.add_worker().await;
    stands_at(&stack, &expired, "expired").await;
    let completed = submit(&stack, &nonce()).await;
    stands_at(&stack, &completed, "completed").await;
    model.script(Behaviour::wrong_key());
    let failed = submit(&stack, &nonce()).await;
    assert_eq!(stands_at(&stack, &failed, "failed").await["error"]["code"], "provider_auth");
    model.script(Behaviour::hang_after_head());
    let in_progress = submit(&stack, &nonce()).await;
    stands_at(&stack, &in_progress, "in_progress").await;
    stack.kill_workers();
    let (queued, cancelled) = (submit(&stack, &nonce()).await, submit(&stack, &nonce()).await);
    assert_eq!(cancel(&stack, 0, &cancelled).await.ok()["status"], "cancelled");

    for id in [&queued, &in_progress] {
        purge(&stack, id).await.fault(409, "not_ended");
        retry(&stack, id).await.fault(409, "not_ended");
        assert_eq!(cancel(&stack, 0, id).await.ok()["status"], "cancelled");
    }
    for id in [&completed, &failed, &cancelled, &expired, &queued, &in_progress] {
        let fault = cancel(&stack, 0, id).await.fault(409, "already_ended");
        assert_eq!(fault["message_id"], json!(id));
    }
    retry(&stack, &completed).await.fault(409, "already_answered");
    for id in [&failed, &cancelled, &expired] {
        let again = retry(&stack, id).await;
        assert_eq!(again.status, 202, "{again}");
        let again = again.json()["message_id"].as_str().expect("an id").to_owned();
        let message = get(&stack, 0, &format!("/api/v1/messages/{again}")).await.ok();
        assert_eq!((&message["retry_of"], &message["status"]), (&json!(id), &json!("queued")));
    }
    for id in [&completed, &failed, &cancelled, &expired] {
        let before = get(&stack, 0, &format!("/api/v1/messages/{id}")).await.ok();
        for _ in 0..2 {
            let purged = purge(&stack, id).await;
            assert_eq!((purged.status, purged.body.len()), (204, 0), "{purged}");
        }
        retry(&stack, id).await.fault(410, "purged");
        cancel(&stack, 0, id).await.fault(409, "already_ended");
        get(&stack, 0, &format!("/api/v1/messages/{id}/stream")).await.fault(410, "purged");
        let after = get(&stack, 0, &format!("/api/v1/messages/{id}")).await.ok();
        assert_eq!((&after["content"], after["purged_at"].is_string()), (&Value::Null, true));
        assert_eq!((&after["status"], &after["usage"]), (&before["status"], &before["usage"]), "a tombstone stays");
    }
}

#[rstest]
#[tokio::test]
async fn ids_that_are_not_the_callers_are_all_alike(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let (_, _, key) = stack.another_account("second");
    let stranger = Caller::of(&stack).with_key(&key);
    let ended = submit(&stack, &nonce()).await;
    stands_at(&stack, &ended, "completed").await;
    let unknown = tests::patience::nonce().replace("nonce ", "");
    for (method, rest) in [
        (Method::GET, ""),
        (Method::GET, "?wait=1"),
        (Method::GET, "/stream"),
        (Method::DELETE, ""),
        (Method::POST, "/cancel"),
        (Method::POST, "/retry"),
    ] {
        let mut seen = Vec::new();
        for id in [ended.as_str(), unknown.as_str(), "no-uuid", "%ff", "%00"] {
            let request = stranger.request(method.clone(), &format!("/api/v1/messages/{id}{rest}"));
            let mut fault = Answer::to(request).await.fault(404, "message_not_found");
            fault["request_id"] = Value::Null;
            seen.push(fault);
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "{method} {rest}: {seen:?}");
    }
    assert_eq!(stands_at(&stack, &ended, "completed").await["purged_at"], Value::Null);
}

#[rstest]
#[tokio::test]
async fn a_queued_message_is_cancelled_and_never_run(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let mut stack = Stack::with_model(database, &model).gateways(2).workers(0).start().await;
    let id = submit(&stack, "never").await;
    let stopped = cancel(&stack, 1, &id).await.ok();
    assert_eq!((&stopped["status"], &stopped["error"]["code"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!(get(&stack, 0, &format!("/api/v1/messages/{id}")).await.ok(), stopped);
    stack.add_worker().await;
    let other = submit(&stack, &nonce()).await;
    stands_at(&stack, &other, "completed").await;
    assert_eq!(model.calls().len(), 1, "only the other one was run");
}

#[rstest]
#[tokio::test]
async fn a_running_message_is_cancelled_for_all_who_wait(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::answer(["half an ", "answer"]).held_after(1, &Gate::closed()));
    let stack = Stack::with_model(database, &model).gateways(2).start().await;
    let waiting = stack.begin_chat(0, "go on");
    let id = until("it is listed as running", async || {
        let page = get(&stack, 1, "/api/v1/messages?status=in_progress").await.ok();
        page["messages"][0]["message_id"].as_str().map(str::to_owned)
    })
    .await;
    let mut readers = Vec::new();
    for index in [0, 1] {
        let path = format!("/api/v1/messages/{id}/stream");
        let mut events = Events::open(stack.request_at(index, Method::GET, &path, &stack.key)).await;
        for name in ["message.queued", "message.started", "message.delta"] {
            events.expect(name).await;
        }
        readers.push(events);
    }
    let path = format!("/api/v1/messages/{id}?wait=60");
    let poller = Caller::of(&stack).at(&stack.gateways[0]);
    let (polled, stopped) = tokio::join!(poller.get(&path), cancel(&stack, 1, &id));
    assert_eq!(stopped.ok()["status"], "cancelled");
    assert_eq!(polled.ok()["status"], "cancelled");
    model.hung_up(1).await;
    let (status, body) = waiting.await.expect("a task").expect("an answer");
    assert_eq!((status, &body["code"], &body["message_id"]), (409, &json!("cancelled"), &json!(id)));
    for reader in readers {
        let rest = reader.rest().await;
        assert_eq!(names(&rest), ["message.cancelled"]);
        assert_eq!(rest[0].data["status"], "cancelled");
    }
    cancel(&stack, 0, &id).await.fault(409, "already_ended");
}

#[rstest]
#[tokio::test]
async fn a_retry_is_a_new_message_with_the_same_prompt(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    model.script(Behaviour::wrong_key());
    let stack = Stack::with_model(database, &model).start().await;
    let prompt = nonce();
    let body = json!({ "employee_id": stack.agent, "prompt": prompt, "metadata": { "order": 7 } });
    let accepted = Answer::of(stack.post("/api/v1/messages", &body).await).await;
    let id = accepted.json()["message_id"].as_str().expect("an id").to_owned();
    stands_at(&stack, &id, "failed").await;
    let again = async || {
        let path = format!("/api/v1/messages/{id}/retry");
        let request = stack.request(Method::POST, &path).header("idempotency-key", "the same");
        Answer::to(request).await
    };
    let (first, second) = (again().await, again().await);
    assert_eq!((first.status, second.status), (202, 202), "{first} {second}");
    assert_eq!(first.json()["message_id"], second.json()["message_id"], "once for each key");
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    let new = first.json()["message_id"].as_str().expect("an id").to_owned();
    assert_ne!(new, id);
    let message = stands_at(&stack, &new, "completed").await;
    assert_eq!((&message["content"], &message["retry_of"]), (&json!(prompt), &json!(id)));
    assert_eq!(message["metadata"], json!({ "order": 7 }));

    // The same request stays the same, also once there is nothing left to run again.
    assert_eq!(purge(&stack, &id).await.status, 204);
    let third = again().await;
    assert_eq!((third.status, third.json(), third.header("idempotent-replayed")), (202, first.json(), Some("true")));
    retry(&stack, &id).await.fault(410, "purged");
}
