//! The rows: each sets the product up, torments it under traffic, and judges what is left.

mod callers;
mod gateways;
mod links;
mod queue;
mod workers;

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use common::lifecycle::Lifecycle;
use tests::database::Database;
use tokio::time::{Instant, sleep};

use crate::{
    calls::{Call, MANNERS, Manner},
    checks::{Check, Evidence, Fault, faults, leaks},
    desk::Desk,
    ledger::Entry,
    site::{CALLBACK, Footprint, Site},
    store::Store,
    traffic::{Plan, Traffic},
};

/// How long the receiver of webhooks may have to wait after all else has come to rest: a delivery that a dead worker had
/// begun is tried again when its lease is over.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Until what was opened in the row is closed again.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);

/// A row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// One worker dies after the other.
    WorkerKilled,
    /// All workers die at once.
    AllWorkersKilled,
    /// A worker stands still for longer than the queue waits for it.
    WorkerFrozen,
    /// Jobs take four times as long as the queue waits for a sign of life.
    LongJobs,
    /// A worker is told to stop.
    WorkerStopped,
    /// A gateway dies while many wait at it.
    GatewayKilled,
    /// A gateway is told to stop while many wait at it.
    GatewayStopped,
    /// The queue dies again and again.
    NatsKilled,
    /// The queue stands still.
    NatsFrozen,
    /// Every connection between any two parts is cut, again and again.
    LinksReset,
    /// Routes to the queue are gone, on connections that look open.
    LinksHalfOpen,
    /// Bytes come late, slowly, and in small pieces.
    LinksSlow,
    /// A gateway dies again and again while batches come in.
    BatchGatewayKilled,
    /// All gateways and workers are started anew, one after the other.
    RollingRestart,
    /// Every caller hangs up at some moment, and comes again.
    CallersGone,
    /// Jobs are put on the queue twice.
    EnvelopesAgain,
    /// There are no workers for a while, and little room on the queue.
    QueueFull,
    /// Receivers of webhooks refuse, redirect and hang up.
    ReceiversFail,
    /// The database cannot be reached.
    DatabaseGone,
    /// The model refuses, lies, hangs and hangs up.
    ModelMisbehaves,
}

/// What a row's fault left to look at, beside what all rows leave.
#[derive(Default)]
pub struct Met {
    /// What happened, how often, and how often it had to.
    pub counts: Vec<(String, u64, u64)>,
    /// What is wrong already.
    pub faults: Vec<Fault>,
}

impl Met {
    fn times(what: &str, met: usize) -> Self {
        Self { counts: vec![(what.to_owned(), met as u64, met as u64)], faults: Vec::new() }
    }
}

