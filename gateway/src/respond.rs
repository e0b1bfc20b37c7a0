//! How answers leave: the contract's body as JSON, everything else in headers.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use common::domain::{ids::MessageId, reply::Outcome, time::Millis};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, LOCATION},
};
use serde::Serialize;
use tracing::error;

use crate::{
    dispatcher::answer::Answer,
    error::{ApiError, status_url},
    fault::X_MESSAGE_ID,
};

/// Says that an answer is the one that an earlier equal request got.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// As many headers as an answer usually has in the end: room for them is made once.
const HEADERS: usize = 12;

/// A JSON body with status 200.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let mut response = Response::new(Body::from(body));
                response.headers_mut().reserve(HEADERS);
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            Err(error) => {
                error!(%error, "could not write a body");
                ApiError::Internal.into_response()
            }
        }
    }
}

/// `answered`, marked as what an earlier equal request got when it `is_replay`.
pub fn replay(is_replay: bool, answered: Result<Response, ApiError>) -> Response {
    let mut response = answered.into_response();
    if is_replay {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Which message an answer belongs to, and where it can be read again.
pub fn headers_of(id: MessageId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, X_MESSAGE_ID, id.to_string());
    insert(&mut headers, LOCATION, status_url(id));
    headers
}

/// The headers of a finished answer: those of its message, and how long it waited and ran.
pub fn finished_headers(answer: &Answer) -> HeaderMap {
    let mut headers = headers_of(answer.id);
    insert(&mut headers, SERVER_TIMING, timing(answer.created_at, &answer.outcome));
    headers
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn timing(created_at: Millis, outcome: &Outcome) -> String {
    let started_at = outcome.started_at.unwrap_or(outcome.completed_at);
    let queued = started_at.since(created_at).as_millis();
    let ran = outcome.completed_at.since(started_at).as_millis();
    format!("queue;dur={queued}, run;dur={ran}")
}

#[cfg(test)]
mod tests {
    use common::domain::message::{MessageStatus, Usage};

    use super::*;

    #[test]
    fn timing_splits_at_the_start() {
        let mut outcome = Outcome {
            status: MessageStatus::Completed,
            content: None,
            model: None,
            usage: Usage::default(),
            credits_charged: 0,
            failure: None,
            attempts: 1,
            started_at: Some(Millis(12)),
            completed_at: Millis(46),
        };
        assert_eq!(timing(Millis(10), &outcome), "queue;dur=2, run;dur=34");
        outcome.started_at = None;
        assert_eq!(timing(Millis(10), &outcome), "queue;dur=36, run;dur=0");
    }
}
