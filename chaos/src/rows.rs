//! The rows: how the product is set up in each, who torments it, and what has to hold in that row alone.

mod callers;
mod crashes;
mod doors;
mod gateways;
mod links;
mod queue;
mod receivers;
mod stores;
mod workers;

use std::time::Duration;

use ::tests::database::Database;
use anyhow::Result;
use common::sabotage;

use crate::{
    calls::{Call, MANNERS, Manner},
    checks::{Check, Fault},
    disk::Disk,
    site::{DEADLINE, Site},
    store::Store,
    traffic::{Plan, Traffic},
};

macro_rules! rows {
    ($($row:ident $name:literal $what:literal,)+) => {
        /// A row of the ledger.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Row {
            $(#[doc = $what] $row,)+
        }

        impl Row {
            /// All of them, in the order in which they run.
            pub const ALL: &[Self] = &[$(Self::$row,)+];

            /// What it is called on the command line and in the ledger.
            pub fn name(self) -> &'static str {
                match self { $(Self::$row => $name,)+ }
            }

            /// What happens in it.
            pub fn what(self) -> &'static str {
                match self { $(Self::$row => $what,)+ }
            }
        }
    };
}

rows! {
    WorkerKilled "worker-killed" "kill -9 of one worker after the other",
    AllWorkersKilled "all-workers-killed" "kill -9 of all workers at once",
    StreamsCut "streams-cut" "kill -9 of workers in the middle of streamed answers",
    WorkerFrozen "worker-frozen" "SIGSTOP of a worker for longer than ack_wait",
    LongJobs "long-jobs" "jobs of 4 × ack_wait, and no fault at all",
    WorkerStopped "worker-stopped" "SIGTERM of one worker after the other",
    WorkerHurried "worker-hurried" "SIGTERM of a worker whose jobs take longer than it may",
    Poisoned "poisoned" "prompts whose runs never come to an end",
    CrashRun "crash-run" "death of workers before and after each step of run and finish that lasts",
    CrashAccept "crash-accept" "death of a gateway before and after each step of accept that lasts",
    GatewayKilled "gateway-killed" "kill -9 of a gateway with callers waiting, who retry at the other one",
    GatewayStopped "gateway-stopped" "SIGTERM of a gateway with callers waiting",
    NatsKilled "nats-killed" "kill -9 of nats-server, again and again",
    NatsFrozen "nats-frozen" "SIGSTOP of nats-server for 6 s",
    LinksReset "links-reset" "RST of every connection between any two parts",
    LinksHalfOpen "links-half-open" "routes to nats-server gone for 10 s, both ways, on connections that look open",
    LinksOneWay "links-one-way" "what nats-server says is lost for 2 s, then what is said to it",
    LinksSlow "links-slow" "bytes in small pieces, then late, then a few a second",
    AcksLate "acks-late" "acknowledgements that come after the publish was tried again",
    BatchGatewayKilled "batch-gateway-killed" "kill -9 of a gateway in the middle of batches",
    RollingRestart "rolling-restart" "SIGTERM and a new start of every gateway and worker, one after the other",
    CallersGone "callers-gone" "callers hang up at random moments, and come again with their keys",
    SlowReaders "slow-readers" "readers of streams who take a byte a second",
    EnvelopesAgain "envelopes-again" "jobs published again under other message ids",
    QueueFull "queue-full" "a queue of 40 jobs at most, and no worker for 5 s",
    QueueBytesFull "queue-bytes-full" "a queue of 320 KB at most, and no worker for 5 s",
    DiskFull "disk-full" "no byte left for the queue for 4 s, then nats-server started again",
    ReceiversFail "receivers-fail" "receivers of webhooks that answer 500, 301, 503 and 410, close early, are slow, or say nothing",
    DatabaseGone "database-gone" "routes to PostgreSQL gone for some seconds, then cut",
    PostgresRestarted "postgres-restarted" "PostgreSQL stopped at once and started again, then stopped for longer",
    SqliteKilled "sqlite-killed" "kill -9 of any of five processes that write to one SQLite file",
    ModelMisbehaves "model-misbehaves" "a model that refuses, answers nonsense, hangs and hangs up, every third time",
    KeysRevoked "keys-revoked" "keys revoked while they are used at both gateways",
    AddressesForged "addresses-forged" "wrong keys from one address that claims to be many",
}

