//! `GET /api/v1/batches/{id}/stream`: how a batch gets on, over Server-Sent Events.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use common::{
    domain::{
        batch::{Batch, BatchStatus},
        batch_object::BatchObject,
        event::EventKind,
        ids::BatchId,
    },
    lifecycle::Lifecycle,
};
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::sse;
use crate::{
    auth::gate::{Admitted, Door, Reading},
    batches::archive::BatchArchive,
    error::ApiError,
    extract::InPath,
    follow::seats::{Seat, Seats},
    openapi::{answers::passing, step::Step},
    state::AppState,
};

/// The id of the last event: whoever has seen it has no reason to come back.
const END: &str = "end";
/// The least time between two events.
const PACE: Duration = Duration::from_millis(500);

/// One event of the stream.
#[derive(ToSchema)]
#[schema(as = BatchEvent, example = json!({ "event": "batch.progress", "data": "{\"status\":\"in_progress\"}" }))]
#[expect(dead_code, reason = "events are written as text; this is their shape for the document")]
struct SentEvent {
    /// Of the last event alone: for `Last-Event-ID`.
    #[schema(nullable = false)]
    id: Option<String>,
    /// What it is.
    event: String,
    /// The batch, as JSON.
    data: String,
    /// After how many milliseconds to come back when the connection breaks.
    #[schema(nullable = false)]
    retry: Option<u32>,
}

/// Follow a batch.
///
/// `batch.progress` at the beginning and when something has changed, at most twice a second, and at the end one of
/// `batch.completed` and `batch.cancelled`; each with the batch. A stream may end before the batch does, after some
/// minutes at the latest: come back then.
#[utoipa::path(
    get,
    path = "/api/v1/batches/{batch_id}/stream",
    operation_id = "stream_batch",
    tag = "batches",
    params(
        ("batch_id" = String, Path, format = "uuid", description = "The batch."),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that had one."),
    ),
    responses(
        (status = 200, description = "The events.", content_type = "text/event-stream", body = SentEvent),
        (status = 204, description = "That event was the last one: there is no reason to come back."),
    ),
)]
async fn follow(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<BatchArchive>>,
    State(seats): State<Seats>,
    State(lifecycle): State<Lifecycle>,
    InPath(id): InPath<BatchId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let has_seen_the_end = sse::last_event_id(&headers)? == Some(END);
    let followed = archive.follow(&admitted.caller, id).await?;
    if has_seen_the_end {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let seat = seats.take(admitted.caller.key.id).ok_or(ApiError::TooManyStreams)?;
    let until = Instant::now() + seats.lifetime();
    let events = Events { followed, until, lifecycle, is_first: true, is_over: false, _seat: seat };
    let body = stream::unfold(events, |mut events| async move {
        let portion = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(portion), events))
    });
    Ok((sse::head(), Body::from_stream(body)).into_response())
}

/// One reader's events on their way out.
struct Events {
    followed: watch::Receiver<Batch>,
    /// Until when this stream lasts.
    until: Instant,
    lifecycle: Lifecycle,
    is_first: bool,
    is_over: bool,
    _seat: Seat,
}

impl Events {
    /// The next bytes; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let mut out = String::new();
        if std::mem::take(&mut self.is_first) {
            out.push_str(sse::RETRY);
            self.write(&mut out);
            return Some(out.into());
        }
        tokio::select! {
            biased;
            () = self.lifecycle.stopping() => self.leave("this gateway is stopping, another one goes on", &mut out),
            () = sleep_until(self.until) => self.leave("this stream has lasted long enough, come back for more", &mut out),
            changed = changed(&mut self.followed) => match changed {
                true => self.write(&mut out),
                false => self.leave("nothing more is known of this batch", &mut out),
            },
            () = sleep(sse::KEEP_ALIVE) => out.push_str(sse::STILL_HERE),
        }
        Some(out.into())
    }

    fn write(&mut self, out: &mut String) {
        let batch = self.followed.borrow_and_update().clone();
        let end = match batch.status {
            BatchStatus::Completed => Some(EventKind::BatchCompleted),
            BatchStatus::Cancelled => Some(EventKind::BatchCancelled),
            BatchStatus::Enqueuing | BatchStatus::InProgress | BatchStatus::Cancelling => None,
        };
        self.is_over = end.is_some();
        let name = end.map_or("batch.progress", EventKind::name);
        sse::event(out, end.map(|_| END), name, &BatchObject::from(&batch));
    }

    /// Ends the stream before the batch's end.
    fn leave(&mut self, reason: &str, out: &mut String) {
        self.is_over = true;
        sse::comment(out, reason);
    }
}

/// Waits for the next change, and not for less than [`PACE`]. Whether there is one.
async fn changed(followed: &mut watch::Receiver<Batch>) -> bool {
    sleep(PACE).await;
    followed.changed().await.is_ok()
}

/// The route of streams.
pub fn routes() -> OpenApiRouter<AppState> {
    const STEPS: [Step; 4] = [Step::Gate(Reading::NEEDS), Step::Query, Step::Batch, Step::Seat];
    OpenApiRouter::new().routes(passing(&STEPS, routes!(follow)))
}
