//! The shape of every error that a caller sees: our own, or RFC 9457 for who asks for it.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use common::domain::{
    batch::BatchStatus,
    ids::{BatchId, MessageId},
    message::MessageStatus,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::refused::{InvalidLine, Refused};

const PROBLEM: &str = "application/problem+json";
/// Names the message that an answer is about.
pub const X_MESSAGE_ID: HeaderName = HeaderName::from_static("x-message-id");

/// An error before it is written. It waits in its response's extensions for [`render`], which knows the request.
#[derive(Clone, Debug)]
pub struct Fault {
    http_status: StatusCode,
    code: &'static str,
    sentence: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    standing: Option<Standing>,
    details: Details,
}

/// How far something is.
#[derive(Clone, Copy, Debug)]
enum Standing {
    Message(MessageStatus),
    Batch(BatchStatus),
}

/// What is known beyond the sentence, the same in both shapes.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
struct Details {
    /// The message that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "uuid")]
    message_id: Option<MessageId>,
    /// The batch that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "uuid")]
    batch_id: Option<BatchId>,
    /// Whether the message (or the batch) was taken; `null`: nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    accepted: Option<Option<bool>>,
    /// Whether the same request may do better later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retryable: Option<bool>,
    /// Where the message can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status_url: Option<String>,
    /// What is wrong, one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// How many lines of the body make no sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    invalid_count: Option<u32>,
    /// The first of them, up to 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    invalid_lines: Vec<InvalidLine>,
}

impl Fault {
    /// An error with its HTTP status, its code in snake case and a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            http_status: status,
            code,
            sentence: sentence.into(),
            headers: Vec::new(),
            standing: None,
            details: Details::default(),
        }
    }

    /// Names the message.
    pub fn about(mut self, id: MessageId) -> Self {
        self.details.message_id = Some(id);
        self
    }

    /// Names the batch.
    pub fn about_batch(mut self, id: BatchId) -> Self {
        self.details.batch_id = Some(id);
        self
    }

    /// Says whether the message, or the batch, was taken; `None`: nobody knows.
    pub fn accepted(mut self, accepted: Option<bool>) -> Self {
        self.details.accepted = Some(accepted);
        self
    }

    /// Says whether the same request may do better later.
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.details.retryable = Some(retryable);
        self
    }

    /// Says how far the message is.
    pub fn standing_at(mut self, status: MessageStatus) -> Self {
        self.standing = Some(Standing::Message(status));
        self
    }

    /// Says how far the batch is.
    pub fn batch_at(mut self, status: BatchStatus) -> Self {
        self.standing = Some(Standing::Batch(status));
        self
    }

    /// Says how far the message is, and where its end can be read.
    pub fn found_at(mut self, status: MessageStatus, url: String) -> Self {
        if let Ok(location) = HeaderValue::try_from(url.as_str()) {
            self.headers.push((LOCATION, location));
        }
        self.standing = Some(Standing::Message(status));
        self.details.status_url = Some(url);
        self
    }

    /// Lists what is wrong.
    pub fn because(mut self, reasons: &[String]) -> Self {
        self.details.reasons = reasons.to_vec();
        self
    }

    /// Names the lines that make no sense.
    pub fn listing(mut self, refused: Refused) -> Self {
        self.details.invalid_count = Some(refused.count);
        self.details.invalid_lines = refused.named;
        self
    }

    /// Says after how many seconds to come back.
    pub fn retry_after(self, seconds: &'static str) -> Self {
        self.with_header(RETRY_AFTER, seconds)
    }

    /// Says how to authenticate.
    pub fn challenging(self) -> Self {
        self.with_header(WWW_AUTHENTICATE, "Bearer")
    }

    /// Ends the connection, since nobody knows where the next request would begin.
    pub fn closing(self) -> Self {
        self.with_header(CONNECTION, "close")
    }

    fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Its HTTP status.
    pub fn http_status(&self) -> StatusCode {
        self.http_status
    }

    /// Its code in snake case.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Its sentence for people.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// What it adds to the head of the answer.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Its body in one of the two shapes.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which is a defect.
    pub fn body(&self, request_id: &str, as_problem: bool) -> serde_json::Result<Vec<u8>> {
        let Self { http_status, code, sentence, standing, details, .. } = self;
        let (message_status, batch_status) = match *standing {
            None => (None, None),
            Some(Standing::Message(status)) => (Some(status.name()), None),
            Some(Standing::Batch(status)) => (None, Some(status.name())),
        };
        if as_problem {
            let title = http_status.canonical_reason().unwrap_or("Error");
            let status = http_status.as_u16();
            let detail = sentence;
            let problem = Problem { title, status, detail, code, request_id, message_status, batch_status, details };
            serde_json::to_vec(&problem)
        } else {
            let status = message_status.or(batch_status);
            serde_json::to_vec(&Plain { error: sentence, code, request_id, status, details })
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.http_status.into_response();
        response.headers_mut().extend(self.headers.iter().cloned());
        if let Some(id) = self.details.message_id.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
            response.headers_mut().insert(X_MESSAGE_ID, id);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Our own shape.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Plain<'a> {
    /// A sentence for people.
    error: &'a str,
    /// For programs; in snake case.
    code: &'a str,
    /// Names the request, as `X-Request-Id` does.
    request_id: &'a str,
    /// How far the message (or the batch) is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status: Option<&'a str>,
    #[serde(flatten)]
    details: &'a Details,
}

/// RFC 9457 keeps `status` for the HTTP status.
#[derive(Serialize, ToSchema)]
pub struct Problem<'a> {
    /// The HTTP status in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// A sentence for people.
    detail: &'a str,
    /// For programs; in snake case.
    code: &'a str,
    /// Names the request, as `X-Request-Id` does.
    request_id: &'a str,
    /// How far the message is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message_status: Option<&'a str>,
    /// How far the batch is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    batch_status: Option<&'a str>,
    #[serde(flatten)]
    details: &'a Details,
}

