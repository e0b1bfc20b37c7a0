//! Requests into our own network (SSRF): whatever a user writes for an address, a canary on this machine hears nothing.
//!
//! That a name leads elsewhere when it is called than when it was saved is in `worker/tests/it/posts.rs`: it takes a
//! resolver of the test's own.

use common::domain::ids::EndpointId;
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    caller::Caller,
    canary::Canary,
    database::{self, Database},
    patience::{nonce, until},
    sink::{Reply, Sink},
    stack::{Builder, Stack},
};

use super::ssrf_addresses::{METADATA_NAMES, refused};

const ENDPOINTS: &str = "/api/v1/webhook-endpoints";
/// Public, and never called here.
const PUBLIC: &str = "https://93.184.215.14/hook";
/// The most endpoints of one account.
const ENDPOINTS_EACH: usize = 50;

async fn stack(builder: Builder) -> Stack {
    let stack = builder.set("FRONTDESK_KEY_LIMIT", 100_000).set("FRONTDESK_CACHE_TTL", "1h").start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    stack
}

async fn endpoint(caller: &Caller, url: &str) -> Answer {
    caller.post(ENDPOINTS, json!({ "url": url }).to_string()).await
}

/// Gives `url` at every door that takes one.
async fn at_all_doors(caller: &Caller, agent: &str, made: &str, url: &str) -> Vec<Answer> {
    let change =
        caller.request(Method::PATCH, &format!("{ENDPOINTS}/{made}")).header("content-type", "application/json");
    let body = json!({ "employee_id": agent, "prompt": "hi", "callback_url": url }).to_string();
    vec![
        endpoint(caller, url).await,
        Answer::to(change.body(json!({ "url": url }).to_string())).await,
        caller.post("/api/v1/messages", body.clone()).await,
        caller.post("/api/v1/webhook", body).await,
    ]
}

#[tokio::test]
async fn no_address_that_leads_inward_is_saved() {
    let (stack, canary) = (stack(Stack::on(Database::Sqlite)).await, Canary::start().await);
    let (caller, own) = (Caller::of(&stack), canary.sing().await);
    let made = endpoint(&caller, PUBLIC).await.json()["id"].as_str().expect("an id").to_owned();
    let urls = refused(canary.port());
    for url in &urls {
        for answer in at_all_doors(&caller, &stack.agent, &made, url).await {
            let fault = answer.fault(400, "invalid_request");
            let sentence = fault["error"].as_str().expect("a sentence");
            assert!(sentence.starts_with("`url` ") || sentence.starts_with("`callback_url` "), "{url}: {sentence}");
        }
    }
    let listed = caller.get(ENDPOINTS).await.ok();
    assert_eq!(
        (listed["endpoints"].as_array().map(Vec::len), &listed["endpoints"][0]["url"]),
        (Some(1), &json!(PUBLIC))
    );
    assert_eq!(caller.get("/api/v1/messages").await.ok()["messages"], json!([]));
    assert_eq!(canary.connections(), own);
    println!("SSRF, saved: {} URLs at 4 doors, all refused, 0 connections", urls.len());
    assert!(urls.len() >= 60);
}

/// As if a guard had let them through, or had not been there, when they were saved.
#[tokio::test]
async fn no_address_that_leads_inward_is_called_even_if_it_was_saved() {
    let (mut stack, canary) = (stack(Stack::on(Database::Sqlite).workers(0)).await, Canary::start().await);
    let own = canary.sing().await;
    let mut urls = refused(canary.port());
    urls.extend(METADATA_NAMES.iter().map(|name| format!("http://{name}:{}/hook", canary.port())));
    let mut endpoints = Vec::new();
    for (index, urls) in urls.chunks(ENDPOINTS_EACH).enumerate() {
        let (account, _, key) = stack.another_account(&format!("account-{index}"));
        stack.admin(&["channel", "on", &account, "webhooks"]);
        let caller = Caller::of(&stack).with_key(&key);
        for url in urls {
            endpoints.push((caller.clone(), endpoint_with_a_delivery(&caller).await, url));
        }
    }
    save(&stack, &endpoints);
    stack.add_worker().await;
    let tried = stream::iter(&endpoints).map(|(caller, id, _)| until_tried(caller, id)).buffered(16);
    for ((_, _, url), tried) in endpoints.iter().zip(tried.collect::<Vec<_>>().await) {
        assert_eq!(tried["status"], Value::Null, "{url}: {tried}");
        let error = tried["error"].as_str().expect("a reason");
        assert!(
            error.starts_with("the address ") || error == "the host's name could not be resolved",
            "{url}: {error}"
        );
    }
    assert_eq!(canary.connections(), own);
    println!("SSRF, called: {} URLs that were stored all the same, 0 connections", urls.len());
}

