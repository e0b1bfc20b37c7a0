//! Accounts beside each other: a single one beside a backlog, the shares of many, and what it costs to tell them apart.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use common::{
    domain::{ids::AgentId, job::Lane},
    lifecycle::Lifecycle,
    queue::{
        backlog::BacklogGauge, config::QueueRole, connection::Connection as Queue, consumer::Puller, place::Place,
        publisher::Publisher, streams, wakes::Wakes,
    },
};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::{
    load::Lengths,
    nats::{Durability, Nats},
    payload::{self, Asker},
    sample::{Sample, Times},
    sites::Site,
    stock,
    tenants::{self, Tenant, Way},
    window::Errors,
};

/// Another account's jobs in the same lane.
const BACKLOG: u32 = 10_000;
/// What each job does, of all accounts.
const SCRIPT: &str = "/sleep 50ms";
/// Who puts the jobs of a backlog on the queue.
const SUBMITTING: u32 = 64;
/// How many accounts have backlogs at a time.
const ACCOUNTS: [u32; 3] = [1, 10, 1_000];
/// The jobs of all of them.
const SHARED: u32 = 10_000;
/// Jobs that are pulled and acknowledged.
const DRAINED: u32 = 20_000;
/// As many jobs at a time as a worker of the product runs as shipped.
const SLOTS: usize = 64;
/// Whatever takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(300);
/// One key asks all that is asked here.
const SETTINGS: [(&str, &str); 1] = [("FRONTDESK_READ_LIMIT", "1000000")];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fair {
    /// One caller, with nobody else there.
    Alone(Way),
    /// The same beside another account's backlog.
    Beside(Way),
    /// The shares of so many accounts.
    Shares(u32),
    /// Pulled and acknowledged, from so many slot queues; none is the front.
    Drained(u8),
}

/// Measures all of it.
///
/// # Errors
/// When a process does not come up or goes away.
pub async fn run(root: &Path, lengths: Lengths, mut note: impl FnMut(Fair, Sample)) -> Result<()> {
    for way in Way::ALL {
        let (alone, beside) = single(root, way, lengths).await?;
        note(Fair::Alone(way), alone);
        note(Fair::Beside(way), beside);
    }
    for accounts in ACCOUNTS {
        note(Fair::Shares(accounts), shares(root, accounts).await?);
    }
    for queues in [0, 1, 10] {
        note(Fair::Drained(queues), drained(root, queues).await?);
    }
    Ok(())
}

/// A single caller alone, and beside a backlog in the same lane.
async fn single(root: &Path, way: Way, lengths: Lengths) -> Result<(Sample, Sample)> {
    let mut site = Site::product(root, Durability::Shipped, &SETTINGS).await?;
    let mut tenants = tenants::make(&site, 2).await?.into_iter();
    let (many, single) = (Arc::new(tenants.next().context("one")?), tenants.next().context("another")?);
    let alone = one_after_the_other(&single, way, lengths).await?;
    site.worker = None;
    let queue = stock::queue(site.nats.as_ref().context("a queue")?).await?;
    let _waiting = backlog(&site, &queue, many, way).await?;
    site.start_worker()?;
    stock::until_running(&queue, lane(way), 50).await?;
    let beside = one_after_the_other(&single, way, lengths).await?;
    ensure!(unfinished(&queue).await? > 100, "the backlog was gone before the time was over");
    Ok((alone, beside))
}

fn lane(way: Way) -> Lane {
    match way {
        Way::Call => Lane::Interactive,
        Way::Message => Lane::Background,
        Way::Batch => Lane::Batch,
    }
}

/// How long each of one caller's prompts takes until its end is there.
async fn one_after_the_other(tenant: &Tenant, way: Way, lengths: Lengths) -> Result<Sample> {
    let (mut times, mut errors, begin) = (Times::default(), Errors::default(), Instant::now() + lengths.warm_up);
    while Instant::now() < begin + lengths.measure {
        let asked = Instant::now();
        match tenant.ask(way, SCRIPT, 1, true).await {
            Ok(()) if asked >= begin => times.add(asked.elapsed()),
            Ok(()) => {}
            Err(error) => errors.add(&error),
        }
    }
    let rate = times.count() as f64 / lengths.measure.as_secs_f64();
    let [p50, p95, p99] = times.at([50, 95, 99]);
    Ok(Sample { rate, p50, p95, p99, errors: errors.told(), ..Sample::default() })
}

/// Puts `tenant`'s backlog on the queue; its callers wait as long as what is returned is there.
async fn backlog(site: &Site, queue: &Queue, tenant: Arc<Tenant>, way: Way) -> Result<JoinSet<Result<()>>> {
    let mut asking = JoinSet::new();
    match way {
        Way::Call => {
            stock::callers(site.address, tenant.call(SCRIPT), BACKLOG);
        }
        Way::Message => {
            for _ in 0..SUBMITTING {
                let tenant = tenant.clone();
                asking.spawn(async move {
                    for _ in 0..BACKLOG.div_ceil(SUBMITTING) {
                        tenant.ask(way, SCRIPT, 1, false).await?;
                    }
                    Ok(())
                });
            }
        }
        Way::Batch => tenant.ask(way, SCRIPT, BACKLOG, false).await?,
    }
    until_unfinished(queue, |jobs| jobs >= u64::from(BACKLOG)).await?;
    Ok(asking)
}

