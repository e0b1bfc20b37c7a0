//! Webhooks out: signed, tried until they are taken, and never in each other's way.

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::Caller,
    database::{self, Database},
    model::Gate,
    patience::{nonce, until},
    sink::{Reply, Sink},
    stack::{Builder, Stack},
    webhook,
};

/// A stack that sends to this machine, and whose account has the Webhooks channel on.
async fn stack(builder: Builder) -> Stack {
    let settings = builder.set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", true).set("FRONTDESK_KEY_LIMIT", 100_000);
    let stack = settings.start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    stack
}

/// An endpoint at `url`; its id and its secret.
async fn endpoint(caller: &Caller, url: &str, events: Value) -> (String, String) {
    let made = caller.post("/api/v1/webhook-endpoints", json!({ "url": url, "events": events }).to_string()).await;
    assert_eq!(made.status, 201, "{made}");
    let text = |name: &str| made.json()[name].as_str().expect("a text").to_owned();
    (text("id"), text("secret"))
}

async fn deliveries(caller: &Caller, endpoint: &str) -> Vec<Value> {
    let list = caller.get(&format!("/api/v1/webhook-endpoints/{endpoint}/deliveries")).await.ok();
    list["deliveries"].as_array().expect("a list").clone()
}

/// The newest delivery to `endpoint` once it has been settled as `status` with `tries` tries.
async fn until_settled(caller: &Caller, endpoint: &str, status: &str, tries: usize) -> Value {
    until("a delivery is settled", async || {
        let newest = deliveries(caller, endpoint).await.into_iter().next()?;
        let made = newest["tries"].as_array().expect("a list").len();
        (newest["status"] == status && made == tries).then_some(newest)
    })
    .await
}

async fn act(caller: &Caller, path: &str) -> Answer {
    Answer::to(caller.request(reqwest::Method::POST, path)).await
}

