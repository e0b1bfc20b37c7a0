//! `GET /api/v1/batches/{id}/results`: how the requests of a batch ended, in the order in which they did, also while it
//! runs.

use std::{collections::VecDeque, io, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use common::{
    domain::{
        account::MicroCredits,
        failure::Failure,
        ids::{BatchId, MessageId},
        message::MessageStatus,
        object::{MessageObject, UsageObject},
        time::Moment,
    },
    store::batch_results::BatchResult,
};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::gate::{Admitted, Door, Reading},
    batches::archive::BatchArchive,
    error::ApiError,
    extract::InPath,
    openapi::{answers::passing, samples, step::Step},
    query::Parameters,
    state::AppState,
};

const MEDIA_TYPE: &str = "application/x-ndjson";
/// How many lines are read at once.
const PORTION: usize = 200;
/// They leave in pieces of about so many bytes.
const CHUNK: usize = 64 * 1024;

/// One line: how a request of the batch ended. What is not known is `null`; nothing is ever left out.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult, example = json!({
    "seq": 1, "line": 1, "custom_id": "first", "message_id": samples::MESSAGE, "status": "completed",
    "content": "Hello!", "model": "demo", "usage": { "input_tokens": 1, "output_tokens": 1, "total_tokens": 2 },
    "credits_charged": 0, "attempts": 1, "error": null, "completed_at": "2026-11-23T09:30:00.125Z",
}))]
struct ResultLine {
    /// Its place in the order in which they ended: for `after`.
    seq: u64,
    /// Which line of the body it was, from 1.
    line: u32,
    /// How its caller names it.
    custom_id: String,
    /// Names the message.
    #[schema(value_type = String, format = "uuid")]
    message_id: MessageId,
    /// How it ended.
    status: MessageStatus,
    /// The whole answer; only of a completed one, and gone with a purge.
    #[schema(required)]
    content: Option<String>,
    /// The model that answered, as its provider named it.
    #[schema(required)]
    model: Option<String>,
    /// What it used.
    usage: UsageObject,
    /// What was charged for it.
    #[schema(value_type = i64)]
    credits_charged: MicroCredits,
    /// How often it was begun.
    attempts: u32,
    /// Why there is no answer.
    #[schema(required)]
    error: Option<Failure>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = "date-time", required)]
    completed_at: Option<Moment>,
}

impl From<BatchResult> for ResultLine {
    fn from(result: BatchResult) -> Self {
        let BatchResult { seq, line, custom_id, message } = result;
        let MessageObject {
            message_id,
            status,
            content,
            model,
            usage,
            credits_charged,
            attempts,
            error,
            completed_at,
            ..
        } = message.object();
        Self {
            seq,
            line,
            custom_id,
            message_id,
            status,
            content,
            model,
            usage,
            credits_charged,
            attempts,
            error,
            completed_at,
        }
    }
}

/// Read the results of a batch.
///
/// One JSON object a line, in the order in which the requests ended: what has been read stays as it is, and nothing ever
/// comes before it. Ends when all that is there was sent, also while the batch runs: `after` goes on from there. An
/// answer that cannot be read to its end aborts the connection.
#[utoipa::path(
    get,
    path = "/api/v1/batches/{batch_id}/results",
    operation_id = "read_batch_results",
    tag = "batches",
    params(
        ("batch_id" = String, Path, format = "uuid", description = "The batch."),
        ("after" = Option<u64>, Query, minimum = 0, description = "The `seq` of the last line that was seen."),
        ("status" = inline(Option<MessageStatus>), Query, description = "Those that ended so."),
    ),
    responses((
        status = 200,
        description = "One result a line.",
        content_type = "application/x-ndjson",
        body = ResultLine,
    )),
)]
async fn results(
    admitted: Admitted<Reading>,
    State(archive): State<Arc<BatchArchive>>,
    InPath(id): InPath<BatchId>,
    mut query: Parameters,
) -> Result<Response, ApiError> {
    let after = query.within("after", 0, 0..=u64::MAX)?;
    let status = query.parsed("status", "queued, in_progress, completed, failed, cancelled or expired")?;
    archive.find(&admitted.caller, id).await?;
    let mut results = Results { archive, id, after, status, ready: VecDeque::new() };
    // What fails before the first line is an error, not a broken stream.
    results.read().await?;
    let lines = stream::try_unfold(results, |mut results| async move {
        let portion = results.next().await.map_err(|_| io::Error::other("the results cannot be read any further"))?;
        Ok::<_, io::Error>(portion.map(|portion| (portion, results)))
    });
    Ok(([(CONTENT_TYPE, MEDIA_TYPE), (CACHE_CONTROL, "no-store")], Body::from_stream(lines)).into_response())
}

/// One reader's results on their way out.
struct Results {
    archive: Arc<BatchArchive>,
    id: BatchId,
    after: u64,
    status: Option<MessageStatus>,
    ready: VecDeque<BatchResult>,
}

impl Results {
    async fn read(&mut self) -> Result<(), ApiError> {
        self.ready = self.archive.results(self.id, self.after, self.status, PORTION).await?.into();
        self.after = self.ready.back().map_or(self.after, |last| last.seq);
        Ok(())
    }

    /// The next lines; `None` when all that is there was sent.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        if self.ready.is_empty() {
            self.read().await?;
        }
        let mut out = Vec::new();
        while out.len() < CHUNK
            && let Some(result) = self.ready.pop_front()
        {
            serde_json::to_writer(&mut out, &ResultLine::from(result)).map_err(|error| {
                error!(batch.id = %self.id, %error, "could not write a result");
                ApiError::Internal
            })?;
            out.push(b'\n');
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

/// The route of results.
pub fn routes() -> OpenApiRouter<AppState> {
    const STEPS: [Step; 3] = [Step::Gate(Reading::NEEDS), Step::Batch, Step::Query];
    OpenApiRouter::new().routes(passing(&STEPS, routes!(results)))
}
