//! Rows that torment nats-server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::{Met, fault, late};
use crate::{
    calls::Call,
    checks::{Check, Fault},
    site::Site,
    traffic::Traffic,
};

/// Between two deaths.
const PAUSE: Duration = Duration::from_millis(2500);
/// How long it stands still.
const STILL: Duration = Duration::from_secs(6);
/// How long the disk is full.
const FULL: Duration = Duration::from_secs(4);
/// How long there is no worker.
const UNSERVED: Duration = Duration::from_secs(5);
/// So many refusals show that the queue was full.
const REFUSALS: usize = 10;
/// A refusal takes this long at most, at the 99th percentile.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);
/// The gateway knows within this time.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// It dies, and is started again at once.
pub(super) async fn killed(site: &mut Site, times: usize) -> Result<Met> {
    for _ in 0..times {
        sleep(PAUSE).await;
        site.stack.nats.restart().await?;
    }
    Ok(Met::times("deaths of nats-server", times))
}

/// It stands still: connections look open, and nothing comes.
pub(super) async fn frozen(site: &mut Site) -> Result<Met> {
    sleep(PAUSE).await;
    site.stack.nats.process().signal("STOP");
    let began = Instant::now();
    let known = site.stack.until_status("/readyz", 503, STILL).await;
    let took = began.elapsed();
    sleep(STILL.saturating_sub(took)).await;
    site.stack.nats.process().signal("CONT");
    let mut met = Met::times("stand-stills of nats-server", 1);
    match known {
        Err(error) => met.faults.push(fault(Check::Back, error.to_string())),
        Ok(_) if took > KNOWN_WITHIN => {
            let found = format!("/readyz said so after {took:.1?}");
            met.faults.push(late(Check::Back, found));
        }
        Ok(_) => {}
    }
    Ok(met)
}

/// Jobs that come are put on the queue once more, under other message ids, until `times` of them were.
pub(super) async fn published_again(site: &Site, traffic: &Traffic, times: usize) -> Result<Met> {
    let client = tests::queue::admin(&site.stack.nats).await?;
    let mut jobs = client.subscribe("jobs.>").await?;
    client.flush().await?;
    let mut again = 0;
    while again < times && !traffic.is_over() {
        let Ok(job) = timeout(Duration::from_millis(200), jobs.next()).await else { continue };
        let job = job.context("the subscription ended")?;
        let mut headers = job.headers.unwrap_or_default();
        let id = headers.get("Nats-Msg-Id").map(|id| id.as_str().to_owned()).unwrap_or_default();
        // Its own copies come here, too.
        if !id.starts_with("again-") {
            headers.insert("Nats-Msg-Id", format!("again-{id}"));
            client.publish_with_headers(job.subject, headers, job.payload).await?;
            again += 1;
        }
    }
    client.flush().await?;
    Ok(Met::at_least("jobs published again", again as u64, times as u64))
}

/// Nobody takes jobs off the queue for a while.
pub(super) async fn full(site: &mut Site) -> Result<Met> {
    let workers = site.stack.workers.len();
    site.stack.kill_workers();
    sleep(UNSERVED).await;
    for _ in 0..workers {
        site.stack.add_worker().await;
    }
    Ok(Met::times("workers gone", workers))
}

/// Its disk is full. What the server needs is written where it is started again: the operator frees the disk first.
pub(super) async fn disk_full(site: &mut Site) -> Result<Met> {
    sleep(PAUSE).await;
    let disk = site.disk.as_ref().context("there is no small disk")?;
    let taken = disk.fill()?;
    sleep(FULL).await;
    disk.free()?;
    site.stack.nats.restart().await?;
    Ok(Met { notes: vec![format!("{taken} bytes taken away")], ..Met::times("disks full", 1) })
}

/// The fault was met when requests were not taken.
pub(super) fn nothing_was_taken(calls: &[Call]) -> Vec<Fault> {
    let asks = calls.iter().flat_map(|call| &call.asks);
    match asks.filter(|ask| matches!(ask.status, Some(502 | 503))).count() {
        0 => vec![fault(Check::Valid, "every request was taken, on a full disk".to_owned())],
        _ => Vec::new(),
    }
}

/// The fault was met when callers were told that the queue is full; they were told at once.
pub(super) fn some_were_refused(calls: &[Call]) -> Vec<Fault> {
    let asks = calls.iter().flat_map(|call| &call.asks);
    let refused = asks.filter(|ask| ask.status == Some(503) && ask.code.as_deref() == Some("queue_full"));
    let mut times: Vec<_> = refused.map(|ask| ask.took).collect();
    times.sort_unstable();
    if times.len() < REFUSALS {
        return vec![fault(Check::Valid, format!("{} requests were refused", times.len()))];
    }
    let p99 = times[times.len() * 99 / 100];
    if p99 <= REFUSED_WITHIN {
        return Vec::new();
    }
    vec![late(Check::Wait, format!("refusals took {p99:.1?} at the 99th percentile"))]
}
