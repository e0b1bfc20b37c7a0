//! Server-Sent Events as we write them.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::Serialize;

use crate::error::ApiError;

/// A comment after so much silence keeps proxies from closing the connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// That comment.
pub const STILL_HERE: &str = ": keep-alive\n\n";
/// What stands at the beginning: after how many milliseconds a reader comes back.
pub const RETRY: &str = "retry: 3000\n\n";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to gather what is meant to be seen at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The head of a stream.
pub fn head() -> HeaderMap {
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    head
}

/// The id of the last event that its reader has seen; an empty one is as good as absent.
///
/// # Errors
/// 400 when it cannot be one.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut lines = headers.get_all(LAST_EVENT_ID).iter();
    let (line, more) = (lines.next(), lines.next());
    match (line.map(HeaderValue::to_str), more) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text).filter(|text| !text.is_empty())),
        _ => Err(ApiError::BadRequest("`Last-Event-ID` is not an id of an event of this stream".to_owned())),
    }
}

/// Writes an event. JSON has no line breaks, so that one `data` line is enough.
pub fn event(out: &mut String, id: Option<&str>, name: &str, data: &impl Serialize) {
    let Ok(data) = serde_json::to_string(data) else { return };
    if let Some(id) = id {
        *out += &format!("id: {id}\n");
    }
    *out += &format!("event: {name}\ndata: {data}\n\n");
}

/// Writes why the stream ends here although there is more to come.
pub fn comment(out: &mut String, reason: &str) {
    *out += &format!(": {reason}\n\n");
}
