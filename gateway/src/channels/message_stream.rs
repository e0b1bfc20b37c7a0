//! `GET /api/v1/messages/{id}/stream`: a message as it is made, over Server-Sent Events, from any event on.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use common::{
    domain::{event::EventKind, ids::MessageId, object::MessageObject, reply::Attempt},
    lifecycle::Lifecycle,
};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{messages::MessagePath, sse};
use crate::{
    archive::Archive,
    auth::gate::{Admitted, Door, Reading},
    error::ApiError,
    fault::X_MESSAGE_ID,
    follow::{
        cursor::Step,
        follower::{Follower, TooSlow},
        position::Position,
        seats::{Seat, Seats},
    },
    openapi::{answers::passing, step},
    query::Parameters,
    state::AppState,
};

/// Steps that are there at the same time leave together, up to about so many bytes.
const PORTION: usize = 16 * 1024;

/// One event of the stream.
#[derive(ToSchema)]
#[schema(as = MessageEvent, example = json!({
    "id": "0-1-0-811c9dc5f17c5d7f.1.6", "event": "message.delta", "data": "{\"text\":\"Hello!\"}",
}))]
#[expect(dead_code, reason = "events are written as text; this is their shape for the document")]
struct SentEvent {
    /// Where the answer stands behind it: for `Last-Event-ID`.
    #[schema(nullable = false)]
    id: Option<String>,
    /// What it is.
    event: String,
    /// A JSON object: `text` of a delta, `attempt` of a restart, the whole message at the end.
    data: String,
    /// After how many milliseconds to come back when the connection breaks.
    #[schema(nullable = false)]
    retry: Option<u32>,
}

/// Follow a message.
///
/// The events `message.queued`, `message.started`, `message.delta`, `message.restarted`, and at the end one of
/// `message.completed`, `message.failed`, `message.cancelled`, `message.expired` with the message. Who comes back with
/// `Last-Event-ID` misses nothing and gets nothing twice. Also of a message that has ended. A stream may end before the
/// message does, after some minutes at the latest: come back then.
#[utoipa::path(
    get,
    path = "/api/v1/messages/{message_id}/stream",
    operation_id = "stream_message",
    tag = "messages",
    params(
        ("message_id" = String, Path, format = "uuid", description = "The message."),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen."),
        ("after" = Option<String>, Query, description = "The same, for who cannot send the header; the header wins."),
    ),
    responses(
        (status = 200, description = "The events.", content_type = "text/event-stream", body = SentEvent),
        (status = 204, description = "That event was the last one: there is no reason to come back."),
    ),
)]
async fn follow(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<Archive>>,
    State(seats): State<Seats>,
    State(lifecycle): State<Lifecycle>,
    MessagePath(id): MessagePath,
    headers: HeaderMap,
    mut query: Parameters,
) -> Result<Response, ApiError> {
    let after = match sse::last_event_id(&headers)? {
        Some(last) => Some(last.to_owned()),
        None => query.text("after")?.filter(|after| !after.is_empty()),
    };
    let Some((follower, message)) = archive.follow(&admitted.caller, id, after.as_deref()).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let seat = seats.take(admitted.caller.key.id).ok_or(ApiError::TooManyStreams)?;
    let until = Instant::now() + seats.lifetime();
    let events = Events { follower, id, message: Some(message), until, lifecycle, is_first: true, _seat: seat };
    let body = stream::unfold(events, |mut events| async move {
        let portion = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(portion), events))
    });
    let mut head = sse::head();
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        head.insert(X_MESSAGE_ID, id);
    }
    Ok((head, Body::from_stream(body)).into_response())
}

/// One reader's events on their way out.
struct Events {
    follower: Follower,
    id: MessageId,
    /// The message without its end; gone once there is nothing more to say.
    message: Option<MessageObject>,
    /// Until when this stream lasts.
    until: Instant,
    lifecycle: Lifecycle,
    is_first: bool,
    _seat: Seat,
}

impl Events {
    /// The next bytes; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        self.message.as_ref()?;
        let mut out = String::new();
        if std::mem::take(&mut self.is_first) {
            out.push_str(sse::RETRY);
        }
        tokio::select! {
            biased;
            () = self.lifecycle.stopping() => self.leave("this gateway is stopping, another one goes on", &mut out),
            () = sleep_until(self.until) => self.leave("this stream has lasted long enough, come back for more", &mut out),
            step = self.follower.next() => self.write_all(step, &mut out),
            () = sleep(sse::KEEP_ALIVE) => out.push_str(sse::STILL_HERE),
        }
        Some(out.into())
    }

    /// Writes `step` and those that are there already.
    fn write_all(&mut self, mut step: Result<Option<Step>, TooSlow>, out: &mut String) {
        loop {
            match step {
                Ok(Some(step)) => self.write(step, out),
                Ok(None) => return,
                Err(TooSlow) => {
                    return self.leave("too slow: more than 64 KiB came meanwhile, come back for them", out);
                }
            }
            if out.len() > PORTION {
                return;
            }
            step = self.follower.next_now();
        }
    }

    fn write(&mut self, step: Step, out: &mut String) {
        match step {
            Step::Queued => self.event(out, None, "message.queued", &json!({ "message_id": self.id })),
            Step::Started { position } => {
                self.event(out, Some(position), "message.started", &json!({ "message_id": self.id }));
            }
            Step::Delta { position, text } => {
                self.event(out, Some(position), "message.delta", &Delta { text: &text });
            }
            Step::Restarted { position } => {
                let attempt = ordinal(position.attempt);
                self.event(out, Some(position), "message.restarted", &json!({ "attempt": attempt }));
            }
            Step::End { position, outcome } => {
                let Some(message) = self.message.take() else { return };
                let name = EventKind::of(outcome.status).map_or("message.failed", EventKind::name);
                self.event(out, Some(position), name, &message.ended((*outcome).clone()));
            }
        }
    }

    fn event(&self, out: &mut String, position: Option<Position>, name: &str, data: &impl Serialize) {
        let id = position.map(|position| position.show(self.id));
        sse::event(out, id.as_deref(), name, data);
    }

    /// Ends the stream before the message's end.
    fn leave(&mut self, reason: &str, out: &mut String) {
        self.message = None;
        sse::comment(out, reason);
    }
}

#[derive(Serialize)]
struct Delta<'a> {
    text: &'a str,
}

/// How often the text has begun, as far as a run tells.
fn ordinal(attempt: Attempt) -> u32 {
    attempt.delivery.saturating_add(attempt.restart)
}

/// The routes of streams.
pub fn routes() -> OpenApiRouter<AppState> {
    const STEPS: [step::Step; 5] = [
        step::Step::Gate(Reading::NEEDS),
        step::Step::Message,
        step::Step::Query,
        step::Step::Unpurged,
        step::Step::Seat,
    ];
    OpenApiRouter::new().routes(passing(&STEPS, routes!(follow)))
}
