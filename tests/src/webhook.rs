//! Webhooks as a receiver checks them: with the official library.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::sink::Received;

/// Whether `secret` has signed the request, as the library judges it.
pub fn is_signed_by(secret: &str, received: &Received) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in &received.headers {
        let name = HeaderName::try_from(name).expect("a name");
        headers.insert(name, HeaderValue::try_from(value).expect("a value"));
    }
    Webhook::new(secret).expect("a secret").verify(&received.body, &headers).is_ok()
}

/// The event in the request, which `secret` has to have signed.
#[track_caller]
pub fn event(secret: &str, received: &Received) -> Value {
    assert!(is_signed_by(secret, received), "a wrong signature: {received:?}");
    assert_eq!((received.method.as_str(), received.header("content-type")), ("POST", Some("application/json")));
    received.json()
}