impl Row {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 20] = [
        Self::WorkerKilled,
        Self::AllWorkersKilled,
        Self::WorkerFrozen,
        Self::LongJobs,
        Self::WorkerStopped,
        Self::GatewayKilled,
        Self::GatewayStopped,
        Self::NatsKilled,
        Self::NatsFrozen,
        Self::LinksReset,
        Self::LinksHalfOpen,
        Self::LinksSlow,
        Self::BatchGatewayKilled,
        Self::RollingRestart,
        Self::CallersGone,
        Self::EnvelopesAgain,
        Self::QueueFull,
        Self::ReceiversFail,
        Self::DatabaseGone,
        Self::ModelMisbehaves,
    ];

    /// What it is called on the command line and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker-killed",
            Self::AllWorkersKilled => "all-workers-killed",
            Self::WorkerFrozen => "worker-frozen",
            Self::LongJobs => "long-jobs",
            Self::WorkerStopped => "worker-stopped",
            Self::GatewayKilled => "gateway-killed",
            Self::GatewayStopped => "gateway-stopped",
            Self::NatsKilled => "nats-killed",
            Self::NatsFrozen => "nats-frozen",
            Self::LinksReset => "links-reset",
            Self::LinksHalfOpen => "links-half-open",
            Self::LinksSlow => "links-slow",
            Self::BatchGatewayKilled => "batch-gateway-killed",
            Self::RollingRestart => "rolling-restart",
            Self::CallersGone => "callers-gone",
            Self::EnvelopesAgain => "envelopes-again",
            Self::QueueFull => "queue-full",
            Self::ReceiversFail => "receivers-fail",
            Self::DatabaseGone => "database-gone",
            Self::ModelMisbehaves => "model-misbehaves",
        }
    }

    /// What happens in it.
    pub fn what(self) -> &'static str {
        match self {
            Self::WorkerKilled => "kill -9 of one worker after the other",
            Self::AllWorkersKilled => "kill -9 of all workers at once",
            Self::WorkerFrozen => "SIGSTOP of a worker for longer than ack_wait",
            Self::LongJobs => "jobs of 4 × ack_wait, and no fault at all",
            Self::WorkerStopped => "SIGTERM of one worker after the other",
            Self::GatewayKilled => "kill -9 of a gateway with callers waiting, who retry at the other one",
            Self::GatewayStopped => "SIGTERM of a gateway with callers waiting",
            Self::NatsKilled => "kill -9 of nats-server, again and again",
            Self::NatsFrozen => "SIGSTOP of nats-server for 6 s",
            Self::LinksReset => "RST of every connection between any two parts",
            Self::BatchGatewayKilled => "kill -9 of a gateway in the middle of batches",
            Self::RollingRestart => "SIGTERM and a new start of every gateway and worker, one after the other",
            Self::CallersGone => "callers hang up at random moments, and come again with their keys",
            Self::EnvelopesAgain => "jobs published again under other message ids",
            Self::QueueFull => "a queue of 40 jobs at most, and no worker for 5 s",
            Self::ReceiversFail => "receivers of webhooks that answer 500, 301 and 503, and close early",
            Self::ModelMisbehaves => "a model that refuses, answers nonsense, hangs and hangs up, every third time",
            Self::DatabaseGone => "routes to PostgreSQL gone for some seconds, then cut",
            Self::LinksSlow => "bytes in small pieces, then late, then a few a second",
            Self::LinksHalfOpen => "routes to nats-server gone for 10 s, both ways, on connections that look open",
        }
    }

    /// Who calls, how often, and how long the model takes for each piece of an answer.
    fn traffic(self, is_full: bool) -> (Plan, Duration) {
        let size = |small, full| if is_full { full } else { small };
        let mixed = Plan {
            calls: size(150, 1_500),
            at_once: 64,
            manners: MANNERS.to_vec(),
            lines: 5,
            pause: Duration::from_millis(if is_full { 25 } else { 60 }),
        };
        let waiting =
            |calls| Plan { calls, at_once: calls, manners: vec![Manner::Sync], lines: 0, pause: Duration::ZERO };
        match self {
            // An answer of one word has three pieces.
            Self::LongJobs => (waiting(size(30, 150)), Duration::from_millis(4_500)),
            Self::GatewayKilled => (waiting(size(100, 500)), Duration::from_secs(1)),
            Self::GatewayStopped => (waiting(size(100, 200)), Duration::from_secs(1)),
            Self::RollingRestart => (Plan { calls: size(300, 3_000), ..mixed }, Duration::from_millis(50)),
            Self::BatchGatewayKilled => {
                let (calls, lines) = (size(4, 10), size(1_500, 5_000));
                (Plan { lines, manners: vec![Manner::Batch], ..waiting(calls) }, Duration::ZERO)
            }
            Self::QueueFull => {
                let plan = Plan { manners: vec![Manner::Submit], pause: Duration::from_millis(10), ..waiting(150) };
                (plan, Duration::from_millis(5))
            }
            Self::ModelMisbehaves => {
                let manners = vec![Manner::Sync, Manner::Submit];
                (Plan { manners, calls: size(150, 3_500), ..mixed }, Duration::from_millis(5))
            }
            Self::ReceiversFail => (Plan { manners: vec![Manner::Webhook], ..mixed }, Duration::from_millis(5)),
            _ => (mixed, Duration::from_millis(50)),
        }
    }

    /// What is set otherwise.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::QueueFull => &[("FRONTDESK_JOBS_MAX_MESSAGES", "40")],
            Self::ModelMisbehaves => {
                &[("FRONTDESK_MODEL_FIRST_BYTE_TIMEOUT", "1s"), ("FRONTDESK_MODEL_IDLE_TIMEOUT", "1s")]
            }
            _ => &[],
        }
    }

    /// Whether it makes sense there.
    pub fn runs_on(self, database: Database) -> bool {
        self != Self::DatabaseGone || database == Database::Postgres
    }

    /// Whether there are proxies between the parts.
    fn has_links(self) -> bool {
        matches!(self, Self::LinksReset | Self::LinksHalfOpen | Self::LinksSlow | Self::DatabaseGone)
    }

    /// How long after the fault the first call has to succeed.
    fn back_within(self) -> Duration {
        Duration::from_secs(match self {
            Self::NatsKilled => 3,
            Self::BatchGatewayKilled => 40,
            _ => 5,
        })
    }

    /// When its callers hang up at the latest, to come again.
    fn hangs_up_within(self) -> Option<Duration> {
        // No answer that is waited for is there sooner: so much does the model take for it.
        (self == Self::CallersGone).then_some(Duration::from_millis(150))
    }

    async fn torment(self, site: &mut Site, traffic: &Traffic, is_full: bool) -> Result<Met> {
        let times = |small, full| if is_full { full } else { small };
        match self {
            Self::WorkerKilled => workers::killed(site, times(5, 20)).await,
            Self::AllWorkersKilled => workers::all_killed(site, times(2, 10)).await,
            Self::WorkerFrozen => workers::frozen(site, times(2, 20)).await,
            // Here callers, or time, do it all.
            Self::LongJobs | Self::CallersGone => {
                traffic.ended().await;
                Ok(Met::default())
            }
            Self::WorkerStopped => workers::stopped(site, times(3, 20)).await,
            Self::GatewayKilled => gateways::killed(site).await,
            Self::GatewayStopped => gateways::stopped(site).await,
            Self::NatsKilled => queue::killed(site, times(4, 20)).await,
            Self::NatsFrozen => queue::frozen(site).await,
            Self::LinksReset => links::reset(site, times(5, 50)).await,
            Self::LinksHalfOpen => links::half_open(site).await,
            Self::LinksSlow => links::slow(site).await,
            Self::BatchGatewayKilled => gateways::killed_in_batches(site, times(3, 6)).await,
            Self::RollingRestart => gateways::all_restarted(site).await,
            Self::EnvelopesAgain => queue::published_again(site, traffic, times(20, 200)).await,
            Self::QueueFull => queue::full(site).await,
            Self::ReceiversFail => callers::receivers_fail(site, traffic).await,
            Self::DatabaseGone => links::database_gone(site, times(5, 20)).await,
            Self::ModelMisbehaves => callers::model_misbehaves(site, traffic, times(4, 100)).await,
        }
    }

    /// What has to hold in this row alone.
    fn own_faults(self, site: &Site, calls: &[Call], store: &Store) -> Vec<Fault> {
        match self {
            Self::WorkerKilled | Self::AllWorkersKilled | Self::WorkerFrozen => workers::some_ran_again(store),
            Self::LongJobs => {
                workers::none_ran_again(store).into_iter().chain(workers::told_at_the_deadline(calls)).collect()
            }
            Self::GatewayKilled => gateways::each_ran_once(site, calls),
            Self::BatchGatewayKilled => gateways::some_were_cut_off(calls),
            Self::RollingRestart => gateways::one_retry_was_enough(calls),
            Self::CallersGone => callers::some_hung_up(calls),
            Self::QueueFull => queue::some_were_refused(calls),
            Self::ReceiversFail => callers::told_again(site),
            _ => Vec::new(),
        }
    }
}

