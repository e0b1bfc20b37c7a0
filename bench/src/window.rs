//! The time in which calls count, and what the processes used in it.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use crate::{
    children::Child,
    procfs,
    sample::{Sample, Times},
};

/// A stretch of time after a warm-up.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    begin: Instant,
    end: Instant,
}

/// What the callers of a window found.
#[derive(Debug, Default)]
pub struct Tally {
    times: Times,
    errors: Errors,
}

/// Calls that had no answer, or not their own.
#[derive(Debug, Default)]
pub struct Errors {
    count: u64,
    first: Option<String>,
}

/// The processes behind a measurement: gateway, worker and nats-server.
pub type Processes<'a> = [Option<&'a Child>; 3];

impl Window {
    /// Begins after `warm_up` and lasts `length`.
    pub fn after(warm_up: Duration, length: Duration) -> Self {
        let begin = Instant::now() + warm_up;
        Self { begin, end: begin + length }
    }

    /// Whether callers go on.
    pub fn is_open(&self) -> bool {
        Instant::now() < self.end
    }

    /// Looks at the processes at both ends and makes a sample of what was tallied meanwhile.
    ///
    /// # Errors
    /// When a caller could not even begin, or a process is gone.
    pub async fn watch(self, processes: Processes<'_>, tally: impl Future<Output = Result<Tally>>) -> Result<Sample> {
        let watch = async {
            sleep_until(self.begin).await;
            let before = used(processes)?;
            sleep_until(self.end).await;
            let after = used(processes)?;
            anyhow::Ok([0, 1, 2, 3].map(|i| after[i].zip(before[i]).map(|(after, before)| after - before)))
        };
        let (used, tally) = tokio::try_join!(watch, tally)?;
        let calls = tally.times.count() as f64;
        let percentiles = tally.times.p50_and_p99();
        Ok(Sample {
            rate: calls / (self.end - self.begin).as_secs_f64(),
            p50: percentiles.map(|(p50, _)| p50),
            p99: percentiles.map(|(_, p99)| p99),
            errors: tally.errors.told(),
            cpu: used.map(|used| used.map(|used| used.as_secs_f64() * 10_000.0 / calls.max(1.0))),
            ..Sample::default()
        })
    }
}

impl Tally {
    /// Counts a call that began at `asked` and has just ended, if it did so within `window`.
    pub fn count(&mut self, window: Window, asked: Instant, answer: Result<()>) {
        let now = Instant::now();
        if now < window.begin || now > window.end {
            return;
        }
        match answer {
            Ok(()) => self.times.add(now - asked),
            Err(error) => self.errors.add(&error),
        }
    }

    /// Takes what another caller found.
    pub fn extend(&mut self, other: Self) {
        self.times.extend(other.times);
        self.errors.extend(other.errors);
    }
}

impl Errors {
    /// Counts one more.
    pub fn add(&mut self, error: &anyhow::Error) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Takes those of another caller.
    pub fn extend(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }

    /// How many there were; says on standard error what one of them was.
    pub fn told(self) -> u64 {
        if let Some(first) = self.first {
            eprintln!("  {} errors, such as: {first}", self.count);
        }
        self.count
    }
}

fn used(processes: Processes<'_>) -> Result<[Option<Duration>; 4]> {
    let [gateway, worker, nats] = processes;
    let of = |child: Option<&Child>| child.map(Child::cpu).transpose();
    Ok([of(gateway)?, of(worker)?, of(nats)?, Some(procfs::cpu(std::process::id())?)])
}
