//! One round: every measurement once in turn, so that what disturbs the machine for a while disturbs all alike.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    bare, batches,
    beside::{self, Beside},
    commit,
    fairness::{self, Fair},
    load::{self, Lengths},
    mixed,
    nats::{Durability, Nats},
    options::Options,
    postgres::Postgres,
    publish, readers,
    sample::Sample,
    scaling,
    sites::Site,
    streams, waiting, webhooks,
};

/// Callers at a time.
pub const CALLERS: [u32; 3] = [1, 64, 512];
/// Callers at a time who submit without waiting.
pub const ACCEPTING: u32 = 64;
/// How long callers that wait take to arrive: all are there before the first one's 5 seconds are over.
pub const ARRIVAL: Duration = Duration::from_secs(4);
/// Who waits in (5): with which durability, how many, and whether they come all at once.
const WAITING: [(Durability, u32, bool); 4] = [
    (Durability::Shipped, 2_000, false),
    (Durability::Default, 2_000, true),
    (Durability::Shipped, 10_000, false),
    (Durability::Default, 10_000, false),
];
/// How many workers (10) compares.
pub const WORKERS: [usize; 2] = [1, 4];
/// One key looks often.
const READS: [(&str, &str); 1] = [("FRONTDESK_READ_LIMIT", "1000000")];
const WARM_UP: Duration = Duration::from_secs(1);

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Bare HTTP.
    Echo(u32),
    /// The bare job path.
    Job(Durability, u32),
    /// A bare durable commit.
    Commit,
    /// HTTP in front of the job path.
    Floor(Durability, u32),
    /// The product.
    Product(Durability, u32),
    /// Callers that wait; whether they come all at once.
    Waiting(Durability, u32, bool),
    /// Streams without the product.
    Fan,
    /// Streams; whether as shipped, with fragments gathered.
    Streams(bool),
    /// Readers of one message.
    Readers,
    /// Bare acknowledged publishes.
    Publish(Durability),
    /// Submissions without waiting; whether a worker runs them beside.
    Accept(Durability, bool),
    /// Webhooks while others wait for dead receivers.
    Webhooks,
    /// Accounts beside each other.
    Fairness(Fair),
    /// Jobs that wait, with so many workers behind two gateways.
    Workers(usize),
    /// What more of something costs.
    Beside(Beside),
    /// Bare publishes, many under way at a time.
    Pipelined(Durability),
    /// A batch on its way to the queue.
    Enqueue(Durability),
    /// Pulled and acknowledged, and nothing else.
    BareDrain(Durability),
    /// A batch that a worker runs.
    Drain(Durability, Kept),
    /// All kinds of callers at once.
    Mixed(Kind),
}

/// Where the ends of a batch's lines are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// In a file.
    Sqlite,
    /// On a server.
    Postgres,
}

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An answer.
    Call,
    /// An answer as it is made.
    Stream,
    /// To be told later.
    Submission,
}

/// All samples of each line, in the order of the rounds.
pub type Results = BTreeMap<Row, Vec<Sample>>;

/// Measures all that `options` ask for once.
///
/// # Errors
/// When a server does not come up or goes away.
pub async fn run(root: &Path, options: &Options, results: &mut Results) -> Result<()> {
    let lengths = Lengths { warm_up: WARM_UP.min(options.measure), measure: options.measure };
    let mut round = Round { root, options, lengths, results };
    round.echo().await?;
    for durability in Durability::ALL {
        round.paths(durability).await?;
    }
    round.waiting().await?;
    round.streams().await?;
    round.accepting().await?;
    round.webhooks().await?;
    round.fairness().await?;
    round.workers().await?;
    round.beside().await?;
    round.batches().await?;
    round.mixed().await
}

struct Round<'a> {
    root: &'a Path,
    options: &'a Options,
    lengths: Lengths,
    results: &'a mut Results,
}

