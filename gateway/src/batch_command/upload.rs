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
/// For how long nothing may move. Once all has been sent, the server puts 50,000 lines on its queue before it answers,
/// or waits until another of its gateways has done so.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(180);

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
                if bar.position() == body.bytes {
                    progress.uploaded();
                }
                progress.line_if_due();
                if bar.position() != last {
                    (last, since) = (bar.position(), now);
                } else if now - since > STANDSTILL_LIMIT {
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
