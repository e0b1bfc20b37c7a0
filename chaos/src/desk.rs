//! Where callers ask: each request is noted, whatever comes of it.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::calls::{Ask, Call, Calls};

/// A request that takes this much longer than the deadline is given up, and found by the check WAIT.
const MARGIN: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(150);

/// The gateways as a caller knows them. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// Where the gateways are.
    pub urls: Vec<String>,
    /// The key of the caller's account.
    pub key: String,
    /// The agent that is asked.
    pub agent: String,
    /// What the keys of its calls, and so the nonces, begin with after `nonce-`.
    pub name: String,
    /// What prompts begin with.
    pub preface: String,
    /// Where callbacks go: each to one of these.
    pub callbacks: Vec<String>,
    /// Whether who takes these callbacks is there.
    pub is_told: bool,
    /// The longest wait of a caller.
    pub deadline: Duration,
    /// How long a caller goes on trying.
    pub patience: Duration,
    /// Each caller hangs up once, within this time, and comes again.
    pub hangs_up_within: Option<Duration>,
    /// The log.
    pub calls: Calls,
    /// Asks.
    pub client: Client,
}

/// A whole answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The id in its header `X-Message-Id`.
    pub message_id: Option<String>,
    /// Its body.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// Whether the same request may be sent again.
    pub fn is_passing(&self) -> bool {
        match self.status {
            429 | 503 | 504 => true,
            502 => self.json()["code"] != "agent_failed",
            _ => false,
        }
    }
}

impl Desk {
    /// A request through the gateway `place`, counted round.
    pub fn request(&self, place: usize, method: Method, path: &str) -> RequestBuilder {
        let url = &self.urls[place % self.urls.len()];
        self.client.request(method, format!("{url}{path}")).bearer_auth(&self.key)
    }

    /// Where the callback of the call with `key` goes.
    pub fn callback(&self, key: &str) -> &str {
        &self.callbacks[hash(key) as usize % self.callbacks.len()]
    }

    /// Sends one request and notes it with `call`.
    pub async fn ask(&self, call: &mut Call, route: &'static str, request: RequestBuilder) -> Option<Answer> {
        let (at, began) = (self.calls.elapsed(), Instant::now());
        let answer = timeout(self.limit(call), whole(request)).await.ok().flatten();
        let body = answer.as_ref().map(Answer::json).unwrap_or_default();
        call.asks.push(Ask {
            route,
            status: answer.as_ref().map(|answer| answer.status),
            code: body["code"].as_str().map(str::to_owned),
            began: at,
            took: began.elapsed(),
        });
        if let Some(answer) = answer.as_ref().filter(|_| route.starts_with("POST")) {
            note(call, answer);
        }
        answer
    }

    /// How long the next request may take.
    fn limit(&self, call: &Call) -> Duration {
        match self.hangs_up_within {
            Some(within) if call.asks.is_empty() => within.mul_f64(fraction(&call.key)),
            _ => self.deadline + MARGIN,
        }
    }

    /// Sends what `make` makes to one gateway after the other, until an answer is more than a passing one, or the
    /// caller's patience is at its end.
    pub async fn insist(
        &self,
        call: &mut Call,
        route: &'static str,
        first: usize,
        make: impl Fn(usize) -> RequestBuilder,
    ) -> Option<Answer> {
        let until = Instant::now() + self.patience;
        for place in first.. {
            let answer = self.ask(call, route, make(place)).await;
            match answer {
                Some(answer) if !answer.is_passing() => return Some(answer),
                _ if Instant::now() > until => return None,
                _ => sleep(PAUSE).await,
            }
        }
        None
    }
}

/// What an answer says about the job: its id, and whether it is kept.
fn note(call: &mut Call, answer: &Answer) {
    let body = answer.json();
    let is_kept = body["accepted"] == true || matches!(answer.status, 200 | 202);
    call.accepted |= is_kept;
    call.refused = body["accepted"] == false && !call.accepted;
    let id = body["batch_id"].as_str().or(body["message_id"].as_str()).or(answer.message_id.as_deref());
    if let Some(id) = id {
        call.named(id);
    }
}

/// From 0 to 1, the same for the same key.
fn fraction(key: &str) -> f64 {
    (hash(key) % 1_000) as f64 / 1_000.0
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

async fn whole(request: RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let message_id = response.headers().get("x-message-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = response.text().await.ok()?;
    Some(Answer { status, message_id, text })
}
