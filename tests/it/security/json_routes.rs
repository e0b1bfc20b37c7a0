//! The routes that take a JSON object, as `/openapi.json` has them, each with a body that it accepts.

use reqwest::Method;
use serde_json::json;
use tests::{answer::Answer, caller::Caller, operation::Operation, stack::Stack};

/// The agent of the document's examples.
const SAMPLE_AGENT: &str = "01a20041-b6d5-7731-bd55-c170ed7731b2";
const ENDPOINTS: &str = "/api/v1/webhook-endpoints";

/// A route with a good body.
#[derive(Clone, Debug)]
pub struct JsonRoute {
    pub method: Method,
    pub path: String,
    pub body: String,
    /// A member of text that it has.
    pub text: &'static str,
}

/// All of them. What an id in their paths names is there.
///
/// # Panics
/// When the document has one that is not known here.
pub async fn json_routes(stack: &Stack) -> Vec<JsonRoute> {
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    let made = Caller::of(stack).post(ENDPOINTS, json!({ "url": "https://93.184.215.14/" }).to_string()).await;
    assert_eq!(made.status, 201, "{made}");
    let endpoint = made.json()["id"].as_str().expect("an id").to_owned();
    let document = Answer::to(stack.anonymous(Method::GET, "/openapi.json")).await.ok();
    let mut routes = Vec::new();
    for operation in Operation::all(&document) {
        let Some(("application/json", body)) = operation.body() else { continue };
        let (text, body) = match operation.name() {
            "chat" | "submit_message" | "submit_webhook" => ("prompt", body),
            "chat_with_agent" => ("message", body),
            "create_webhook_endpoint" => ("url", body),
            "change_webhook_endpoint" => ("url", json!({ "url": "https://example.com/other" }).to_string()),
            other => panic!("{other} takes JSON and is in no row"),
        };
        routes.push(JsonRoute {
            method: operation.method.to_uppercase().parse().expect("a method"),
            path: operation.path.replace("{id}", &endpoint),
            body: body.replace(SAMPLE_AGENT, &stack.agent),
            text,
        });
    }
    routes
}