#[rstest]
#[tokio::test]
async fn the_end_of_a_message_is_told_with_a_signature_that_the_official_library_accepts(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, secret) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    let prompt = nonce();
    let answer = caller.chat(&stack.agent, &prompt).await;
    let message = answer.ok()["message_id"].as_str().expect("an id").to_owned();

    let received = sink.until_received("/hook", 1).await.remove(0);
    let event = webhook::event(&secret, &received);
    assert_eq!(event["type"], "message.completed");
    assert_eq!(event["data"], caller.get(&format!("/api/v1/messages/{message}")).await.ok());
    assert_eq!((&event["data"]["content"], &event["data"]["message_id"]), (&json!(prompt), &json!(message)));
    assert!(!webhook::is_signed_by("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &received));

    let delivery = until_settled(&caller, &id, "delivered", 1).await;
    assert_eq!((&delivery["message_id"], &delivery["event"]), (&json!(message), &json!("message.completed")));
    assert_eq!((&delivery["tries"][0]["status"], &delivery["next_at"]), (&json!(204), &Value::Null));
    assert_eq!(sink.received("/hook").len(), 1, "it was told twice");
}

#[rstest]
#[tokio::test]
async fn a_callback_is_told_of_its_message_alone(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let prompt = nonce();
    let body = json!({ "employee_id": stack.agent, "prompt": prompt, "callback_url": sink.url("/mine"),
                       "metadata": { "order": 7 } });
    let accepted = caller.post("/api/v1/messages", body.to_string()).await;
    assert_eq!(accepted.status, 202, "{accepted}");
    caller.chat(&stack.agent, &nonce()).await.ok();
    let received = sink.until_received("/mine", 1).await.remove(0);
    let secret = stack.admin(&["webhook", "secret", &stack.account])["secret"].clone();
    let event = webhook::event(secret.as_str().expect("a secret"), &received);
    assert_eq!((&event["data"]["content"], &event["data"]["metadata"]), (&json!(prompt), &json!({ "order": 7 })));
    assert_eq!(event["data"]["message_id"], accepted.json()["message_id"]);

    // Not what it asked for.
    let body = json!({ "employee_id": stack.agent, "prompt": nonce(), "callback_url": sink.url("/failures"),
                       "callback_events": ["message.failed"] });
    let accepted = caller.post("/api/v1/messages", body.to_string()).await.json();
    let ended = format!("/api/v1/messages/{}?wait=60", accepted["message_id"].as_str().expect("an id"));
    assert_eq!(caller.get(&ended).await.ok()["status"], "completed");
    let body = json!({ "employee_id": stack.agent, "prompt": "/fail 400", "callback_url": sink.url("/failures"),
                       "callback_events": ["message.failed"] });
    caller.post("/api/v1/messages", body.to_string()).await;
    let received = sink.until_received("/failures", 1).await;
    assert_eq!(received[0].json()["type"], "message.failed");
    assert_eq!((sink.received("/failures").len(), sink.received("/mine").len()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn an_endpoint_is_told_of_the_events_it_names(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    endpoint(&caller, &sink.url("/failed"), json!(["message.failed", "message.expired"])).await;
    endpoint(&caller, &sink.url("/completed"), json!(["message.completed"])).await;
    caller.chat(&stack.agent, &nonce()).await.ok();
    caller.chat(&stack.agent, "/fail 400").await.fault(502, "agent_failed");
    assert_eq!(sink.until_received("/failed", 1).await[0].json()["type"], "message.failed");
    assert_eq!(sink.until_received("/completed", 1).await[0].json()["type"], "message.completed");
    let error = &sink.received("/failed")[0].json()["data"]["error"];
    assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
    assert_eq!((sink.received("/failed").len(), sink.received("/completed").len()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn a_webhook_that_is_not_taken_is_tried_again_under_the_same_id(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, secret) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    sink.script("/hook", Reply::status(500));
    caller.chat(&stack.agent, &nonce()).await.ok();
    let received = sink.until_received("/hook", 2).await;
    let pause = received[1].at - received[0].at;
    assert!(pause.as_secs() >= 4, "tried again after {pause:?}");
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_ne!(received[0].header("webhook-timestamp"), received[1].header("webhook-timestamp"));
    received.iter().for_each(|received| drop(webhook::event(&secret, received)));
    let delivery = until_settled(&caller, &id, "delivered", 2).await;
    assert_eq!((&delivery["tries"][0]["status"], &delivery["tries"][1]["status"]), (&json!(500), &json!(204)));
}

#[rstest]
#[tokio::test]
async fn failures_are_told_apart_in_the_log(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let redirect = Reply::Status(302, vec![("location", sink.url("/elsewhere"))]);
    let later = Reply::Status(503, vec![("retry-after", "3600".to_owned())]);
    for (path, reply, status, error) in [
        ("/redirect", redirect, json!(302), Value::Null),
        ("/later", later, json!(503), Value::Null),
        ("/cut", Reply::Cut, Value::Null, json!("the connection broke off without an answer")),
    ] {
        let (id, _) = endpoint(&caller, &sink.url(path), json!([])).await;
        sink.always(path, reply);
        caller.chat(&stack.agent, &nonce()).await.ok();
        let delivery = until_settled(&caller, &id, "pending", 1).await;
        assert_eq!((&delivery["tries"][0]["status"], &delivery["tries"][0]["error"]), (&status, &error), "{path}");
        let next: common::domain::time::Millis = delivery["next_at"].as_str().expect("a time").parse().expect("a time");
        let at: common::domain::time::Millis =
            delivery["tries"][0]["at"].as_str().expect("a time").parse().expect("a time");
        let hour = 3_600;
        assert_eq!(next.since(at).as_secs() >= hour, path == "/later", "{path}: {delivery}");
        Answer::to(caller.request(reqwest::Method::DELETE, &format!("/api/v1/webhook-endpoints/{id}"))).await;
    }
    assert!(sink.received("/elsewhere").is_empty(), "a redirect was followed");
}

#[rstest]
#[tokio::test]
async fn an_endpoint_that_is_gone_is_switched_off(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, _) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    sink.script("/hook", Reply::status(410));
    caller.chat(&stack.agent, &nonce()).await.ok();
    let path = format!("/api/v1/webhook-endpoints/{id}");
    let disabled = until("it is off", async || {
        let endpoint = caller.get(&path).await.ok();
        (endpoint["enabled"] == false).then_some(endpoint)
    })
    .await;
    assert_eq!(disabled["disabled_reason"], "gone");
    caller.chat(&stack.agent, &nonce()).await.ok();
    assert_eq!(sink.received("/hook").len(), 1);

    let request = caller.request(reqwest::Method::PATCH, &path).header("content-type", "application/json");
    let enabled = Answer::to(request.body(r#"{"enabled":true}"#)).await.ok();
    assert_eq!((&enabled["enabled"], &enabled["disabled_reason"]), (&json!(true), &Value::Null));
    caller.chat(&stack.agent, &nonce()).await.ok();
    sink.until_received("/hook", 2).await;
}

#[rstest]
#[tokio::test]
async fn an_endpoint_is_switched_off_after_five_days_in_vain(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, _) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    sink.always("/hook", Reply::status(500));
    caller.chat(&stack.agent, &nonce()).await.ok();
    until_settled(&caller, &id, "pending", 1).await;
    let since = "UPDATE webhook_targets SET failing_since = failing_since - 5 * 86400000";
    database::query(&stack.database_url, since).expect("five days earlier");
    sink.until_received("/hook", 2).await;
    until("it is off", async || {
        let endpoint = caller.get(&format!("/api/v1/webhook-endpoints/{id}")).await.ok();
        (endpoint["enabled"] == false).then(|| assert_eq!(endpoint["disabled_reason"], "failing"))
    })
    .await;
    assert_eq!(deliveries(&caller, &id).await[0]["status"], "dropped");
}

#[rstest]
#[tokio::test]
async fn both_secrets_sign_after_a_rotation(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, old) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    let rotated = act(&caller, &format!("/api/v1/webhook-endpoints/{id}/rotate-secret")).await.ok();
    let new = rotated["secret"].as_str().expect("a secret");
    assert!(new != old && new.starts_with("whsec_") && rotated["previous_secret_until"].is_string(), "{rotated}");
    caller.chat(&stack.agent, &nonce()).await.ok();
    let received = sink.until_received("/hook", 1).await.remove(0);
    assert!(webhook::is_signed_by(&old, &received) && webhook::is_signed_by(new, &received), "{received:?}");

    let day = "UPDATE webhook_endpoints SET previous_until = previous_until - 86400000";
    database::query(&stack.database_url, day).expect("a day later");
    caller.chat(&stack.agent, &nonce()).await.ok();
    let received = sink.until_received("/hook", 2).await.remove(1);
    assert!(!webhook::is_signed_by(&old, &received) && webhook::is_signed_by(new, &received), "{received:?}");
    let shown = caller.get(&format!("/api/v1/webhook-endpoints/{id}")).await;
    assert!(!shown.text().contains("whsec_") && shown.ok()["previous_secret_until"].is_null(), "{shown}");
}

#[rstest]
#[tokio::test]
async fn a_test_is_sent_once_and_a_replay_keeps_the_id(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, secret) = endpoint(&caller, &sink.url("/hook"), json!(["message.failed"])).await;
    sink.script("/hook", Reply::status(500));
    let test = act(&caller, &format!("/api/v1/webhook-endpoints/{id}/test")).await;
    assert_eq!((test.status, &test.json()["event"]), (202, &json!("webhook.test")), "{test}");
    let received = sink.until_received("/hook", 1).await.remove(0);
    assert_eq!(webhook::event(&secret, &received)["type"], "webhook.test");
    let failed = until_settled(&caller, &id, "failed", 1).await;

    let delivery = failed["id"].as_str().expect("an id");
    let replayed = act(&caller, &format!("/api/v1/webhook-deliveries/{delivery}/replay")).await;
    assert_eq!(replayed.status, 202, "{replayed}");
    let again = sink.until_received("/hook", 2).await.remove(1);
    assert_eq!(again.header("webhook-id"), received.header("webhook-id"));
    until_settled(&caller, &id, "delivered", 2).await;
}

#[rstest]
#[tokio::test]
async fn a_large_message_is_told_thin(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (_, secret) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    let prompt = "long ".repeat(5_000);
    let message = caller.chat(&stack.agent, &prompt).await.ok()["message_id"].clone();
    let received = sink.until_received("/hook", 1).await.remove(0);
    assert!(received.body.len() < 1_000, "{} bytes", received.body.len());
    let data = webhook::event(&secret, &received)["data"].clone();
    assert_eq!((&data["message_id"], &data["status"]), (&message, &json!("completed")));
    let whole = caller.get(data["status_url"].as_str().expect("a place")).await.ok();
    assert!(whole["content"].as_str().is_some_and(|content| content.len() > 20_000));
}

#[rstest]
#[tokio::test]
async fn receivers_that_never_answer_are_in_nobodys_way(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    // Fewer at a time than there are dead ones.
    let builder = Stack::on(database).set("FRONTDESK_WEBHOOK_RECEIVERS", 8);
    let (stack, sink) = (stack(builder).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, _) = endpoint(&caller, &sink.url("/alive"), json!([])).await;
    caller.chat(&stack.agent, &nonce()).await.ok();
    until_settled(&caller, &id, "delivered", 1).await;
    let gate = Gate::closed();
    for index in 0..20 {
        let path = format!("/dead/{index}");
        sink.always(&path, Reply::Held(gate.clone()));
        endpoint(&caller, &sink.url(&path), json!([])).await;
    }
    for _ in 0..3 {
        caller.chat(&stack.agent, &nonce()).await.ok();
    }
    sink.until_received("/alive", 4).await;
    // One that stumbles is not behind them either.
    sink.script("/alive", Reply::status(500));
    caller.chat(&stack.agent, &nonce()).await.ok();
    sink.until_received("/alive", 6).await;
    until_settled(&caller, &id, "delivered", 2).await;
    for index in 0..20 {
        let path = format!("/dead/{index}");
        assert!(sink.most_open(&path) <= 1, "{path} was not tried by itself");
    }
    gate.open();
    sink.until_received("/dead/7", 4).await;
}

#[rstest]
#[tokio::test]
async fn a_receiver_gets_two_at_once_at_most_and_one_until_it_took_something(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (stack, sink) = (stack(Stack::on(database).workers(2)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let gate = Gate::closed();
    sink.always("/hook", Reply::Held(gate.clone()));
    endpoint(&caller, &sink.url("/hook"), json!([])).await;
    for _ in 0..6 {
        caller.chat(&stack.agent, &nonce()).await.ok();
    }
    sink.until_received("/hook", 1).await;
    assert_eq!(sink.most_open("/hook"), 1);
    gate.open();
    let received = sink.until_received("/hook", 6).await;
    let ids: std::collections::BTreeSet<_> = received.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!((ids.len(), received.len()), (6, 6), "one was told twice");
    assert!(sink.most_open("/hook") <= 2, "{} at once", sink.most_open("/hook"));
}

#[rstest]
#[tokio::test]
async fn an_endpoint_that_moves_gets_nothing_more_at_its_old_address(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, _) = endpoint(&caller, &sink.url("/warm"), json!([])).await;
    caller.chat(&stack.agent, &nonce()).await.ok();
    until_settled(&caller, &id, "delivered", 1).await;

    // One visit with several deliveries: they wait for the end of a pause together.
    let pause = "UPDATE webhook_targets SET held_until = 4102444800000";
    database::query(&stack.database_url, pause).expect("a pause");
    for _ in 0..6 {
        caller.chat(&stack.agent, &nonce()).await.ok();
    }
    until("all ends are stored", async || (deliveries(&caller, &id).await.len() == 7).then_some(())).await;
    let gate = Gate::closed();
    let path = format!("/api/v1/webhook-endpoints/{id}");
    let change = async |url: &str| {
        let request = caller.request(reqwest::Method::PATCH, &path).header("content-type", "application/json");
        Answer::to(request.body(json!({ "url": url }).to_string())).await.ok();
    };
    sink.always("/old", Reply::Held(gate.clone()));
    change(&sink.url("/old")).await;
    let over = "UPDATE webhook_targets SET held_until = 0, ready_at = 0";
    database::query(&stack.database_url, over).expect("the end of the pause");
    sink.until_received("/old", 1).await;
    change(&sink.url("/new")).await;
    gate.open();
    sink.until_received("/new", 5).await;
    until("all are taken", async || {
        deliveries(&caller, &id).await.iter().all(|delivery| delivery["status"] == "delivered").then_some(())
    })
    .await;
    assert_eq!(sink.received("/old").len(), 1, "only what was on its way went to the old address");
}

#[rstest]
#[tokio::test]
async fn a_delivery_outlives_its_worker(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let (mut stack, sink) = (stack(Stack::on(database)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (id, secret) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    sink.script("/hook", Reply::Silence);
    caller.chat(&stack.agent, &nonce()).await.ok();
    sink.until_received("/hook", 1).await;
    stack.kill_workers();
    let lease = "UPDATE webhook_targets SET held_until = 0, ready_at = 0";
    database::query(&stack.database_url, lease).expect("the end of the lease");
    stack.add_worker().await;
    let received = sink.until_received("/hook", 2).await;
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    webhook::event(&secret, &received[1]);
    until_settled(&caller, &id, "delivered", 1).await;
}

/// Saved while this machine could be called, and sent when it cannot any more.
#[rstest]
#[tokio::test]
async fn what_leads_into_our_network_is_refused_when_it_is_sent_too(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (mut stack, sink) = (stack(Stack::on(database).workers(0)).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let (number, _) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    let (name, _) = endpoint(&caller, &sink.url("/hook").replace("127.0.0.1", "localhost"), json!([])).await;
    stack.set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", false);
    stack.add_worker().await;
    caller.chat(&stack.agent, &nonce()).await.ok();
    for id in [number, name] {
        let delivery = until_settled(&caller, &id, "failed", 1).await;
        let error = "the address leads to a loopback address; only public addresses are called";
        assert_eq!((&delivery["tries"][0]["error"], &delivery["tries"][0]["status"]), (&json!(error), &Value::Null));
    }
    assert!(sink.received("/hook").is_empty());
}

/// The caches would believe for an hour that there is no endpoint: only the announcement can be what is heard.
#[rstest]
#[tokio::test]
async fn a_new_endpoint_counts_at_once_on_every_gateway(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let builder = Stack::on(database).gateways(2).set("FRONTDESK_CACHE_TTL", "1h");
    let (stack, sink) = (stack(builder).await, Sink::start().await);
    let caller = Caller::of(&stack);
    let other = caller.at(&stack.gateways[1]);
    for caller in [&caller, &other] {
        caller.chat(&stack.agent, &nonce()).await.ok();
    }
    let (id, _) = endpoint(&caller, &sink.url("/hook"), json!([])).await;
    let prompt = nonce();
    other.chat(&stack.agent, &prompt).await.ok();
    assert_eq!(sink.until_received("/hook", 1).await[0].json()["data"]["content"], json!(prompt));
    assert_eq!(until_settled(&other, &id, "delivered", 1).await["event"], "message.completed");
}
