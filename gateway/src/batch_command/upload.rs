//! Sending the body: from its file, as a stream, for as long as something moves.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use indicatif::ProgressBar;
use reqwest::Body;
use tokio::{
    fs::File,
    io::AsyncReadExt as _,
    time::{Instant, interval},
};

use super::{
    client::Client, client_error::ClientError, error::BatchError, progress::Progress, spool::Spooled, state::Upload,
    wire::Batch,
};

const PIECE: usize = 1 << 16;
const TICK: Duration = Duration::from_secs(1);
/// For how long the server may take nothing of the body.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(60);
/// For how long it may say nothing after the whole of it: it puts up to 50,000 lines on its queue first, or waits until
/// another gateway has. A host that is gone is noticed before, by the connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);

/// Sends the body at `path` once.
///
/// # Errors
/// `Ok(Err(_))` is the server's failure or refusal.
pub async fn send(
    client: &Client,
    upload: &Upload,
    path: &Path,
    body: &Spooled,
    progress: &Progress,
) -> Result<Result<Batch, ClientError>, BatchError> {
    let file = File::open(path).await.map_err(BatchError::file("could not read", path))?;
    let bar = progress.uploading(body.bytes);
    let stream = Body::wrap_stream(pieces(file, bar.clone()));
    let mut sent = std::pin::pin!(client.submit(&upload.idempotency_key, stream, body.bytes));
    let (mut ticks, mut last, mut since) = (interval(TICK), 0, Instant::now());
    loop {
        tokio::select! {
            answer = &mut sent => return Ok(answer),
            now = ticks.tick() => {
                let mut limit = STANDSTILL_LIMIT;
                if bar.position() == body.bytes {
                    progress.uploaded();
                    limit = ANSWER_LIMIT;
                }
                progress.line_if_due();
                if bar.position() != last {
                    (last, since) = (bar.position(), now);
                } else if now - since > limit {
                    return Ok(Err(ClientError::Silent));
                }
            }
        }
    }
}

fn pieces(file: File, bar: ProgressBar) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, bar), async |(mut file, bar)| {
        let mut piece = Vec::with_capacity(PIECE);
        let count = file.read_buf(&mut piece).await?;
        bar.inc(count as u64);
        io::Result::Ok((count > 0).then(|| (Bytes::from(piece), (file, bar))))
    })
}