/// Writes the body of an error; other responses stay as they are.
pub fn render(mut response: Response, request_id: &str, as_problem: bool) -> Response {
    let Some(fault) = response.extensions_mut().remove::<Fault>() else { return response };
    let media_type = if as_problem { PROBLEM } else { "application/json" };
    // Only the length of what stood there before; it must not describe what stands there now.
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    *response.body_mut() = Body::from(fault.body(request_id, as_problem).unwrap_or_default());
    response
}

/// Whether the caller's `Accept` names RFC 9457's media type.
pub fn wants_problem(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(is_problem_range)
}

fn is_problem_range(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(PROBLEM));
    let is_refused = parts.any(|parameter| {
        let quality = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        quality.and_then(|quality| quality.parse().ok()) == Some(0.0_f32)
    });
    is_named && !is_refused
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;

    async fn rendered(fault: Fault, as_problem: bool) -> (Response, Value) {
        let (parts, body) = render(fault.into_response(), "r-1", as_problem).into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (Response::from_parts(parts, Body::empty()), serde_json::from_slice(&bytes).expect("JSON"))
    }

    fn timeout(id: MessageId) -> Fault {
        let fault = Fault::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "too late").about(id).accepted(Some(true));
        fault.found_at(MessageStatus::InProgress, "/there".to_owned())
    }

    #[tokio::test]
    async fn our_own_shape_has_what_is_known_and_nothing_else() {
        let id = MessageId::new();
        let (response, body) = rendered(timeout(id), false).await;
        assert_eq!(
            body,
            json!({"error": "too late", "code": "timeout", "request_id": "r-1", "message_id": id.to_string(),
                "accepted": true, "status": "in_progress", "status_url": "/there"})
        );
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[LOCATION], "/there");
        assert_eq!(response.headers()[X_MESSAGE_ID], id.to_string());
    }

    #[tokio::test]
    async fn what_nobody_knows_is_null() {
        let (_, body) =
            rendered(Fault::new(StatusCode::BAD_GATEWAY, "unreachable", "gone").accepted(None), false).await;
        assert_eq!(body, json!({"error": "gone", "code": "unreachable", "request_id": "r-1", "accepted": null}));
    }

    #[tokio::test]
    async fn a_problem_has_the_members_of_rfc_9457() {
        let (response, body) = rendered(timeout(MessageId::new()), true).await;
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM);
        assert_eq!((&body["title"], &body["status"]), (&json!("Gateway Timeout"), &json!(504)));
        assert_eq!((&body["detail"], &body["code"]), (&json!("too late"), &json!("timeout")));
        assert_eq!(body["message_status"], "in_progress");
    }

    #[test]
    fn problems_are_for_who_names_them() {
        for (accept, wanted) in [
            ("application/problem+json", true),
            ("application/json, Application/Problem+JSON;q=0.5", true),
            ("application/problem+json;q=0", false),
            ("*/*", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wants_problem(&headers), wanted, "{accept}");
        }
    }
}
