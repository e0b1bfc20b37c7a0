//! The cost of one more: the same calls beside a deep queue, many finished messages and many waiting callers; and what
//! is done with a deep queue itself.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use common::{
    domain::{ids::AgentId, job::Lane},
    queue::{config::QueueRole, connection::Connection as Queue, jobs, place::Place, subjects},
};
use tokio::time::{Instant, sleep};

use crate::{
    bare,
    load::{self, Lengths},
    nats::{Durability, Nats},
    payload::{self, Asker},
    request::Request,
    sample::{Sample, Times},
    sites::Site,
    stock,
};

/// Callers at a time.
pub const CALLERS: u32 = 16;
/// Jobs that wait on the queue.
const PENDING: [u32; 4] = [0, 1_000, 100_000, 1_000_000];
/// Jobs that wait on a queue that is drained: the first ones warm up, and then so many count.
const DRAINED: [u32; 3] = [25_000, 100_000, 1_000_000];
const WARM_UP: u64 = 4_000;
const COUNTED: u64 = 20_000;
const FINISHED: u32 = 1_000_000;
const WAITERS: [u32; 3] = [0, 1_000, 10_000];
/// Jobs that are found and taken back, one after the other.
const FOUND: u32 = 500;
/// Slots of a worker, and how many of them the jobs of one slot queue can have while no other has any: the other lanes
/// own an eighth, and some are kept for newcomers.
const SLOTS: &str = "256";
const SLOTS_OF_A_QUEUE: u64 = 216;
/// Longer than anything is measured.
const SLEEP: &str = "/sleep 1h";
/// Whatever takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(5);

/// What there is much of, and what is done meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beside {
    /// Calls beside so many pending jobs of another lane.
    Pending(u32),
    /// Finding and taking back one of so many pending jobs.
    Found(u32),
    /// Running the first of so many pending jobs.
    Drained(u32),
    /// Calls beside so many finished messages.
    Finished(u32),
    /// Calls while so many finished messages are being forgotten.
    Forgotten(u32),
    /// Calls beside so many callers that wait for something else.
    Waiters(u32),
}

/// All of it once, each on servers of its own; `note` is told what was found. NATS syncs by its own default: a queue
/// of a million is sooner there, and what is compared does not hang on the disk.
///
/// # Errors
/// When a process does not come up or goes away.
pub async fn run(root: &Path, lengths: Lengths, mut note: impl FnMut(Beside, Sample)) -> Result<()> {
    for count in PENDING {
        let (calling, finding) = pending(root, count, lengths).await?;
        note(Beside::Pending(count), calling);
        note(Beside::Found(count), finding);
    }
    for count in DRAINED {
        note(Beside::Drained(count), drained(root, count).await?);
    }
    let (none, many, fewer) = finished(root, lengths).await?;
    note(Beside::Finished(0), none);
    note(Beside::Finished(FINISHED), many);
    note(Beside::Forgotten(FINISHED), fewer);
    for count in WAITERS {
        note(Beside::Waiters(count), waiters(root, count, lengths).await?);
    }
    Ok(())
}

async fn calls(site: &Site, lengths: Lengths) -> Result<Sample> {
    load::run(site.address, &site.chat(), CALLERS, lengths, site.processes()).await
}

/// Calls beside `count` jobs that wait, and finding and taking back more of these.
async fn pending(root: &Path, count: u32, lengths: Lengths) -> Result<(Sample, Sample)> {
    let site = Site::product(root, Durability::Default, &[("FRONTDESK_CONCURRENCY", SLOTS)]).await?;
    let queue = stock::queue(nats(&site)?).await?;
    // All slots that the queue can have are busy: what comes then stays.
    stock::jobs(&queue, &site, SLOTS.parse()?, SLEEP).await?;
    stock::until_running(&queue, Lane::Batch, SLOTS_OF_A_QUEUE).await?;
    stock::jobs(&queue, &site, count, payload::PROMPT).await?;
    Ok((calls(&site, lengths).await?, found(&queue).await?))
}

