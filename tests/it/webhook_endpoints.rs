//! The routes of webhook endpoints and deliveries: who may do what, and what is refused.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{answer::Answer, caller::Caller, database::Database, stack::Stack};

const ENDPOINTS: &str = "/api/v1/webhook-endpoints";
/// Public, and never called here: these stacks have no worker.
const URL: &str = "https://93.184.215.14/hook";
const NOBODY: &str = "01a20041-b7f8-71fc-b820-9ed86ed9b996";

async fn stack(database: Database) -> Stack {
    let settings = Stack::on(database).workers(0).set("FRONTDESK_KEY_LIMIT", 100_000);
    let stack = settings.set("FRONTDESK_CACHE_TTL", "1h").start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    stack
}

async fn create(caller: &Caller, body: &Value) -> Answer {
    caller.post(ENDPOINTS, body.to_string()).await
}

async fn patch(caller: &Caller, path: &str, body: &Value) -> Answer {
    let request = caller.request(Method::PATCH, path).header("content-type", "application/json");
    Answer::to(request.body(body.to_string())).await
}

async fn act(caller: &Caller, method: Method, path: &str) -> Answer {
    Answer::to(caller.request(method, path)).await
}

async fn made(caller: &Caller) -> String {
    let made = create(caller, &json!({ "url": URL })).await;
    assert_eq!(made.status, 201, "{made}");
    made.json()["id"].as_str().expect("an id").to_owned()
}

