//! All kinds of callers at once: calls, streams, submissions and a batch, each told for itself.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use crate::{
    batches,
    http::Connection,
    load::{self, Lengths, on_one_thread},
    request,
    rounds::Kind,
    sample::{Sample, Times},
    sites::Site,
    window::Errors,
};

/// Who calls and waits.
pub const CALLERS: u32 = 16;
/// Who reads an answer as it is made.
const STREAMS: u32 = 16;
/// Who submits through the Webhooks channel without waiting.
const SUBMITTING: u32 = 16;
/// A batch that is there all the time.
const LINES: u32 = 20_000;

/// Has all kinds of callers call for the given time, beside a batch of 20,000 lines.
///
/// # Errors
/// When the gateway is gone, or refuses the batch.
pub async fn run(site: &Site, lengths: Lengths) -> Result<Vec<(Kind, Sample)>> {
    let batch = request::batch(site.address, &site.key, &batches::body(&site.agent, LINES));
    let mut connection = Connection::open(site.address).await?;
    let accepted = connection.ask(&batch).await?;
    ensure!(accepted.status == 202, "{}: {}", accepted.status, String::from_utf8_lossy(connection.body()));
    let (chat, webhook) = (site.chat(), site.webhook());
    // What the processes use is for all of them together.
    let calls = load::run(site.address, &chat, CALLERS, lengths, [None; 3]);
    let submissions = load::run(site.address, &webhook, SUBMITTING, lengths, [None; 3]);
    let streams = streams(site, lengths.warm_up + lengths.measure);
    let (calls, submissions, streams) = tokio::try_join!(calls, submissions, streams)?;
    Ok(vec![(Kind::Call, calls), (Kind::Submission, submissions), (Kind::Stream, streams)])
}

/// What readers of streams found.
#[derive(Default)]
struct Found {
    times: Times,
    errors: Errors,
}

/// Streams one after the other on each of a few connections.
async fn streams(site: &Site, length: Duration) -> Result<Sample> {
    let request = request::stream(site.address, &site.key, &site.agent, "/pace 5ms\\n/tokens 40");
    let (address, until) = (site.address, Instant::now() + length);
    let found = spawn_blocking(move || on_one_thread(all(address, request, until))).await??;
    let rate = found.times.count() as f64 / length.as_secs_f64();
    let percentiles = found.times.p50_and_p99();
    Ok(Sample {
        rate,
        p50: percentiles.map(|(p50, _)| p50),
        p99: percentiles.map(|(_, p99)| p99),
        errors: found.errors.told(),
        ..Sample::default()
    })
}

async fn all(address: SocketAddr, request: Vec<u8>, until: Instant) -> Result<Found> {
    let mut readers = JoinSet::new();
    for _ in 0..STREAMS {
        readers.spawn(reader(address, request.clone(), until));
    }
    let mut all = Found::default();
    while let Some(found) = readers.join_next().await {
        let found = found?;
        all.times.extend(found.times);
        all.errors.extend(found.errors);
    }
    Ok(all)
}

async fn reader(address: SocketAddr, request: Vec<u8>, until: Instant) -> Found {
    let mut found = Found::default();
    while Instant::now() < until {
        let asked = Instant::now();
        match one(address, &request).await {
            Ok(()) => found.times.add(asked.elapsed()),
            Err(error) => found.errors.add(&error),
        }
    }
    found
}

async fn one(address: SocketAddr, request: &[u8]) -> Result<()> {
    let answer = Connection::open(address).await?.ask(request).await?;
    ensure!(answer.status == 200, "{}", answer.status);
    Ok(())
}