impl Round<'_> {
    async fn echo(&mut self) -> Result<()> {
        if !self.options.has(1) {
            return Ok(());
        }
        let echo = Site::echo(self.root).await?;
        for callers in CALLERS {
            self.load(Row::Echo(callers), &echo, callers).await?;
        }
        Ok(())
    }

    /// The bare path, the floor and the product back to back for each number of callers.
    async fn paths(&mut self, durability: Durability) -> Result<()> {
        let folder = TempDir::new_in(self.root)?;
        let nats = if self.options.has(2) { Some(Nats::start(durability, folder.path()).await?) } else { None };
        let floor = if self.options.has(3) { Some(Site::floor(self.root, durability).await?) } else { None };
        let product = if self.options.has(4) { Some(Site::product(self.root, durability, &[]).await?) } else { None };
        if self.options.has(2) && durability == Durability::Shipped {
            let sample = commit::run(folder.path(), self.lengths).await?;
            self.note(Row::Commit, sample);
        }
        for callers in CALLERS {
            if let Some(nats) = &nats {
                let sample = bare::run(nats, callers, self.lengths).await?;
                self.note(Row::Job(durability, callers), sample);
            }
            if let Some(floor) = &floor {
                self.load(Row::Floor(durability, callers), floor, callers).await?;
            }
            if let Some(product) = &product {
                self.load(Row::Product(durability, callers), product, callers).await?;
            }
        }
        Ok(())
    }

    async fn waiting(&mut self) -> Result<()> {
        if !self.options.has(5) {
            return Ok(());
        }
        // As shipped, a disk takes some thousand jobs a second: whoever comes faster waits for it, here not in vain.
        let settings = [("FRONTDESK_CONCURRENCY", "12000"), ("FRONTDESK_PUBLISH_BUDGET", "60s")];
        for (durability, callers, at_once) in WAITING {
            let site = Site::product(self.root, durability, &settings).await?;
            // What is made once, such as threads and caches, is not what a caller costs.
            let warm_up = Lengths { warm_up: Duration::ZERO, measure: WARM_UP };
            load::run(site.address, &site.chat(), 16, warm_up, site.processes()).await?;
            let arrival = if at_once { Duration::ZERO } else { ARRIVAL };
            let sample = waiting::run(&site, callers, arrival).await?;
            self.note(Row::Waiting(durability, callers, at_once), sample);
        }
        Ok(())
    }

    async fn streams(&mut self) -> Result<()> {
        if !self.options.has(6) {
            return Ok(());
        }
        // As many slots as streams, and some more.
        let slots = ("FRONTDESK_CONCURRENCY", "128");
        let settings = [slots, ("FRONTDESK_DELTA_GATHER", "0ms"), READS[0]];
        let site = Site::fan(self.root).await?;
        let sample = streams::run(&site, "1ms", 5).await?;
        self.note(Row::Fan, sample);
        let site = Site::product(self.root, Durability::Shipped, &settings).await?;
        let sample = streams::run(&site, "1ms", 5).await?;
        self.note(Row::Streams(false), sample);
        let sample = readers::run(&site, "1ms", 5).await?;
        self.note(Row::Readers, sample);
        let site = Site::product(self.root, Durability::Shipped, &[slots]).await?;
        let sample = streams::run(&site, "5ms", 2).await?;
        self.note(Row::Streams(true), sample);
        Ok(())
    }

    /// Bare publishes and the product's submissions back to back.
    async fn accepting(&mut self) -> Result<()> {
        if !self.options.has(7) {
            return Ok(());
        }
        for durability in Durability::ALL {
            let folder = TempDir::new_in(self.root)?;
            let nats = Nats::start(durability, folder.path()).await?;
            let sample = publish::run(&nats, ACCEPTING, self.lengths).await?;
            self.note(Row::Publish(durability), sample);
            drop(nats);
            for is_run in [false, true] {
                let mut site = Site::product(self.root, durability, &[]).await?;
                site.worker = site.worker.filter(|_| is_run);
                let message = site.message();
                let sample = load::run(site.address, &message, ACCEPTING, self.lengths, site.processes()).await?;
                self.note(Row::Accept(durability, is_run), sample);
            }
        }
        Ok(())
    }

    async fn webhooks(&mut self) -> Result<()> {
        if !self.options.has(8) {
            return Ok(());
        }
        let settings = [("FRONTDESK_ALLOW_LOOPBACK_TARGETS", "true")];
        let site = Site::product(self.root, Durability::Shipped, &settings).await?;
        let sample = webhooks::run(&site).await?;
        self.note(Row::Webhooks, sample);
        Ok(())
    }

    async fn fairness(&mut self) -> Result<()> {
        if !self.options.has(9) {
            return Ok(());
        }
        let (root, lengths) = (self.root, self.lengths);
        fairness::run(root, lengths, |what, sample| self.note(Row::Fairness(what), sample)).await
    }

    async fn workers(&mut self) -> Result<()> {
        if !self.options.has(10) {
            return Ok(());
        }
        for workers in WORKERS {
            let sample = scaling::run(self.root, workers, self.lengths).await?;
            self.note(Row::Workers(workers), sample);
        }
        Ok(())
    }

    /// Once and not in each round: a million of something takes its time.
    async fn beside(&mut self) -> Result<()> {
        if !self.options.has(11) || self.results.keys().any(|row| matches!(row, Row::Beside(_))) {
            return Ok(());
        }
        let (root, lengths) = (self.root, self.lengths);
        beside::run(root, lengths, |what, sample| self.note(Row::Beside(what), sample)).await
    }

    /// The lines of a batch onto the queue and off it, each beside the same without the product.
    async fn batches(&mut self) -> Result<()> {
        if !self.options.has(12) {
            return Ok(());
        }
        for durability in Durability::ALL {
            let folder = TempDir::new_in(self.root)?;
            let nats = Nats::with_streams(durability, folder.path()).await?;
            let sample = batches::pipelined(&nats).await?;
            self.note(Row::Pipelined(durability), sample);
            let sample = batches::bare_drain(&nats).await?;
            self.note(Row::BareDrain(durability), sample);
            drop(nats);
            let site = Site::without_worker(self.root, durability, None, &READS).await?;
            let enqueued = self.batch(site, durability, Kept::Sqlite).await?;
            self.note(Row::Enqueue(durability), enqueued);
            if let Some(postgres) = Postgres::from_environment() {
                let database = postgres.new_database().await?;
                let site = Site::without_worker(self.root, durability, Some(&database), &READS).await?;
                self.batch(site, durability, Kept::Postgres).await?;
            }
        }
        Ok(())
    }

    /// Enqueues a batch, then drains it; gives how it was enqueued.
    async fn batch(&mut self, mut site: Site, durability: Durability, kept: Kept) -> Result<Sample> {
        let (enqueued, id) = batches::enqueue(&site).await?;
        let sample = batches::drain(&mut site, &id).await?;
        self.note(Row::Drain(durability, kept), sample);
        Ok(enqueued)
    }

    async fn mixed(&mut self) -> Result<()> {
        if !self.options.has(13) {
            return Ok(());
        }
        let site = Site::product(self.root, Durability::Shipped, &[]).await?;
        for (kind, sample) in mixed::run(&site, self.lengths).await? {
            self.note(Row::Mixed(kind), sample);
        }
        Ok(())
    }

    async fn load(&mut self, row: Row, site: &Site, callers: u32) -> Result<()> {
        let sample = load::run(site.address, &site.chat(), callers, self.lengths, site.processes()).await?;
        self.note(row, sample);
        Ok(())
    }

    fn note(&mut self, row: Row, sample: Sample) {
        let ms = |time: Option<f64>, name| time.map_or_else(String::new, |ms| format!(", {name} {ms:.2} ms"));
        let (p50, p99) = (ms(sample.p50, "p50"), ms(sample.p99, "p99"));
        eprintln!("  {row:?}: {:.0}/s{p50}{p99}, {} errors", sample.rate, sample.errors);
        self.results.entry(row).or_default().push(sample);
    }
}
