//! Callers of each manner: what they send, and when they have what they wanted.

use std::collections::BTreeMap;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::batch;
use tokio::time::{Instant, sleep};

use crate::{
    calls::{Call, Manner},
    desk::{Answer, Desk},
};

const MESSAGES: &str = "/api/v1/messages";
/// A long-poll lasts this many seconds.
const POLL: u32 = 5;

/// Makes one call of `manner` and notes it. `key` is its `Idempotency-Key`, and what its nonces begin with.
pub async fn call(desk: &Desk, manner: Manner, key: &str, lines: usize, gateway: usize) {
    let nonces: Vec<String> = match manner {
        Manner::Batch => (1..=lines).map(|line| format!("{key}-{line}.")).collect(),
        _ => vec![format!("{key}.")],
    };
    let mut call = Call { is_told: desk.is_told, ..Call::new(manner, key.to_owned(), nonces) };
    match manner {
        Manner::Sync => sync(desk, &mut call, gateway).await,
        Manner::Stream => stream(desk, &mut call, gateway).await,
        Manner::Submit => submit(desk, &mut call, gateway).await,
        Manner::Unkeyed => unkeyed(desk, &mut call, gateway).await,
        Manner::Webhook => webhook(desk, &mut call, gateway).await,
        Manner::Batch => submit_batch(desk, &mut call, gateway).await,
    }
    desk.calls.push(call);
}

async fn sync(desk: &Desk, call: &mut Call, gateway: usize) {
    let body = json!({ "employee_id": desk.agent, "prompt": prompt(desk, call) });
    let answer = keyed(desk, call, "POST /api/v1/chat", gateway, &body).await;
    if let Some(answer) = answer.filter(|answer| answer.status == 200) {
        answered(call, answer.json()["content"].as_str());
    }
}

async fn stream(desk: &Desk, call: &mut Call, gateway: usize) {
    let body = json!({ "agentId": desk.agent, "message": prompt(desk, call), "stream": true });
    let answer = keyed(desk, call, "POST /api/agents/chat", gateway, &body).await;
    if let Some(answer) = answer.filter(|answer| answer.status == 200) {
        answered(call, Some(&answer.text));
    }
}

async fn submit(desk: &Desk, call: &mut Call, gateway: usize) {
    let body = json!({ "employee_id": desk.agent, "prompt": prompt(desk, call) });
    let answer = keyed(desk, call, "POST /api/v1/messages", gateway, &body).await;
    ended(desk, call, gateway, answer).await;
}

/// Nobody sends it again: what was accepted ends, or is lost.
async fn unkeyed(desk: &Desk, call: &mut Call, gateway: usize) {
    let body = json!({ "employee_id": desk.agent, "prompt": prompt(desk, call) });
    let request = desk.request(gateway, Method::POST, MESSAGES).header("content-type", "application/json");
    let answer = desk.ask(call, "POST /api/v1/messages", request.body(body.to_string())).await;
    ended(desk, call, gateway, answer).await;
}

/// Waits for the end of the message that `answer` tells of.
async fn ended(desk: &Desk, call: &mut Call, gateway: usize, answer: Option<Answer>) {
    let Some(id) = accepted_id(answer) else { return };
    let end = poll(desk, call, gateway, "GET /api/v1/messages/{id}", &format!("/api/v1/messages/{id}")).await;
    if let Some(message) = end.filter(|message| message["status"] == "completed") {
        answered(call, message["content"].as_str());
    }
}

/// Sends a call that was answered once more with its key, through `gateway`; gives the id and the answer.
pub async fn again(desk: &Desk, call: &Call, gateway: usize) -> Option<(String, String)> {
    let body = json!({ "employee_id": desk.agent, "prompt": prompt(desk, call) });
    let answer = keyed(desk, &mut call.clone(), "POST /api/v1/chat", gateway, &body).await?.json();
    Some((answer["message_id"].as_str()?.to_owned(), answer["content"].as_str()?.to_owned()))
}

/// Whether its answer came is seen at the receiver.
async fn webhook(desk: &Desk, call: &mut Call, gateway: usize) {
    let body =
        json!({ "employee_id": desk.agent, "prompt": prompt(desk, call), "callback_url": desk.callback(&call.key) });
    let answer = keyed(desk, call, "POST /api/v1/webhook", gateway, &body).await;
    call.done = accepted_id(answer).is_some();
}

async fn submit_batch(desk: &Desk, call: &mut Call, gateway: usize) {
    let lines: String = call.answers.keys().map(|nonce| batch::line(nonce, &desk.agent, nonce) + "\n").collect();
    let key = call.key.clone();
    let make = |place| {
        let request = desk.request(place, Method::POST, batch::BATCHES).header("content-type", batch::LINES);
        request.header("idempotency-key", &key).body(lines.clone())
    };
    let answer = desk.insist(call, "POST /api/v1/batches", gateway, make).await;
    let Some(id) = accepted_id(answer) else { return };
    let path = format!("{}/{id}", batch::BATCHES);
    if poll(desk, call, gateway, "GET /api/v1/batches/{id}", &path).await.is_none() {
        return;
    }
    let results = |place| desk.request(place, Method::GET, &format!("{path}/results"));
    let answer = desk.insist(call, "GET /api/v1/batches/{id}/results", gateway, results).await;
    let Some(answer) = answer.filter(|answer| answer.status == 200) else { return };
    for result in answer.text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let content = result["response"]["body"]["content"].as_str().or(result["content"].as_str());
        let nonce = result["custom_id"].as_str().unwrap_or_default().to_owned();
        call.answers.insert(nonce, content.map(str::to_owned));
    }
    call.done = call.answers.values().all(Option::is_some);
}

/// It ends with the only nonce of the call.
fn prompt(desk: &Desk, call: &Call) -> String {
    let nonce = call.answers.keys().next().map_or("", String::as_str);
    format!("{}{nonce}", desk.preface)
}

fn answered(call: &mut Call, text: Option<&str>) {
    let texts: BTreeMap<_, _> = call.answers.keys().map(|nonce| (nonce.clone(), text.map(str::to_owned))).collect();
    call.answers = texts;
    call.done = text.is_some();
}

fn accepted_id(answer: Option<Answer>) -> Option<String> {
    let body = answer.filter(|answer| answer.status == 202)?.json();
    body["batch_id"].as_str().or(body["message_id"].as_str()).map(str::to_owned)
}

/// A `POST` with the call's key, again and again until it is taken.
async fn keyed(desk: &Desk, call: &mut Call, route: &'static str, gateway: usize, body: &Value) -> Option<Answer> {
    let path = route.trim_start_matches("POST ");
    let key = call.key.clone();
    let make = |place| -> RequestBuilder {
        let request = desk.request(place, Method::POST, path).header("content-type", "application/json");
        request.header("idempotency-key", &key).body(body.to_string())
    };
    desk.insist(call, route, gateway, make).await
}

/// What is at `path` once it has ended.
async fn poll(desk: &Desk, call: &mut Call, gateway: usize, route: &'static str, path: &str) -> Option<Value> {
    let until = Instant::now() + desk.patience;
    while Instant::now() < until {
        let make = |place| desk.request(place, Method::GET, &format!("{path}?wait={POLL}"));
        let answer = desk.insist(call, route, gateway, make).await?;
        if answer.status != 200 {
            return None;
        }
        let body = answer.json();
        if !matches!(body["status"].as_str(), Some("queued" | "in_progress" | "enqueuing" | "cancelling")) {
            return Some(body);
        }
        sleep(desk.deadline / 100).await;
    }
    None
}
