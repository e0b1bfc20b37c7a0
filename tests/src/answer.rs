//! An answer taken apart, so that a test can look at all of it.

use std::collections::BTreeSet;

use reqwest::{RequestBuilder, Response, header::HeaderMap};
use serde_json::Value;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads `response` to its end.
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("a whole body").to_vec();
        Self { status, headers, body }
    }

    /// Sends `request` and reads what comes back.
    pub async fn to(request: RequestBuilder) -> Self {
        Self::of(request.send().await.expect("an answer")).await
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("no UTF-8: {error}: {self}"))
    }

    /// The value of a header that is there exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().expect("a readable header");
        assert!(values.next().is_none(), "two headers `{name}`: {self}");
        Some(value)
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON: {error}: {self}"))
    }

    /// The body of a success, as JSON.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self}");
        self.json()
    }

    /// The body of an error: it has `status` and `code`, and the shape that all of the contract's errors have.
    #[track_caller]
    pub fn fault(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self}");
        let body = self.json();
        assert_eq!(body["code"], code, "{self}");
        assert!(body["error"].as_str().is_some_and(|sentence| sentence.contains(' ')), "no sentence: {self}");
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"), "{self}");
        body
    }

    /// The names of the body's members.
    #[track_caller]
    pub fn members(&self) -> BTreeSet<String> {
        self.json().as_object().unwrap_or_else(|| panic!("no object: {self}")).keys().cloned().collect()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(500).collect();
        write!(f, "{} {body} {:?}", self.status, self.headers)
    }
}
