//! What is known about a request apart from its content: its id, its trace, and how its key stands.

use std::sync::{Arc, Mutex, PoisonError};

use common::{domain::ids::RequestId, queue::subjects::TRACEPARENT, traceparent::Traceparent};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::rate_limit::{
    Bucket,
    window::{Standing, WINDOW_S},
};

/// Names a request, on the way in and on the way out.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REQUEST_ID_LIMIT: usize = 128;

/// One request's context; in its extensions as `Arc<RequestContext>`.
#[derive(Debug)]
pub struct RequestContext {
    /// The caller's own id for it, or one of ours.
    pub request_id: String,
    /// The trace that it belongs to.
    pub traceparent: Traceparent,
    standing: Mutex<Option<(Bucket, Standing)>>,
}

impl RequestContext {
    /// The context of a request with these headers.
    pub fn new(headers: &HeaderMap) -> Arc<Self> {
        let request_id = only(headers, &X_REQUEST_ID).filter(|id| is_request_id(id));
        let traceparent = only(headers, &HeaderName::from_static(TRACEPARENT)).and_then(Traceparent::parse);
        Arc::new(Self {
            request_id: request_id.map_or_else(|| RequestId::new().to_string(), str::to_owned),
            traceparent: traceparent.unwrap_or_else(Traceparent::new),
            standing: Mutex::default(),
        })
    }

    /// Notes how the request's key stands; the last note is what the answer says.
    pub fn note_standing(&self, bucket: Bucket, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some((bucket, standing));
    }

    /// Writes the request's id, and how its key stands if it has a valid one.
    pub fn write(&self, headers: &mut HeaderMap) {
        insert(headers, X_REQUEST_ID, self.request_id.clone());
        let standing = *self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((bucket, Standing { quota, remaining, resets_in_s })) = standing {
            let name = bucket.name();
            insert(headers, RATE_LIMIT_POLICY, format!("\"{name}\";q={quota};w={WINDOW_S}"));
            insert(headers, RATE_LIMIT, format!("\"{name}\";r={remaining};t={resets_in_s}"));
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn is_request_id(text: &str) -> bool {
    (1..=REQUEST_ID_LIMIT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_id(values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        RequestContext::new(&headers).request_id.clone()
    }

    #[test]
    fn a_callers_own_id_is_kept_when_it_is_fit_for_a_log() {
        let longest = "x".repeat(128);
        for id in ["a", "~!{\"}", &longest] {
            assert_eq!(request_id(&[id]), id);
        }
        let too_long = "x".repeat(129);
        for id in ["", "a b", "é", &too_long] {
            assert_eq!(request_id(&[id]).len(), 36, "{id}");
        }
        assert_eq!(request_id(&["a", "b"]).len(), 36);
        assert_eq!(request_id(&[]).len(), 36);
    }

    #[test]
    fn an_answer_says_how_the_key_stands() {
        let context = RequestContext::new(&HeaderMap::new());
        let mut headers = HeaderMap::new();
        context.write(&mut headers);
        assert!(!headers.contains_key(RATE_LIMIT));
        context.note_standing(Bucket::Requests, Standing { quota: 120, remaining: 87, resets_in_s: 23 });
        context.write(&mut headers);
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"key\";q=120;w=60");
        assert_eq!(headers[RATE_LIMIT], "\"key\";r=87;t=23");
    }
}
