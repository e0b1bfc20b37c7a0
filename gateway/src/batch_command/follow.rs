//! From an accepted batch to its end: results are written as they come.

use std::time::Duration;

use common::domain::{batch::BatchStatus, ids::BatchId};
use tokio::time::{Instant, sleep_until};

use super::{
    client::Client, error::BatchError, patience::Patience, progress::Progress, results::ResultFiles, wire::Batch,
};

/// How long the server is asked to wait for the batch's end before results are read again.
const POLL: Duration = Duration::from_secs(2);
/// Not even a server that does not wait is asked more often.
const PACE: Duration = Duration::from_millis(500);
/// Lines of a cancelled batch end one by one after it. Once none has for so long, the others are not waited for; nor are
/// they for longer than the user has patience.
const CANCELLED_QUIET: Duration = Duration::from_secs(15);

/// Writes the results of the batch `id` to `files` until it has ended and all that there are have been written. Returns
/// the batch as it ended.
pub async fn follow(
    client: &Client,
    id: BatchId,
    files: &mut ResultFiles,
    patience: &mut Patience<'_>,
    progress: &Progress,
) -> Result<Batch, BatchError> {
    let mut reading = Reading { client, id, after: files.whole_up_to(), files, progress };
    let (mut wait, mut last_came) = (Duration::ZERO, Instant::now());
    loop {
        let begun = Instant::now();
        let batch = patience.through(async || client.batch(id, wait).await).await?;
        if wait.is_zero() {
            progress.running(batch.request_counts.total, reading.files.tally().all());
        }
        if reading.read_on(patience).await? {
            last_came = Instant::now();
        }
        let is_quiet = last_came.elapsed() > CANCELLED_QUIET.min(patience.limit());
        if reading.is_over(&batch, last_came < begun, is_quiet) {
            reading.files.sync()?;
            return Ok(batch);
        }
        wait = POLL;
        sleep_until(begun + PACE).await;
    }
}

/// How far the results have been read.
struct Reading<'a> {
    client: &'a Client,
    id: BatchId,
    after: u64,
    files: &'a mut ResultFiles,
    progress: &'a Progress,
}

impl Reading<'_> {
    /// Writes the results that there are now. Whether there were any.
    async fn read_on(&mut self, patience: &mut Patience<'_>) -> Result<bool, BatchError> {
        let before = self.after;
        loop {
            match self.read_once(patience).await {
                Err(BatchError::Server(error)) => patience.bear(error).await?,
                read => return read.map(|()| self.after > before),
            }
        }
    }

    async fn read_once(&mut self, patience: &mut Patience<'_>) -> Result<(), BatchError> {
        let mut results = self.client.results(self.id, self.after).await?;
        while let Some(lines) = results.next().await? {
            patience.went_well();
            self.files.append(&lines)?;
            self.after = lines.iter().map(|line| line.head.seq).fold(self.after, u64::max);
            let tally = self.files.tally();
            self.progress.moved(tally.all(), tally.not_answered());
        }
        patience.went_well();
        Ok(())
    }

    /// Whether nothing more is to come, once the batch, as it was before the results were read, has ended.
    fn is_over(&self, batch: &Batch, nothing_came: bool, is_quiet: bool) -> bool {
        let all_here = self.files.tally().all() >= batch.request_counts.total;
        match batch.status {
            BatchStatus::Completed => all_here || nothing_came,
            BatchStatus::Cancelled => all_here || is_quiet,
            BatchStatus::Enqueuing | BatchStatus::InProgress | BatchStatus::Cancelling => false,
        }
    }
}