/// Where the product stands in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its parts speak to each other as they do.
    Plain,
    /// There are proxies between them.
    WithLinks,
    /// The queue has a small disk of its own.
    OnASmallDisk,
}

/// What a row's fault left to look at, beside what all rows leave.
#[derive(Default)]
pub struct Met {
    /// What happened, how often, and how often it had to.
    pub counts: Vec<(String, u64, u64)>,
    /// When all was well again, from the beginning of the row; `None` when that is now.
    pub healed: Option<Duration>,
    /// What else is to be told.
    pub notes: Vec<String>,
    /// What is wrong already.
    pub faults: Vec<Fault>,
}

impl Met {
    fn times(what: &str, met: usize) -> Self {
        Self::at_least(what, met as u64, met as u64)
    }

    fn at_least(what: &str, met: u64, wanted: u64) -> Self {
        Self { counts: vec![(what.to_owned(), met, wanted)], ..Self::default() }
    }
}

impl Row {
    /// Who calls, how often, and how long the model takes for each piece of an answer.
    pub fn traffic(self, is_full: bool) -> (Plan, Duration) {
        let size = |small, full| if is_full { full } else { small };
        let millis = Duration::from_millis;
        let mixed = Plan {
            calls: size(150, 1_500),
            at_once: 64,
            manners: MANNERS.to_vec(),
            lines: 5,
            pause: millis(if is_full { 25 } else { 60 }),
        };
        let all_at_once =
            |calls| Plan { calls, at_once: calls, manners: vec![Manner::Sync], lines: 0, pause: Duration::ZERO };
        let of = |manners: &[Manner]| Plan { manners: manners.to_vec(), ..mixed.clone() };
        match self {
            // An answer of two words has four pieces.
            Self::LongJobs => (all_at_once(size(30, 150)), millis(3_400)),
            // Few enough for the slots of those who are left.
            Self::WorkerHurried => (all_at_once(size(30, 100)), millis(1_200)),
            Self::StreamsCut => (Plan { manners: vec![Manner::Stream], ..all_at_once(size(60, 300)) }, millis(400)),
            Self::GatewayKilled => (all_at_once(size(100, 500)), millis(750)),
            Self::GatewayStopped => (all_at_once(size(100, 200)), millis(750)),
            Self::LinksOneWay => {
                let manners = vec![Manner::Sync, Manner::Submit];
                (
                    Plan {
                        manners,
                        calls: size(250, 1_000),
                        at_once: 512,
                        pause: millis(if is_full { 8 } else { 30 }),
                        ..mixed
                    },
                    millis(300),
                )
            }
            Self::AcksLate => (Plan { calls: size(60, 300), ..of(&[Manner::Sync, Manner::Submit]) }, millis(20)),
            Self::RollingRestart => (Plan { calls: size(300, 3_000), ..mixed }, millis(50)),
            // Until all that was to die has died.
            Self::CrashRun => {
                let manners = [MANNERS.as_slice(), &[Manner::Sync, Manner::Sync]].concat();
                (Plan { calls: 100_000, lines: 1, manners, ..mixed }, millis(30))
            }
            Self::CrashAccept => (Plan { calls: 100_000, ..mixed }, millis(30)),
            Self::BatchGatewayKilled => {
                let (calls, lines) = (size(4, 10), size(1_500, 5_000));
                (Plan { lines, manners: vec![Manner::Batch], ..all_at_once(calls) }, Duration::ZERO)
            }
            Self::QueueFull | Self::QueueBytesFull => {
                let plan = Plan { manners: vec![Manner::Submit], pause: millis(10), ..all_at_once(150) };
                (plan, millis(5))
            }
            Self::Poisoned => (Plan { calls: size(150, 500), ..of(&[Manner::Sync, Manner::Submit]) }, millis(50)),
            Self::ModelMisbehaves => {
                (Plan { calls: size(150, 3_500), ..of(&[Manner::Sync, Manner::Submit]) }, millis(5))
            }
            Self::ReceiversFail => (of(&[Manner::Webhook]), millis(5)),
            Self::KeysRevoked | Self::AddressesForged => (Plan { calls: size(50, 500), ..mixed }, millis(20)),
            _ => (mixed, millis(50)),
        }
    }

