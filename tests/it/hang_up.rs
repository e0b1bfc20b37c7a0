//! A caller who hangs up: the message goes on, or with `on_disconnect: "cancel"` it is cancelled.

use futures_util::{
    StreamExt as _,
    future::{join, join_all, select},
};
use reqwest::{Method, Response};
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    patience::{nonce, until},
    stack::{Stack, metric},
};
use tokio::time::{Duration, sleep};

const CHAT: &str = "/api/v1/chat";
const AGENT_CHAT: &str = "/api/agents/chat";

/// Posts `body`, and hangs up once the model is called.
async fn hang_up(caller: &Caller, path: &str, body: &Value, model: &ModelServer) {
    let calls = model.calls().len();
    let call = Box::pin(post(caller, path, body));
    let called = Box::pin(model.called(calls + 1));
    select(call, called).await;
}

async fn post(caller: &Caller, path: &str, body: &Value) -> Response {
    let request = caller.request(Method::POST, path).header("content-type", "application/json");
    request.body(body.to_string()).send().await.expect("an answer")
}

/// The status of the newest message, once it has ended.
async fn ended(caller: &Caller) -> Value {
    until("the message has ended", async || {
        let message = caller.get("/api/v1/messages?limit=1").await.ok()["messages"][0]["status"].clone();
        (message.is_string() && message != "queued" && message != "in_progress").then_some(message)
    })
    .await
}

#[rstest]
#[tokio::test]
async fn by_default_a_message_goes_on_without_its_caller(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = Stack::with_model(database, &model).start().await;
    let caller = Caller::of(&stack);
    for on_disconnect in [None, Some("continue")] {
        let gate = Gate::closed();
        model.always(Behaviour::echo().held_after(0, &gate));
        let mut body = chat_body(&stack.agent, &nonce());
        body["on_disconnect"] = json!(on_disconnect);
        hang_up(&caller, CHAT, &body, &model).await;
        until("nobody waits", async || (stack.metric("frontdesk_waiters").await == 0.0).then_some(())).await;
        gate.open();
        assert_eq!(ended(&caller).await, "completed");
    }
}

#[rstest]
#[tokio::test]
async fn a_caller_may_want_it_cancelled(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
    #[values(CHAT, AGENT_CHAT)] path: &str,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["never ", "heard"]).held_after(0, &gate));
    let stack = Stack::with_model(database, &model).start().await;
    let caller = Caller::of(&stack);
    let body = match path {
        CHAT => json!({ "employee_id": stack.agent, "prompt": nonce(), "on_disconnect": "cancel" }),
        _ => json!({ "agentId": stack.agent, "message": nonce(), "on_disconnect": "cancel" }),
    };
    hang_up(&caller, path, &body, &model).await;
    assert_eq!(ended(&caller).await, "cancelled");
    model.hung_up(1).await;
    until("nobody waits", async || (stack.metric("frontdesk_waiters").await == 0.0).then_some(())).await;

    // Whoever stays gets the answer.
    gate.open();
    assert_eq!(caller.post(path, body.to_string()).await.ok()["content"], "never heard");
    assert_eq!(ended(&caller).await, "completed");
}

#[rstest]
#[tokio::test]
async fn a_stream_that_nobody_reads_to_its_end_is_cancelled(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["the ", "rest"]).held_after(1, &gate));
    let stack = Stack::with_model(database, &model).start().await;
    let caller = Caller::of(&stack);
    let body = json!({ "agentId": stack.agent, "message": nonce(), "stream": true, "on_disconnect": "cancel" });
    let mut pieces = post(&caller, AGENT_CHAT, &body).await.bytes_stream();
    assert_eq!(pieces.next().await.expect("a piece").expect("bytes"), "the ");
    drop(pieces);
    assert_eq!(ended(&caller).await, "cancelled");
    model.hung_up(1).await;

    gate.open();
    let whole = post(&caller, AGENT_CHAT, &body).await.text().await.expect("a whole answer");
    assert_eq!((whole.as_str(), ended(&caller).await), ("the rest", json!("completed")));
}

/// Equal requests at once race for the queue: those who find the message there only join it.
#[rstest]
#[tokio::test]
async fn of_equal_requests_only_the_one_that_made_the_message_cancels_it(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["for the ", "others"]).held_after(0, &gate));
    let stack = Stack::with_model(database, &model).gateways(2).start().await;
    let body = json!({ "employee_id": stack.agent, "prompt": nonce(), "on_disconnect": "cancel" });
    let callers =
        [0, 1].map(|index| Caller::of(&stack).at(&stack.gateways[index]).with_header("idempotency-key", "one"));
    let all = |caller: Caller| {
        let body = body.clone();
        Box::pin(async move { join_all((0..10).map(|_| post(&caller, CHAT, &body))).await })
    };
    let [mut one, mut other] = callers.map(all);
    let made_by_the_first = async {
        model.called(1).await;
        // By now the others know that it is there.
        sleep(Duration::from_secs(2)).await;
        metric(stack.client(), &stack.gateways[0].metrics_url, "frontdesk_jobs_accepted_total").await == 1.0
    };
    let is_of_the_first = tokio::select! {
        _ = &mut one => panic!("answered while the model is held"),
        _ = &mut other => panic!("answered while the model is held"),
        is_of_the_first = made_by_the_first => is_of_the_first,
    };
    let (stays, leaves) = if is_of_the_first { (one, other) } else { (other, one) };
    drop(leaves);
    let opens = async {
        // Long enough for a cancellation.
        sleep(Duration::from_secs(1)).await;
        gate.open();
    };
    let (answers, ()) = join(stays, opens).await;
    for answer in answers {
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(ended(&Caller::of(&stack)).await, "completed");
}