/// Runs one row.
///
/// # Errors
/// When the product cannot be set up, or does not come to rest.
pub async fn run(row: Row, database: Database, seed: u64, is_full: bool) -> Result<Entry> {
    let (plan, pace) = row.traffic(is_full);
    let at_once = plan.at_once;
    let mut site = match row.has_links() {
        true => Site::with_links(database, pace).await?,
        false => Site::start(database, pace, row.settings()).await?,
    };
    let tasks = Lifecycle::new();
    // Whatever is opened once and kept is open by now.
    let first = Plan { calls: 20, at_once: 20, pause: Duration::ZERO, manners: MANNERS.to_vec(), lines: 1 };
    Traffic::start(site.desk("first"), first, seed, &tasks).over().await;
    site.settle().await?;
    let before = site.footprint().await?;
    let desk = Desk { hangs_up_within: row.hangs_up_within(), ..site.desk("call") };
    let traffic = Traffic::start(desk, plan, seed, &tasks);
    let met = row.torment(&mut site, &traffic, is_full).await?;
    let healed = site.calls.elapsed();
    traffic.over().await;
    site.settle().await?;
    judge(row, database, &site, met, (before, at_once), healed).await
}

async fn judge(
    row: Row,
    database: Database,
    site: &Site,
    met: Met,
    (before, at_once): (Footprint, usize),
    healed: Duration,
) -> Result<Entry> {
    until_told(site).await;
    let after = until_closed(site, &before, at_once).await?;
    let (calls, store) = (site.calls.all(), site.store()?);
    let back = first_success(&calls, healed);
    let mut all = faults(&Evidence {
        calls: &calls,
        store: &store,
        received: &site.sink.received(CALLBACK),
        met: &met.counts,
        footprints: [&before, &after],
        at_once,
        waiters: site.waiters().await,
        back: (back, row.back_within()),
    });
    all.extend(met.faults);
    all.extend(Store::broken(&site.stack.database_url)?.map(|said| fault(Check::Truth, said)));
    all.extend(row.own_faults(site, &calls, &store));
    all.sort_by_key(|fault| fault.check);
    Ok(Entry {
        row,
        database,
        calls: (calls.len(), calls.iter().map(|call| call.answers.len()).sum()),
        requests: calls.iter().map(|call| call.asks.len()).sum(),
        met: met.counts,
        back,
        faults: all,
    })
}

