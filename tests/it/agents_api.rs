//! `/api/agents`: who may see and ask which agent, what can be said to it, and what comes back. B1 to B12, B14 to B17.

use common::domain::ids::AgentId;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    database::{Database, query},
    model::ModelServer,
    stack::Stack,
};

const CHAT: &str = "/api/agents/chat";

/// What `body` is answered.
async fn chat(stack: &Stack, body: Value) -> Answer {
    Answer::of(stack.post(CHAT, &body).await).await
}

/// What `body` is answered when it is sent with `key`.
async fn chat_with(stack: &Stack, key: &str, body: Value) -> Answer {
    let request = stack.anonymous(Method::POST, CHAT).bearer_auth(key);
    Answer::to(request.header("content-type", "application/json").body(body.to_string())).await
}

fn sorted_names(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[rstest]
#[tokio::test]
async fn b1_an_account_sees_its_agents_and_no_others(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let second = json!({ "name": "Second", "description": "Knows it all", "model": "m-2", "provider": "demo" });
    let second = stack.make_agent("first", &second);
    let (_, foreign, foreign_key) = stack.another_account("second");

    let answer = Answer::of(stack.get("/api/agents").await).await;
    let body = answer.ok();
    assert_eq!(sorted_names(&body), ["agents"]);
    let mut agents = body["agents"].as_array().expect("a list").clone();
    agents.sort_by_key(|agent| agent["name"].to_string());
    assert_eq!(
        agents,
        [
            json!({ "id": stack.agent, "name": "Assistant", "description": "", "model": "demo" }),
            json!({ "id": second, "name": "Second", "description": "Knows it all", "model": "m-2" }),
        ]
    );

    let others = Answer::to(stack.anonymous(Method::GET, "/api/agents").bearer_auth(&foreign_key)).await.json();
    assert_eq!(others["agents"].as_array().expect("a list").len(), 1);
    assert_eq!(others["agents"][0]["id"], foreign);
}

#[rstest]
#[tokio::test]
async fn b3_b14_a_key_stands_in_either_header(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_AUTH_FAILURE_LIMIT", 1_000).start().await;
    let body = json!({ "agentId": stack.agent, "message": "hello" }).to_string();
    for (method, path) in [(Method::GET, "/api/agents"), (Method::POST, CHAT)] {
        let request = || {
            let request = stack.anonymous(method.clone(), path).header("content-type", "application/json");
            request.body(body.clone())
        };
        for (name, value) in [
            ("X-API-Key", stack.key.clone()),
            ("authorization", format!("Bearer {}", stack.key)),
            ("authorization", format!("bearer {}", stack.key)),
        ] {
            let answer = Answer::to(request().header(name, value)).await;
            assert_eq!(answer.status, 200, "{path} {name}: {}", answer.text());
            assert!(
                answer.header("ratelimit-policy").is_some_and(|policy| policy.starts_with("\"key\";q=")),
                "{:?}",
                answer.headers
            );
        }
        let wrong = format!("{}x", stack.key);
        for refused in [
            request(),
            request().header("X-API-Key", &wrong),
            request().header("X-API-Key", ""),
            request().header("authorization", format!("Bearer {wrong}")),
            request().header("authorization", format!("Basic {}", stack.key)),
        ] {
            let answer = Answer::to(refused).await;
            answer.fault(401, "unauthorized");
            assert!(
                answer.json()["request_id"].is_string() && !answer.text().contains(&stack.key),
                "{}",
                answer.text()
            );
        }
    }
}

#[rstest]
#[tokio::test]
async fn b2_b8_b10_b11_b12_an_answer_has_the_seeds_fields_alone(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    for stream in [json!({}), json!({ "stream": false }), json!({ "stream": null, "unknown": [1] })] {
        let answer = Answer::of(stack.agent_chat("three words here", stream.clone()).await).await;
        assert_eq!(
            answer.ok(),
            json!({
                "content": "three words here", "model": "demo",
                "usage": { "inputTokens": 3, "outputTokens": 3, "totalTokens": 6 },
            })
        );
        let id = answer.header("x-message-id").expect("an id");
        assert_eq!(answer.header("location"), Some(format!("/api/v1/messages/{id}").as_str()));
        assert!(
            answer.header("server-timing").is_some_and(|timing| timing.starts_with("queue;dur=")),
            "{:?}",
            answer.headers
        );
    }
    let uneven = Answer::of(stack.agent_chat("/tokens 40", json!({})).await).await.json();
    assert_eq!(uneven["usage"], json!({ "inputTokens": 2, "outputTokens": 40, "totalTokens": 42 }));
}

#[rstest]
#[tokio::test]
async fn b6_b7_a_conversation_is_history_or_messages_and_then_message(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let model = ModelServer::start().await.expect("a model");
    let stack = Stack::on(database)
        .agent(json!({ "name": "A", "model": "m", "provider": "openai", "instructions": "be kind" }))
        .set("FRONTDESK_OPENAI_URL", model.url())
        .start()
        .await;
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let instructions = turn("system", "be kind");
    let earlier = [turn("system", "be brief"), turn("user", "hi"), turn("assistant", "hello")];
    let asked = [&earlier[..], &[turn("user", "and now?")]].concat();
    let told = [&[instructions], &asked[..]].concat();
    let only_message = json!([turn("system", "be kind"), turn("user", "hey")]);

    for (more, expected) in [
        (json!({ "message": "hey" }), only_message.clone()),
        (json!({ "message": "hey", "history": [], "messages": null }), only_message),
        (json!({ "messages": asked }), json!(told)),
        (json!({ "history": asked }), json!(told)),
        (json!({ "history": earlier, "message": "and now?" }), json!(told)),
        (json!({ "messages": earlier, "message": "and now?" }), json!(told)),
    ] {
        let mut body = json!({ "agentId": stack.agent });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let answer = chat(&stack, body.clone()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        assert_eq!(model.calls().last().expect("a call").body["messages"], expected, "{body}");
    }
}

#[rstest]
#[tokio::test]
async fn b5_b6_what_is_malformed_is_400_and_names_its_field(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let agent = &stack.agent;
    let user = json!([{ "role": "user", "content": "hi" }]);
    let assistant = json!([{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "x" }]);
    let faults = [
        (json!({ "message": "hi" }), "agentId"),
        (json!({ "agentId": null, "message": "hi" }), "agentId"),
        (json!({ "agentId": 7, "message": "hi" }), "agentId"),
        (json!({ "agentId": agent }), "message"),
        (json!({ "agentId": agent, "message": "" }), "message"),
        (json!({ "agentId": agent, "message": ["hi"] }), "message"),
        (json!({ "agentId": agent, "message": "nul \u{0}" }), "message"),
        (json!({ "agentId": agent, "messages": [] }), "message"),
        (json!({ "agentId": agent, "messages": user, "history": user }), "history"),
        (json!({ "agentId": agent, "messages": user, "history": user, "message": "hi" }), "messages"),
        (json!({ "agentId": agent, "messages": assistant }), "messages"),
        (json!({ "agentId": agent, "history": assistant }), "history"),
        (json!({ "agentId": agent, "history": [{ "role": "system", "content": "x" }] }), "history"),
        (json!({ "agentId": agent, "history": "hi", "message": "hi" }), "history"),
        (json!({ "agentId": agent, "messages": ["hi"] }), "messages[0]"),
        (json!({ "agentId": agent, "messages": [{ "role": "tool", "content": "x" }] }), "messages[0].role"),
        (json!({ "agentId": agent, "messages": [{ "content": "x" }] }), "messages[0].role"),
        (json!({ "agentId": agent, "messages": [{ "role": "user" }] }), "messages[0].content"),
        (json!({ "agentId": agent, "messages": [{ "role": "user", "content": [] }] }), "messages[0].content"),
        (json!({ "agentId": agent, "message": "hi", "stream": "yes" }), "stream"),
        (json!({ "agentId": agent, "message": "hi", "newChat": 1 }), "newChat"),
        (json!([agent, "hi"]), "object"),
    ];
    for (body, field) in faults {
        let answer = chat(&stack, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let sentence = answer.json()["error"].as_str().expect("a sentence").to_owned();
        assert!(sentence.contains(field), "{body}: {sentence}");
    }
    let nested = format!("{{\"agentId\":{}", "[".repeat(10_000));
    let good = json!({ "agentId": agent, "message": "hi" }).to_string();
    for (media_type, text) in [
        ("application/json", ""),
        ("application/json", "{"),
        ("application/json", "null"),
        ("application/json", &nested),
        ("text/plain", &good),
        ("application/x-www-form-urlencoded", "agentId=x&message=hi"),
    ] {
        let request = stack.request(Method::POST, CHAT).header("content-type", media_type).body(text.to_owned());
        Answer::to(request).await.fault(400, "invalid_request");
    }
    let no_type = Answer::to(stack.request(Method::POST, CHAT).body(good)).await;
    assert!(no_type.json()["error"].as_str().expect("a sentence").contains("Content-Type"), "{}", no_type.text());
}

#[rstest]
#[tokio::test]
async fn b9_a_new_chat_is_noted_for_analytics(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    for (message, more) in [
        ("marked", json!({ "newChat": true })),
        ("unmarked", json!({ "newChat": false })),
        ("silent", json!({})),
        ("streamed", json!({ "newChat": true, "stream": true })),
    ] {
        let answer = Answer::of(stack.agent_chat(message, more).await).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let statement = "SELECT content, CASE WHEN new_chat THEN 'new' ELSE 'old' END FROM messages ORDER BY content";
    let rows = query(&stack.database_url, statement).expect("rows");
    assert_eq!(rows.lines().collect::<Vec<_>>(), ["marked|new", "silent|old", "streamed|new", "unmarked|old"]);
}

#[rstest]
#[tokio::test]
async fn b4_no_account_key_can_mint_list_or_rotate_keys(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_KEY_LIMIT", 10_000).start().await;
    let body = json!({ "name": "mine", "account": stack.account }).to_string();
    for path in [
        "/api/keys",
        "/api/key",
        "/api/agents/keys",
        "/api/agents/keys/rotate",
        "/api/v1/keys",
        "/api/v1/keys/rotate",
        "/api/v1/api-keys",
        "/api/v1/accounts",
        "/api/v1/account/keys",
        "/api/accounts/first/keys",
        "/admin/keys",
        "/keys",
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let request = stack.request(method.clone(), path).header("content-type", "application/json");
            let answer = Answer::to(request.body(body.clone())).await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
        }
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        for path in ["/api/agents", CHAT] {
            Answer::to(stack.request(method.clone(), path)).await.fault(405, "method_not_allowed");
        }
    }
    assert_eq!(stack.admin(&["key", "list", &stack.account]).as_array().expect("keys").len(), 1);
}

#[rstest]
#[tokio::test]
async fn b15_b16_who_may_ask_which_agent(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::start(database).await;
    let other = stack.make_agent("first", &json!({ "name": "Other", "model": "demo", "provider": "demo" }));
    let (_, foreign, _) = stack.another_account("second");
    let limited = stack.make_key("first", "limited", &[&other]);
    let ask = |agent: &str, stream: bool| json!({ "agentId": agent, "message": "hello", "stream": stream });

    for stream in [false, true] {
        assert_eq!(chat_with(&stack, &limited, ask(&other, stream)).await.status, 200);
        let refused = chat_with(&stack, &limited, ask(&stack.agent, stream)).await;
        refused.fault(403, "agent_forbidden");

        let nobody = AgentId::new().to_string();
        let mut bodies = Vec::new();
        for agent in [nobody.as_str(), foreign.as_str(), "AGENT_ID", "", "jobs.>", "a b", &other.replace('-', "*")] {
            for key in [&stack.key, &limited] {
                let answer = chat_with(&stack, key, ask(agent, stream)).await;
                answer.fault(404, "agent_not_found");
                let mut body = answer.json();
                body["request_id"].take();
                bodies.push(body);
            }
        }
        assert!(bodies.windows(2).all(|two| two[0] == two[1]), "a body tells one from another: {bodies:?}");
    }
}

#[rstest]
#[tokio::test]
async fn b15_an_account_has_to_be_verified_and_its_channel_on(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let (_, agent, key) = stack.another_account("second");
    stack.admin(&["channel", "off", "second", "api"]);
    let body = json!({ "agentId": agent, "message": "hello" });
    chat_with(&stack, &key, body).await.fault(403, "channel_disabled");
    Answer::to(stack.anonymous(Method::GET, "/api/agents").bearer_auth(&key)).await.ok(); // reading needs no channel

    stack.admin(&["channel", "off", "first", "api"]);
    stack.admin(&["account", "unverify", "first"]);
    let answer = Answer::of(stack.agent_chat("hello", json!({ "stream": true })).await).await;
    answer.fault(403, "email_not_verified"); // the email comes before the channel
    Answer::of(stack.get("/api/agents").await).await.fault(403, "email_not_verified");
}

#[rstest]
#[tokio::test]
async fn b17_b18_a_provider_that_is_not_configured_is_500(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let unserved = stack.make_agent("first", &json!({ "name": "B", "model": "gpt", "provider": "openai" }));
    for stream in [false, true] {
        let body = json!({ "agentId": unserved, "message": "hello", "stream": stream });
        let answer = chat(&stack, body).await;
        answer.fault(500, "agent_failed");
        assert_eq!(answer.json()["message_id"].as_str(), answer.header("x-message-id"));
        let failing = Answer::of(stack.agent_chat("/fail 401", json!({ "stream": stream })).await).await;
        failing.fault(500, "agent_failed");
    }
}