/// An endpoint for which something is due.
async fn endpoint_with_a_delivery(caller: &Caller) -> String {
    let id = endpoint(caller, PUBLIC).await.json()["id"].as_str().expect("an id").to_owned();
    let test = Answer::to(caller.request(Method::POST, &format!("{ENDPOINTS}/{id}/test"))).await;
    assert_eq!(test.status, 202, "{test}");
    id
}

/// Gives all endpoints their addresses, past every door.
fn save(stack: &Stack, endpoints: &[(Caller, String, &String)]) {
    let stored = |id: &str| id.parse::<EndpointId>().expect("an id").0.simple().to_string().to_uppercase();
    let case =
        |(_, id, url): &(Caller, String, &String)| format!(" WHEN '{}' THEN '{}'", stored(id), url.replace('\'', "''"));
    let cases: String = endpoints.iter().map(case).collect();
    let change = format!("UPDATE webhook_endpoints SET url = CASE hex(id){cases} END");
    database::query(&stack.database_url, &change).expect("other addresses");
}

/// The one try of an endpoint's one delivery.
async fn until_tried(caller: &Caller, endpoint: &str) -> Value {
    until("a delivery is tried", async || {
        let list = caller.get(&format!("{ENDPOINTS}/{endpoint}/deliveries")).await.ok();
        let delivery = &list["deliveries"][0];
        (delivery["status"] == "failed").then(|| delivery["tries"][0].clone())
    })
    .await
}

/// The receiver is allowed, and sends on to what is not: by every status, and in every way to name it.
#[tokio::test]
async fn no_redirect_is_followed_wherever_it_leads() {
    let builder = Stack::on(Database::Sqlite).set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", true);
    let (stack, canary, sink) = (stack(builder).await, Canary::start().await, Sink::start().await);
    let (caller, own, port) = (Caller::of(&stack), canary.sing().await, canary.port());
    let mut paths = Vec::new();
    for (index, place) in [
        format!("http://127.0.0.1:{port}/"),
        format!("//localhost:{port}/"),
        format!("http://[::1]:{port}/"),
        "/elsewhere".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        for status in [300, 301, 302, 303, 305, 307, 308] {
            let path = format!("/{index}/{status}");
            let refresh = ("refresh", format!("0;url={place}"));
            sink.always(&path, Reply::Status(status, vec![("location", place.clone()), refresh]));
            let made = endpoint(&caller, &sink.url(&path)).await.json();
            paths.push((path, status, made["id"].as_str().expect("an id").to_owned()));
        }
    }
    let prompt = nonce();
    caller.chat(&stack.agent, &prompt).await.ok();
    for (path, status, id) in &paths {
        sink.until_received(path, 1).await;
        until("the try is stored", async || {
            let list = caller.get(&format!("{ENDPOINTS}/{id}/deliveries")).await.ok();
            (list["deliveries"][0]["tries"][0]["status"] == *status).then_some(())
        })
        .await;
    }
    assert!(sink.received("/elsewhere").is_empty());
    assert_eq!(canary.connections(), own);
    println!("SSRF, redirects: {} of 7 statuses to 6 places, 0 followed", paths.len());
}