#[rstest]
#[tokio::test]
async fn an_endpoint_is_made_read_changed_and_removed(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = stack(database).await;
    let caller = Caller::of(&stack);
    let answer = create(&caller, &json!({ "url": URL, "events": ["message.failed", "message.failed"] })).await;
    let mut made = answer.json();
    assert!(made["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{answer}");
    let path = format!("{ENDPOINTS}/{}", made["id"].as_str().expect("an id"));
    assert_eq!((answer.status, answer.header("location")), (201, Some(path.as_str())));
    made.as_object_mut().expect("an object").remove("secret");
    assert_eq!((&made["events"], &made["enabled"]), (&json!(["message.failed"]), &json!(true)));
    assert_eq!(caller.get(&path).await.ok(), made);
    assert_eq!(caller.get(ENDPOINTS).await.ok(), json!({ "endpoints": [made] }));

    let changed = patch(&caller, &path, &json!({ "events": [], "enabled": false })).await.ok();
    assert_eq!((&changed["events"], &changed["enabled"]), (&json!([]), &json!(false)));
    assert_eq!((&changed["url"], &changed["disabled_reason"]), (&made["url"], &Value::Null));
    assert_eq!(patch(&caller, &path, &json!({})).await.ok(), changed, "nothing was to be changed");
    assert_eq!(caller.get(&format!("{path}/deliveries")).await.ok(), json!({ "deliveries": [], "next_cursor": null }));

    let removed = act(&caller, Method::DELETE, &path).await;
    assert_eq!((removed.status, removed.body.len()), (204, 0), "{removed}");
    caller.get(&path).await.fault(404, "endpoint_not_found");
    assert_eq!(caller.get(ENDPOINTS).await.ok(), json!({ "endpoints": [] }));
}

#[rstest]
#[tokio::test]
async fn addresses_that_are_not_public_are_refused_in_every_form(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = stack(database).await;
    let caller = Caller::of(&stack);
    let path = format!("{ENDPOINTS}/{}", made(&caller).await);
    for (url, words) in [
        ("http://127.0.0.1/", "a loopback address"),
        ("http://2130706433/", "a loopback address"),
        ("http://0x7f.1/", "a loopback address"),
        ("http://0177.0.0.1:8080/x", "a loopback address"),
        ("http://[::1]/", "a loopback address"),
        ("http://[::ffff:127.0.0.1]/", "a loopback address"),
        ("http://localhost:4222/", "a loopback address"),
        ("http://10.1.2.3/", "a private address"),
        ("https://192.168.0.1/", "a private address"),
        ("https://[fd00::1]/", "a private address"),
        ("http://169.254.169.254/latest/meta-data/", "a cloud's metadata address"),
        ("http://[64:ff9b::a9fe:a9fe]/", "a cloud's metadata address"),
        ("http://100.64.0.1/", "a carrier's network"),
        ("http://[fe80::1]/", "a link-local address"),
        ("http://0.0.0.0/", "a reserved address"),
        ("ftp://example.com/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("https://me:pw@example.com/", "user name"),
        ("https://example.com/\r\nX-Evil: 1", "control characters"),
        ("example.com", "is not a URL"),
        ("https://", "is not a URL"),
    ] {
        let body = json!({ "url": url });
        for answer in [create(&caller, &body).await, patch(&caller, &path, &body).await] {
            let fault = answer.fault(400, "invalid_request");
            let sentence = fault["error"].as_str().expect("a sentence");
            assert!(sentence.starts_with("`url` ") && sentence.contains(words), "{url}: {sentence}");
        }
    }
    let endpoints = caller.get(ENDPOINTS).await.ok();
    assert_eq!(endpoints["endpoints"].as_array().map(Vec::len), Some(1));
    assert_eq!(endpoints["endpoints"][0]["url"], URL);
}

#[rstest]
#[tokio::test]
async fn bodies_and_queries_that_make_no_sense_are_400(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = stack(database).await;
    let caller = Caller::of(&stack);
    for (body, words) in [
        (json!({}), "`url` is missing"),
        (json!({ "url": 7 }), "`url` has to be a string, not a number"),
        (json!({ "url": " " }), "`url` must not be empty"),
        (json!({ "url": URL, "events": "message.failed" }), "`events` has to be a list, not a string"),
        (json!({ "url": URL, "events": [7] }), "`events[0]` has to be a string, not a number"),
        (json!({ "url": URL, "events": ["message.failed", "nope"] }), "`events[1]` has to be one of message.completed"),
        (json!({ "url": URL, "enabled": "yes" }), "`enabled` has to be a boolean, not a string"),
    ] {
        let fault = create(&caller, &body).await.fault(400, "invalid_request");
        assert!(fault["error"].as_str().is_some_and(|sentence| sentence.starts_with(words)), "{body}: {fault}");
    }
    let list = format!("{ENDPOINTS}/{}/deliveries", made(&caller).await);
    for query in
        ["limit=", "limit=0", "limit=101", "limit=x", "limit=-1", "limit=1&limit=2", "cursor=x", "cursor=%ff%00"]
    {
        caller.get(&format!("{list}?{query}")).await.fault(400, "invalid_request");
    }
    for query in ["limit=1", "limit=100", &format!("cursor={NOBODY}")] {
        caller.get(&format!("{list}?{query}")).await.ok();
    }
}

#[rstest]
#[tokio::test]
async fn what_belongs_to_another_account_is_as_unknown_as_nothing(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = stack(database).await;
    let caller = Caller::of(&stack);
    let (name, _, key) = stack.another_account("second");
    stack.admin(&["channel", "on", &name, "webhooks"]);
    let stranger = caller.with_key(&key);
    let own = made(&caller).await;
    let test = act(&caller, Method::POST, &format!("{ENDPOINTS}/{own}/test")).await.json();
    for id in [own.as_str(), NOBODY, "x", "%ff", "01a20041"] {
        let path = format!("{ENDPOINTS}/{id}");
        let mut answers = vec![patch(&stranger, &path, &json!({ "enabled": false })).await];
        for (method, rest) in [
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::POST, "/rotate-secret"),
            (Method::POST, "/test"),
            (Method::GET, "/deliveries"),
        ] {
            answers.push(act(&stranger, method, &format!("{path}{rest}")).await);
        }
        let sentences = answers.iter().map(|answer| answer.fault(404, "endpoint_not_found")["error"].to_string());
        let sentences: std::collections::BTreeSet<_> = sentences.collect();
        assert_eq!(sentences.len(), 1, "{sentences:?}");
    }
    for delivery in [test["id"].as_str().expect("an id"), NOBODY, "x"] {
        let path = format!("/api/v1/webhook-deliveries/{delivery}/replay");
        act(&stranger, Method::POST, &path).await.fault(404, "delivery_not_found");
    }
    assert_eq!(caller.get(&format!("{ENDPOINTS}/{own}")).await.ok()["enabled"], true);
}

#[rstest]
#[tokio::test]
async fn endpoints_need_their_channel_and_a_key_for_all_agents(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = stack(database).await;
    let caller = Caller::of(&stack);
    let limited = caller.with_key(&stack.make_key(&stack.account, "limited", &[&stack.agent]));
    create(&limited, &json!({ "url": URL })).await.fault(403, "key_limited");
    limited.get(ENDPOINTS).await.fault(403, "key_limited");
    caller.without_key().get(ENDPOINTS).await.fault(401, "unauthorized");
    let (_, _, key) = stack.another_account("second");
    create(&caller.with_key(&key), &json!({ "url": URL })).await.fault(403, "channel_disabled");
    caller.with_key(&key).get(ENDPOINTS).await.fault(403, "channel_disabled");
}

#[rstest]
#[tokio::test]
async fn an_account_has_at_most_50_endpoints(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = stack(database).await;
    let caller = Caller::of(&stack);
    for _ in 0..50 {
        made(&caller).await;
    }
    create(&caller, &json!({ "url": URL })).await.fault(409, "too_many_endpoints");
    assert_eq!(caller.get(ENDPOINTS).await.ok()["endpoints"].as_array().map(Vec::len), Some(50));
}

#[rstest]
#[tokio::test]
async fn deliveries_are_listed_page_by_page_and_those_of_a_disabled_endpoint_stay(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = stack(database).await;
    let caller = Caller::of(&stack);
    let id = made(&caller).await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        let test = act(&caller, Method::POST, &format!("{ENDPOINTS}/{id}/test")).await;
        assert_eq!(test.status, 202, "{test}");
        sent.insert(0, test.json()["id"].clone());
    }
    let (mut listed, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = caller.get(&format!("{ENDPOINTS}/{id}/deliveries?{query}")).await.ok();
        listed.extend(page["deliveries"].as_array().expect("a list").iter().map(|one| one["id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        query = format!("limit=2&cursor={next}");
    }
    assert_eq!(listed, sent);

    patch(&caller, &format!("{ENDPOINTS}/{id}"), &json!({ "enabled": false })).await.ok();
    let dropped = caller.get(&format!("{ENDPOINTS}/{id}/deliveries?limit=1")).await.ok()["deliveries"][0].clone();
    assert_eq!((&dropped["status"], &dropped["next_at"]), (&json!("dropped"), &Value::Null));
    let replay = format!("/api/v1/webhook-deliveries/{}/replay", dropped["id"].as_str().expect("an id"));
    act(&caller, Method::POST, &replay).await.fault(409, "endpoint_disabled");
}