/// How long after `healed` the first request that began then was answered well: nothing when none began, without end when
/// none was.
fn first_success(calls: &[Call], healed: Duration) -> Duration {
    let asks: Vec<_> = calls.iter().flat_map(|call| &call.asks).filter(|ask| ask.began >= healed).collect();
    if asks.is_empty() {
        return Duration::ZERO;
    }
    let good = asks.iter().filter(|ask| matches!(ask.status, Some(200 | 202)));
    good.map(|ask| ask.began + ask.took - healed).min().unwrap_or(Duration::MAX)
}

/// Waits until the receiver has heard of every end that it was to be told of.
async fn until_told(site: &Site) {
    let until = Instant::now() + TOLD_WITHIN;
    let calls = site.calls.all();
    let wanted = calls.iter().filter(|call| call.manner == Manner::Webhook && call.done).count();
    while Instant::now() < until {
        let received = site.sink.received(CALLBACK);
        let told: BTreeSet<_> = received.iter().filter_map(|request| request.header("webhook-id")).collect();
        if told.len() >= wanted {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What is held once no more of it than before, or it has had the time.
async fn until_closed(site: &Site, before: &Footprint, at_once: usize) -> Result<Footprint> {
    let until = Instant::now() + CLOSED_WITHIN;
    loop {
        let after = site.footprint().await?;
        if leaks([before, &after], at_once).is_empty() || Instant::now() > until {
            return Ok(after);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

fn fault(check: Check, found: String) -> Fault {
    Fault { check, found, is_time: false }
}