/// Finds jobs on the queue and takes them back, as a gateway does whose caller cancels what has not begun.
async fn found(queue: &Queue) -> Result<Sample> {
    let publisher = stock::publisher(queue);
    let (mut times, began) = (Times::default(), Instant::now());
    for _ in 0..FOUND {
        let job = stock::line(&Asker::new(), AgentId::new(), payload::PROMPT);
        let (account, id) = (job.account, job.id);
        publisher.publish(job, Place::Slot(0), None).await?;
        let asked = Instant::now();
        let (_, place) = jobs::find(queue, account, id).await?.context("the job is not there")?;
        ensure!(jobs::delete(queue, place).await?, "the job is gone");
        times.add(asked.elapsed());
    }
    let percentiles = times.p50_and_p99();
    Ok(Sample {
        rate: f64::from(FOUND) / began.elapsed().as_secs_f64(),
        p50: percentiles.map(|(p50, _)| p50),
        p99: percentiles.map(|(_, p99)| p99),
        ..Sample::default()
    })
}

/// How fast a worker runs the first of `count` jobs, and what that costs it and NATS.
async fn drained(root: &Path, count: u32) -> Result<Sample> {
    let mut site = Site::without_worker(root, Durability::Default, None, &[]).await?;
    stock::jobs(&stock::queue(nats(&site)?).await?, &site, count, payload::PROMPT).await?;
    let jetstream = jetstream::new(bare::connect(nats(&site)?.config(QueueRole::Admin)).await?);
    let stream = jetstream.get_stream(subjects::JOBS).await?;
    site.start_worker()?;
    let ended = async || {
        let state = stream.get_info().await?.state;
        anyhow::Ok(state.last_sequence - state.messages)
    };
    let first = until("jobs end", async || Ok(Some(ended().await?).filter(|ended| *ended >= WARM_UP))).await?;
    let (before, began) = (used(&site)?, Instant::now());
    let last = until("all end", async || Ok(Some(ended().await?).filter(|ended| *ended >= first + COUNTED))).await?;
    let (after, took, jobs) = (used(&site)?, began.elapsed(), (last - first) as f64);
    let cpu = |process: usize| Some((after[process] - before[process]).as_secs_f64() * 10_000.0 / jobs);
    Ok(Sample { rate: jobs / took.as_secs_f64(), cpu: [None, cpu(0), cpu(1), None], ..Sample::default() })
}

/// Processor time of the worker and of NATS.
fn used(site: &Site) -> Result<[Duration; 2]> {
    Ok([site.worker.as_ref().context("a worker")?.cpu()?, nats(site)?.process.cpu()?])
}

/// Calls beside no finished message, beside very many, and while these are being forgotten.
async fn finished(root: &Path, lengths: Lengths) -> Result<(Sample, Sample, Sample)> {
    let mut site = Site::product(root, Durability::Default, &[]).await?;
    let none = calls(&site, lengths).await?;
    let database = stock::database(&site).await?;
    stock::finished(&database, FINISHED.into()).await?;
    let many = calls(&site, lengths).await?;
    site.start_worker_with(&[("FRONTDESK_RETENTION", "30d")])?;
    let left = async || stock::count_finished(&database).await;
    until("messages are forgotten", async || Ok((left().await? < FINISHED.into()).then_some(()))).await?;
    let (before, began) = (left().await?, Instant::now());
    let fewer = calls(&site, lengths).await?;
    let forgotten = (before - left().await?) as f64 / began.elapsed().as_secs_f64();
    Ok((none, many, Sample { forgotten: Some(forgotten), ..fewer }))
}

/// Calls beside `count` callers that wait.
async fn waiters(root: &Path, count: u32, lengths: Lengths) -> Result<Sample> {
    let settings = [("FRONTDESK_CONCURRENCY", "12000"), ("FRONTDESK_PUBLISH_BUDGET", "60s")];
    let site = Site::product(root, Durability::Default, &settings).await?;
    let request = Request::sleeping(site.address, &site.key, &site.agent, SLEEP);
    let waiting = stock::callers(site.address, request, count);
    stock::until_running(&stock::queue(nats(&site)?).await?, Lane::Interactive, u64::from(count)).await?;
    let sample = calls(&site, lengths).await?;
    drop(site);
    waiting.await??;
    Ok(sample)
}

fn nats(site: &Site) -> Result<&Nats> {
    site.nats.as_ref().context("a queue")
}

/// Asks again and again until there is something.
async fn until<T>(what: &str, ask: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < until, "in vain waited until {what}");
        sleep(PAUSE).await;
    }
}
