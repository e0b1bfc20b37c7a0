//! `/openapi.json` and `/docs`: all that is said there holds.

use std::collections::BTreeSet;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{answer::Answer, database::Database, operation::Operation, schema, stack::Stack};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// The agent of the document's examples.
const SAMPLE_AGENT: &str = "01a20041-b6d5-7731-bd55-c170ed7731b2";

async fn document(stack: &Stack) -> Value {
    Answer::to(stack.anonymous(Method::GET, "/openapi.json")).await.ok()
}

#[tokio::test]
async fn the_page_asks_nobody_else() {
    let stack = Stack::on(Database::Sqlite).workers(0).start().await;
    let page = Answer::to(stack.anonymous(Method::GET, "/docs")).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    let addresses = page.text().split([' ', '>']).filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        ["src", "href"].contains(&name).then(|| value.trim_matches('"'))
    });
    let mut loaded = 0;
    for address in addresses.filter(|address| *address != "data:,") {
        assert!(!address.contains("//"), "{address} is somewhere else");
        let file = Answer::to(stack.anonymous(Method::GET, &format!("/{address}"))).await;
        assert_eq!(file.status, 200, "{address}");
        loaded += 1;
    }
    assert_eq!(loaded, 4, "the document, a style sheet and two scripts");
    Answer::to(stack.anonymous(Method::GET, "/docs/other.js")).await.fault(404, "not_found");
}

#[tokio::test]
async fn the_document_says_all_of_each_operation() {
    let stack = Stack::on(Database::Sqlite).workers(0).start().await;
    let document = document(&stack).await;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "{}", document["openapi"]);
    let mut names = BTreeSet::new();
    for operation in Operation::all(&document) {
        let (name, about) = (operation.name(), operation.about);
        assert!(names.insert(name.to_owned()), "two operations are named {name}");
        assert!(about["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{name} has no summary");
        assert!(about["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name} has no tag");
        let statuses: Vec<_> = about["responses"].as_object().expect("responses").keys().collect();
        assert!(statuses.iter().any(|status| status.starts_with('2')), "{name} has no success");
        assert_eq!(statuses.iter().any(|status| *status == "401"), operation.path.starts_with("/api/"), "{name}");
        for (status, response) in about["responses"].as_object().expect("responses") {
            assert!(response["headers"]["X-Request-Id"].is_object(), "{name} {status} has no id");
        }
    }
    undescribed(&document, &document, "$");
}

/// Fails when a reference leads nowhere, or a member of a shape has no description.
fn undescribed(document: &Value, part: &Value, place: &str) {
    if part.get("$ref").is_some() {
        schema::resolved(document, part);
    }
    for (name, member) in part["properties"].as_object().into_iter().flatten() {
        let choices = member["oneOf"].as_array().into_iter().flatten();
        let mut parts = std::iter::once(member).chain(choices);
        let described = parts.any(|part| part["description"].is_string() || part.get("$ref").is_some());
        assert!(described || place.contains("examples"), "{place}.{name} has no description");
    }
    for (name, inner) in part.as_object().into_iter().flatten() {
        undescribed(document, inner, &format!("{place}.{name}"));
    }
    for inner in part.as_array().into_iter().flatten() {
        undescribed(document, inner, place);
    }
}

#[tokio::test]
async fn the_routes_are_those_of_the_document() {
    let stack = Stack::on(Database::Sqlite).workers(0).set("FRONTDESK_KEY_LIMIT", 10_000).start().await;
    let document = document(&stack).await;
    for operation in Operation::all(&document) {
        let path = operation.path_of_example(None);
        for name in METHODS {
            let method = Method::from_bytes(name.to_uppercase().as_bytes()).expect("a method");
            let answer = Answer::to(stack.request(method, &path)).await;
            if document["paths"][operation.path].get(name).is_some() {
                assert_ne!((answer.status, answer.body.is_empty()), (405, false), "{name} {path}");
            } else {
                answer.fault(405, "method_not_allowed");
            }
        }
        let request = stack.request(operation.method.to_uppercase().parse().expect("a method"), &path);
        operation.documents(&Answer::to(request).await);
    }
}

#[rstest]
#[tokio::test]
async fn the_examples_work(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_KEY_LIMIT", 10_000).start().await;
    stack.admin(&["channel", "on", &stack.account, "webhooks"]);
    let document = document(&stack).await;
    for operation in Operation::all(&document) {
        let id = subject(&stack, &operation).await;
        let method: Method = operation.method.to_uppercase().parse().expect("a method");
        let mut request = stack.request(method, &operation.path_of_example(id.as_deref()));
        if let Some((media_type, body)) = operation.body() {
            request = request.header("content-type", media_type).body(body.replace(SAMPLE_AGENT, &stack.agent));
        }
        let answer = Answer::to(request).await;
        assert!((200..300).contains(&answer.status), "{}: {answer}", operation.name());
        operation.documents(&answer);
    }
}

/// The id of something that `operation` can be done to.
async fn subject(stack: &Stack, operation: &Operation<'_>) -> Option<String> {
    let made = async |path: &str, body: Value| Answer::of(stack.post(path, &body).await).await.json();
    let ask = |prompt: &str| json!({ "employee_id": stack.agent, "prompt": prompt });
    let endpoint = json!({ "url": "https://example.com/hook" });
    let id = match operation.name() {
        "cancel_message" => made("/api/v1/messages", ask("/sleep 60s")).await["message_id"].clone(),
        "retry_message" => {
            let id = made("/api/v1/messages", ask("/sleep 60s")).await["message_id"].clone();
            made(&format!("/api/v1/messages/{}/cancel", id.as_str()?), Value::Null).await;
            id
        }
        "cancel_batch" => batch(stack, "/sleep 60s").await["batch_id"].clone(),
        "retry_batch" => {
            let id = batch(stack, "/fail 400").await["batch_id"].clone();
            Answer::of(stack.get(&format!("/api/v1/batches/{}?wait=60", id.as_str()?)).await).await;
            id
        }
        "replay_webhook_delivery" => {
            let endpoint = made("/api/v1/webhook-endpoints", endpoint).await["id"].clone();
            made(&format!("/api/v1/webhook-endpoints/{}/test", endpoint.as_str()?), Value::Null).await["id"].clone()
        }
        _ if operation.path.contains("{batch_id}") => batch(stack, "hello").await["batch_id"].clone(),
        _ if operation.path.contains("{message_id}") => made("/api/v1/chat", ask("hello")).await["message_id"].clone(),
        _ if operation.path.contains("{id}") => made("/api/v1/webhook-endpoints", endpoint).await["id"].clone(),
        _ => return None,
    };
    Some(id.as_str().expect("an id").to_owned())
}

/// A batch of one line.
async fn batch(stack: &Stack, prompt: &str) -> Value {
    let line = json!({ "custom_id": "one", "employee_id": stack.agent, "prompt": prompt });
    let request = stack.request(Method::POST, "/api/v1/batches").header("content-type", "application/x-ndjson");
    Answer::to(request.body(line.to_string())).await.json()
}