    /// What is set otherwise.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::QueueFull => &[("FRONTDESK_JOBS_MAX_MESSAGES", "40")],
            Self::QueueBytesFull => &[("FRONTDESK_JOBS_MAX_BYTES", "320000")],
            // All callers' jobs run at once.
            Self::GatewayKilled => &[("FRONTDESK_CONCURRENCY", "256")],
            Self::WorkerHurried => &[("FRONTDESK_WORKER_GRACE", "1s")],
            Self::Poisoned => &[("POISON", workers::POISON), ("FRONTDESK_MAX_STARTS", "5")],
            Self::AddressesForged => &[("FRONTDESK_TRUSTED_PROXIES", "127.0.0.1")],
            Self::ModelMisbehaves => {
                &[("FRONTDESK_MODEL_FIRST_BYTE_TIMEOUT", "1s"), ("FRONTDESK_MODEL_IDLE_TIMEOUT", "1s")]
            }
            _ => &[],
        }
    }

    /// Whether it makes sense there, in this build, and on this machine.
    pub fn runs_on(self, database: Database) -> bool {
        match self {
            Self::DatabaseGone | Self::PostgresRestarted => database == Database::Postgres,
            Self::SqliteKilled => database == Database::Sqlite,
            Self::CrashRun | Self::CrashAccept | Self::Poisoned => sabotage::IS_BUILT_IN,
            Self::DiskFull => Disk::is_possible(),
            _ => true,
        }
    }

    /// Where the product stands.
    pub fn place(self) -> Place {
        match self {
            Self::LinksReset | Self::LinksHalfOpen | Self::LinksOneWay | Self::LinksSlow => Place::WithLinks,
            Self::AcksLate | Self::DatabaseGone => Place::WithLinks,
            Self::DiskFull => Place::OnASmallDisk,
            _ => Place::Plain,
        }
    }

    /// Whether agents may fail in it: where the model does, and where workers cannot live. Nothing else that happens to
    /// the product is the agent's fault.
    pub fn may_fail(self) -> bool {
        matches!(self, Self::ModelMisbehaves | Self::Poisoned)
    }

    /// Whether it kills nobody, and leaves no publish and no end in doubt.
    pub fn spares_all(self) -> bool {
        const OUTSIDE: [Row; 4] = [Row::ReceiversFail, Row::ModelMisbehaves, Row::KeysRevoked, Row::AddressesForged];
        matches!(self, Self::LongJobs | Self::SlowReaders | Self::EnvelopesAgain) || OUTSIDE.contains(&self)
    }

    /// How long a request may take. A database that does not answer is waited for 15 s, which is more than the deadline of
    /// these rows, and less than the one that is shipped.
    pub fn longest_wait(self) -> Duration {
        match self {
            Self::DatabaseGone | Self::PostgresRestarted => Duration::from_secs(15),
            _ => DEADLINE,
        }
    }

    /// Whether it breaks connections between callers and gateways.
    pub fn cuts_callers_off(self) -> bool {
        // One that is told to stop closes its door.
        let ends_gateways = [
            Self::GatewayKilled,
            Self::GatewayStopped,
            Self::CrashAccept,
            Self::BatchGatewayKilled,
            Self::SqliteKilled,
            Self::RollingRestart,
        ];
        ends_gateways.contains(&self) || matches!(self, Self::LinksReset | Self::LinksSlow | Self::CallersGone)
    }

    /// How long after the fault the first call has to succeed.
    pub fn back_within(self) -> Duration {
        Duration::from_secs(match self {
            Self::NatsKilled => 3,
            // A batch whose gateway died is taken up when its lease of 20 s is over.
            Self::BatchGatewayKilled | Self::CrashAccept => 40,
            _ => 5,
        })
    }

    /// How many receivers of webhooks there are. One that a worker died beside is left alone for a while.
    pub fn receivers(self) -> usize {
        if self == Self::CrashRun { 24 } else { 1 }
    }

    /// What its prompts begin with.
    pub fn preface(self) -> String {
        // So much that few of them are 320 KB; the queue is called full when there is no room for the largest of 256 KB.
        if self == Self::QueueBytesFull { "x".repeat(4_000) + " " } else { String::new() }
    }

    /// When its callers hang up at the latest, to come again.
    pub fn hangs_up_within(self) -> Option<Duration> {
        // No answer that is waited for is there sooner: so much does the model take for it.
        (self == Self::CallersGone).then_some(Duration::from_millis(150))
    }

    /// Does what it is there for, while callers call.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn torment(self, site: &mut Site, traffic: &Traffic, is_full: bool) -> Result<Met> {
        let times = |small, full| if is_full { full } else { small };
        match self {
            Self::WorkerKilled => workers::killed(site, times(5, 20)).await,
            Self::AllWorkersKilled => workers::all_killed(site, times(2, 10)).await,
            Self::StreamsCut => workers::killed(site, times(2, 3)).await,
            Self::WorkerFrozen => workers::frozen(site, times(2, 20)).await,
            // Here callers, or time, do it all.
            Self::LongJobs | Self::CallersGone => {
                traffic.ended().await;
                Ok(Met::default())
            }
            Self::WorkerStopped => workers::stopped(site, times(3, 20)).await,
            Self::WorkerHurried => workers::hurried(site).await,
            Self::Poisoned => workers::poisoned(site, traffic, times(2, 20)).await,
            Self::CrashRun => crashes::of_workers(site, traffic, times(2, 10)).await,
            Self::CrashAccept => crashes::of_a_gateway(site, traffic, times(1, 10)).await,
            Self::GatewayKilled => gateways::killed(site, times(35, 200) as u64).await,
            Self::GatewayStopped => gateways::stopped(site, traffic, times(35, 80) as u64).await,
            Self::NatsKilled => queue::killed(site, times(4, 20)).await,
            Self::NatsFrozen => queue::frozen(site).await,
            Self::LinksReset => links::reset(site, times(5, 50)).await,
            Self::LinksHalfOpen => links::half_open(site).await,
            Self::LinksOneWay => links::one_way(site).await,
            Self::LinksSlow => links::slow(site).await,
            Self::AcksLate => links::acks_late(site, traffic).await,
            Self::BatchGatewayKilled => gateways::killed_in_batches(site, times(3, 6)).await,
            Self::RollingRestart => gateways::all_restarted(site).await,
            Self::SlowReaders => callers::slow_readers(site, times(20, 50)).await,
            Self::EnvelopesAgain => queue::published_again(site, traffic, times(20, 200)).await,
            Self::QueueFull | Self::QueueBytesFull => queue::full(site).await,
            Self::DiskFull => queue::disk_full(site).await,
            Self::ReceiversFail => receivers::fail(site, traffic).await,
            Self::DatabaseGone => links::database_gone(site, times(5, 20)).await,
            Self::PostgresRestarted => stores::postgres_restarted(times(2, 10), times(5, 20)).await,
            Self::SqliteKilled => stores::sqlite_killed(site, times(8, 50)).await,
            Self::ModelMisbehaves => callers::model_misbehaves(site, traffic, times(4, 100)).await,
            Self::KeysRevoked => doors::keys_revoked(site, times(5, 20)).await,
            Self::AddressesForged => doors::addresses_forged(site).await,
        }
    }

    /// What has to hold in this row alone.
    pub fn own_faults(self, site: &Site, calls: &[Call], store: &Store) -> Vec<Fault> {
        match self {
            Self::WorkerKilled | Self::AllWorkersKilled | Self::WorkerFrozen | Self::StreamsCut => {
                workers::some_ran_again(store)
            }
            Self::LongJobs => {
                gateways::each_ran_once(site, calls).into_iter().chain(workers::told_at_the_deadline(calls)).collect()
            }
            Self::Poisoned => workers::only_poison_failed(calls, store),
            Self::GatewayKilled | Self::AcksLate => gateways::each_ran_once(site, calls),
            Self::BatchGatewayKilled => gateways::some_were_cut_off(calls),
            Self::RollingRestart => gateways::one_retry_was_enough(calls),
            Self::CallersGone => callers::some_hung_up(calls),
            Self::LinksOneWay => links::nobody_timed_out(calls),
            Self::QueueFull | Self::QueueBytesFull => queue::some_were_refused(calls),
            Self::DiskFull => queue::nothing_was_taken(calls),
            Self::ReceiversFail => receivers::told_again(site),
            Self::SqliteKilled => stores::nothing_was_locked(&site.stack),
            _ => Vec::new(),
        }
    }
}

/// What is wrong, and is no time.
pub fn fault(check: Check, found: String) -> Fault {
    Fault { check, found, is_time: false }
}

/// What is wrong, and is a time.
fn late(check: Check, found: String) -> Fault {
    Fault { check, found, is_time: true }
}
