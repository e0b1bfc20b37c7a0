//! `/api/v1/batches`: many requests in one body; what became of them is read, listed, stopped and run again here.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{FromRequest, Request, State},
    response::{IntoResponse as _, Response},
};
use common::{
    domain::{
        batch::BatchStatus,
        batch_object::{BatchObject, batch_url},
        ids::BatchId,
    },
    store::batches::BatchFilter,
};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::batch_line;
use crate::{
    archive::PageCursor,
    auth::gate::{Admitted, Door, Reading, Rest},
    batches::{
        archive::BatchArchive,
        desk::{BatchDesk, Submission, Taken},
        intake::{Received, check_declared},
        judge::Judged,
        spool::Spooled,
    },
    context::RequestContext,
    error::ApiError,
    extract::InPath,
    idempotency::key::IdempotencyKey,
    openapi::{answers::passing, samples, step::Step},
    query::Parameters,
    respond::{self, Json},
    state::AppState,
};

const BATCHES: &str = "/api/v1/batches";
const RETRY_FAILED: &str = "/api/v1/batches/{batch_id}/retry-failed";
/// How lines of JSON are called.
const MEDIA_TYPES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
/// How many batches a page has when nothing is said.
const PAGE: usize = 20;
/// How many it has at most.
const PAGE_LIMIT: usize = 100;
/// The longest long-poll, in seconds.
const WAIT_LIMIT_S: u64 = 300;

/// What becomes of a body in which some lines make no sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OnInvalid {
    /// Nothing is accepted.
    #[default]
    Fail,
    /// The others are.
    Skip,
}

impl FromStr for OnInvalid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "fail" => Ok(Self::Fail),
            "skip" => Ok(Self::Skip),
            _ => Err(()),
        }
    }
}

impl OnInvalid {
    fn of(query: &mut Parameters) -> Result<Self, ApiError> {
        Ok(query.parsed("on_invalid", "fail or skip")?.unwrap_or_default())
    }

    /// The lines that are accepted, and how many are left out.
    fn accepted(self, judged: Judged) -> Result<(Spooled, u32), ApiError> {
        let Judged { spooled, refused } = judged;
        if spooled.lines == 0 && refused.is_empty() {
            return Err(ApiError::BadRequest("the body is empty; lines of JSON objects are needed".to_owned()));
        }
        let is_accepted = refused.is_empty() || (self == Self::Skip && spooled.lines > 0);
        if is_accepted { Ok((spooled, refused.count)) } else { Err(ApiError::InvalidLines(refused)) }
    }
}

/// What two submissions with one key have to have in common.
#[derive(Serialize)]
struct Asked {
    on_invalid: OnInvalid,
    body: [u8; 32],
}

/// A body of lines that has not been read, with its headers. It stands last among a handler's arguments, hence behind
/// its authentication.
struct Lines {
    body: Body,
    key: Option<IdempotencyKey>,
}

impl<S: Sync> FromRequest<S> for Lines {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_declared(&body)?;
        require_lines(&parts.headers)?;
        Ok(Self { body, key: IdempotencyKey::of(&parts.headers)? })
    }
}

fn require_lines(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if MEDIA_TYPES.iter().any(|known| known.eq_ignore_ascii_case(media_type)) {
        return Ok(());
    }
    Err(ApiError::BadRequest("`Content-Type` has to be application/x-ndjson".to_owned()))
}