async fn unfinished(queue: &Queue) -> Result<u64> {
    Ok(BacklogGauge::new(queue.clone()).read().await.context("the queue does not tell")?.unfinished())
}

async fn until_unfinished(queue: &Queue, is_enough: impl Fn(u64) -> bool) -> Result<()> {
    let until = Instant::now() + LIMIT;
    loop {
        let jobs = unfinished(queue).await?;
        if is_enough(jobs) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{jobs} unfinished jobs after {LIMIT:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// How alike the shares of `accounts` with equal backlogs are, that were enqueued one after the other: in the middle half
/// of the work.
async fn shares(root: &Path, accounts: u32) -> Result<Sample> {
    let mut site = Site::without_worker(root, Durability::Shipped, None, &SETTINGS).await?;
    let queue = stock::queue(site.nats.as_ref().context("a queue")?).await?;
    for tenant in tenants::make(&site, accounts).await? {
        tenant.ask(Way::Batch, SCRIPT, SHARED / accounts, false).await?;
    }
    until_unfinished(&queue, |jobs| jobs >= u64::from(SHARED)).await?;
    let began = Instant::now();
    site.start_worker()?;
    until_unfinished(&queue, |jobs| jobs == 0).await?;
    let rate = f64::from(SHARED) / began.elapsed().as_secs_f64();
    let ended = stock::database(&site).await?.query_all_raw(Statement::from_string(DbBackend::Sqlite, ENDED)).await?;
    let middle = ended.len() / 4..ended.len() * 3 / 4;
    let mut shares = HashMap::<Uuid, u32>::new();
    for row in &ended[middle] {
        *shares.entry(row.try_get_by_index(0)?).or_default() += 1;
    }
    let largest = shares.values().max().copied().unwrap_or_default();
    let smallest =
        if shares.len() < accounts as usize { 0 } else { shares.values().min().copied().unwrap_or_default() };
    let share = f64::from(smallest) / f64::from(largest.max(1));
    Ok(Sample { rate, share: Some(share), ..Sample::default() })
}

/// Whose each message was, in the order in which they ended.
const ENDED: &str = "SELECT account_id FROM messages WHERE status = 'completed' ORDER BY completed_at";

/// Pulls jobs with the product's loop and acknowledges them, from the front or from so many slot queues at a time.
async fn drained(root: &Path, queues: u8) -> Result<Sample> {
    let folder = tempfile::TempDir::new_in(root)?;
    let nats = Nats::with_streams(Durability::Shipped, folder.path()).await?;
    fill(&stock::queue(&nats).await?, queues).await?;
    let queue = Queue::open(&nats.config(QueueRole::Worker)).await?;
    ensure!(queue.wait_until_up(LIMIT).await, "no connection to nats-server");
    let ack_wait = streams::wait_until_fit(&queue, 0).await;
    let (lifecycle, began) = (Lifecycle::new(), Instant::now());
    let mut puller = Puller::new(queue.clone(), SLOTS, ack_wait, Wakes::start(queue.clone(), &lifecycle));
    for _ in 0..DRAINED {
        let delivery = timeout(LIMIT, puller.next()).await.context("jobs are missing")?;
        lifecycle.spawn(async move { delivery.ack().await });
    }
    let rate = f64::from(DRAINED) / began.elapsed().as_secs_f64();
    lifecycle.stop();
    lifecycle.wait(LIMIT, LIMIT).await;
    Ok(Sample { rate, ..Sample::default() })
}

/// The jobs of as many accounts as there are queues, one account after the other.
async fn fill(queue: &Queue, queues: u8) -> Result<()> {
    let publisher = Publisher::new(queue.clone(), Wakes::start(queue.clone(), &Lifecycle::new()), LIMIT);
    let mut published = JoinSet::new();
    for slot in 0..queues.max(1) {
        let asker = Asker::new();
        for _ in 0..DRAINED / u32::from(queues.max(1)) {
            let (publisher, job) = (publisher.clone(), stock::line(&asker, AgentId::new(), payload::PROMPT));
            let (job, place) = match queues {
                0 => (common::domain::job::Job { lane: Lane::Interactive, ..job }, Place::Front),
                _ => (job, Place::Slot(slot)),
            };
            published.spawn(async move { publisher.publish(job, place, None).await });
            while published.len() >= 512 {
                published.join_next().await.context("no publish is under way")???;
            }
        }
    }
    while let Some(published) = published.join_next().await {
        published??;
    }
    Ok(())
}
