//! Someone who calls a gateway: with a key or without, from any address of the loopback, with any headers.

use std::net::IpAddr;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    stack::{Gateway, Stack},
};

/// A caller. Each change makes another one and leaves the first as it was.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    url: String,
    headers: Vec<(String, String)>,
}

impl Caller {
    /// Calls the first gateway of `stack` with its first key.
    pub fn of(stack: &Stack) -> Self {
        let client = client(None);
        Self { client, url: stack.url(""), headers: Vec::new() }.with_key(&stack.key)
    }

    /// With another key.
    pub fn with_key(&self, key: &str) -> Self {
        self.without_key().with_header("authorization", &format!("Bearer {key}"))
    }

    /// Without any key.
    pub fn without_key(&self) -> Self {
        let mut caller = self.clone();
        caller.headers.retain(|(name, _)| name != "authorization");
        caller
    }

    /// With one more header.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut caller = self.clone();
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// At another gateway.
    pub fn at(&self, gateway: &Gateway) -> Self {
        Self { url: gateway.url.clone(), ..self.clone() }
    }

    /// At another address, as `http://host:port`: what stands in front of a gateway.
    pub fn at_url(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// From another address of the loopback.
    pub fn from(&self, address: [u8; 4]) -> Self {
        Self { client: client(Some(address.into())), ..self.clone() }
    }

    /// A request, to be completed and sent.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.expect("an answer")).await
    }

    /// `POST` of `body`, whatever it is, as JSON.
    pub async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Answer::of(request.body(body.into()).send().await.expect("an answer")).await
    }

    /// `POST /api/v1/chat`.
    pub async fn chat(&self, agent: &str, prompt: &str) -> Answer {
        self.post("/api/v1/chat", chat_body(agent, prompt).to_string()).await
    }

    /// `POST /api/agents/chat`.
    pub async fn agent_chat(&self, agent: &str, message: &str) -> Answer {
        self.post("/api/agents/chat", json!({ "agentId": agent, "message": message }).to_string()).await
    }
}

/// The body of `POST /api/v1/chat`.
pub fn chat_body(agent: &str, prompt: &str) -> Value {
    json!({ "employee_id": agent, "prompt": prompt })
}

fn client(address: Option<IpAddr>) -> Client {
    Client::builder().no_proxy().local_address(address).build().expect("a client")
}