/// Submit a batch.
///
/// One request a line, up to 50,000 lines of up to 65,536 bytes, and 200,000,000 bytes together. A line is
/// `{"custom_id", "employee_id", "prompt"}`, or in the form of OpenAI's batches `{"custom_id", "method": "POST", "url",
/// "body"}` with the `url` `/api/v1/chat`, `/api/agents/chat` or `/v1/chat/completions` (whose `model` is the id or the
/// name of an agent). All lines are read and judged before the first of them is accepted, and the answer comes once the
/// last of them is stored on the queue. Sent again under the same `Idempotency-Key`, after whatever happened, the same
/// body is the same batch with each line once.
#[utoipa::path(
    post,
    path = "/api/v1/batches",
    operation_id = "submit_batch",
    tag = "batches",
    params(
        (
            "on_invalid" = inline(Option<OnInvalid>), Query,
            description = "What becomes of a body in which some lines make no sense: `fail` (the default) accepts nothing, `skip` the others.",
        ),
    ),
    request_body(
        content(
            (String = "application/x-ndjson", example = json!(samples::batch_line())),
            (String = "application/jsonl", example = json!(samples::batch_line())),
        ),
        description = "One JSON object a line.",
    ),
    responses((
        status = 202,
        description = "The batch is accepted, and all of its requests are on the queue.",
        body = BatchObject,
        headers(
            ("Location" = String, description = "Where the batch can be read."),
            ("Idempotent-Replayed" = String, description = "`true`: the answer to an earlier equal request."),
        ),
    )),
)]
async fn submit(
    admitted: Admitted<Rest>,
    State(desk): State<Arc<BatchDesk>>,
    Extension(context): Extension<Arc<RequestContext>>,
    mut query: Parameters,
    Lines { body, key }: Lines,
) -> Result<Response, ApiError> {
    let (on_invalid, caller) = (OnInvalid::of(&mut query)?, admitted.caller);
    let Received { judged, hash } = desk.receive(&caller, body, batch_line::request).await?;
    let (spooled, skipped) = on_invalid.accepted(judged)?;
    let ticket = desk.ticket(BATCHES, key.as_ref(), &caller, &Asked { on_invalid, body: hash }).await?;
    let traceparent = Some(context.traceparent.to_string());
    let submission = Submission { caller, spooled, skipped, retry_of: None, traceparent };
    desk.submit(submission, ticket).await.map(accepted)
}

/// Retry the requests of a batch that were not answered.
///
/// Those that failed, expired or were cancelled run again as a new batch with `retry_of`: under the same `custom_id`s,
/// with the same prompts to the same employees as they are now.
#[utoipa::path(
    post,
    path = "/api/v1/batches/{batch_id}/retry-failed",
    operation_id = "retry_batch",
    tag = "batches",
    params(
        ("batch_id" = String, Path, format = "uuid", description = "The batch that has ended."),
        (
            "on_invalid" = inline(Option<OnInvalid>), Query,
            description = "What becomes of it when some of the employees cannot be asked any more: `fail` (the default) accepts nothing, `skip` the others.",
        ),
    ),
    responses((
        status = 202,
        description = "The new batch is accepted.",
        body = BatchObject,
        headers(
            ("Location" = String, description = "Where the new batch can be read."),
            ("Idempotent-Replayed" = String, description = "`true`: the answer to an earlier equal request."),
        ),
    )),
)]
async fn retry_failed(
    admitted: Admitted<Rest>,
    State(desk): State<Arc<BatchDesk>>,
    State(archive): State<Arc<BatchArchive>>,
    Extension(context): Extension<Arc<RequestContext>>,
    InPath(id): InPath<BatchId>,
    headers: HeaderMap,
    mut query: Parameters,
) -> Result<Response, ApiError> {
    let (on_invalid, key, caller) = (OnInvalid::of(&mut query)?, IdempotencyKey::of(&headers)?, admitted.caller);
    let original = archive.find(&caller, id).await?;
    // Before the batch is looked at: what was accepted is accepted, whatever has become of it since.
    let ticket = desk.ticket(RETRY_FAILED, key.as_ref(), &caller, &(id, on_invalid)).await?;
    if let Some(taken) = desk.taken_before(ticket).await? {
        return Ok(accepted(taken));
    }
    let (spooled, skipped) = on_invalid.accepted(desk.collect(&caller, &original).await?)?;
    let traceparent = Some(context.traceparent.to_string());
    let submission = Submission { caller, spooled, skipped, retry_of: Some(id), traceparent };
    desk.submit(submission, ticket).await.map(accepted)
}

fn accepted(Taken { batch, is_replay }: Taken) -> Response {
    let headers = [(LOCATION, batch_url(batch.id))];
    let answer = (StatusCode::ACCEPTED, headers, Json(BatchObject::from(&batch))).into_response();
    respond::replay(is_replay, Ok(answer))
}

/// Read a batch.
///
/// With `wait`, the answer comes once the batch has ended, or as it stands after so many seconds.
#[utoipa::path(
    get,
    path = "/api/v1/batches/{batch_id}",
    operation_id = "read_batch",
    tag = "batches",
    params(
        ("batch_id" = String, Path, format = "uuid", description = "The batch."),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 300, description = "For how many seconds to wait for its end."),
    ),
    responses((status = 200, description = "The batch.", body = BatchObject)),
)]
async fn read(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<BatchArchive>>,
    InPath(id): InPath<BatchId>,
    mut query: Parameters,
) -> Result<Json<BatchObject>, ApiError> {
    let wait = Duration::from_secs(query.within("wait", 0, 0..=WAIT_LIMIT_S)?);
    let batch = archive.wait(&admitted.caller, id, wait).await?;
    Ok(Json(BatchObject::from(&batch)))
}

#[derive(Serialize, ToSchema)]
struct BatchList {
    /// Newest first.
    batches: Vec<BatchObject>,
    /// For the next page; `null` on the last one.
    next_cursor: Option<String>,
}

/// List batches, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/batches",
    operation_id = "list_batches",
    tag = "batches",
    params(
        ("status" = inline(Option<BatchStatus>), Query, description = "Those that stand there."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, description = "How many at most; 20 if absent."),
    ),
    responses((status = 200, description = "A page of batches.", body = BatchList)),
)]
async fn list(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<BatchArchive>>,
    mut query: Parameters,
) -> Result<Json<BatchList>, ApiError> {
    let limit = query.within("limit", PAGE, 1..=PAGE_LIMIT)?;
    let cursor: Option<PageCursor> = query.parsed("cursor", "the `next_cursor` of a page")?;
    let status = query.parsed("status", "enqueuing, in_progress, completed, cancelling or cancelled")?;
    let before = cursor.map(|PageCursor(id)| BatchId(id));
    let page = archive.list(&admitted.caller, BatchFilter { status, before, key: None }, limit).await?;
    let batches = page.batches.iter().map(BatchObject::from).collect();
    Ok(Json(BatchList { batches, next_cursor: page.next.map(|next| next.to_string()) }))
}

/// Cancel a batch.
///
/// What is queued is not run any more, and what runs is stopped. When the answer comes, all that had not ended is
/// cancelled.
#[utoipa::path(
    post,
    path = "/api/v1/batches/{batch_id}/cancel",
    operation_id = "cancel_batch",
    tag = "batches",
    params(("batch_id" = String, Path, format = "uuid", description = "The batch.")),
    responses((
        status = 200,
        description = "The batch: `cancelled`, or `cancelling` as long as its requests are being put on the queue.",
        body = BatchObject,
    )),
)]
async fn cancel(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<BatchArchive>>,
    InPath(id): InPath<BatchId>,
) -> Result<Json<BatchObject>, ApiError> {
    let batch = archive.cancel(&admitted.caller, id).await?;
    Ok(Json(BatchObject::from(&batch)))
}

/// The routes of batches.
pub fn routes() -> OpenApiRouter<AppState> {
    const READING: Step = Step::Gate(Reading::NEEDS);
    const REST: Step = Step::Gate(Rest::NEEDS);
    let submit_steps = [REST, Step::Query, Step::Lines, Step::BatchRepeat, Step::BatchQueue];
    let retry_steps = [REST, Step::Query, Step::Batch, Step::BatchRepeat, Step::UnansweredLines, Step::BatchQueue];
    OpenApiRouter::new()
        .routes(passing(&submit_steps, routes!(submit)))
        .routes(passing(&[READING, Step::Query], routes!(list)))
        .routes(passing(&[READING, Step::Query, Step::Batch], routes!(read)))
        .routes(passing(&[READING, Step::Batch, Step::UnendedBatch], routes!(cancel)))
        .routes(passing(&retry_steps, routes!(retry_failed)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_lines_of_json_are_taken() {
        for (media_type, is_taken) in [
            ("application/x-ndjson", true),
            ("Application/NDJSON; charset=utf-8", true),
            ("application/jsonl", true),
            ("application/json", false),
            ("text/plain", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
            assert_eq!(require_lines(&headers).is_ok(), is_taken, "{media_type}");
        }
        assert!(require_lines(&HeaderMap::new()).is_err());
    }
}
