//! How a worker runs jobs.

use std::{net::SocketAddr, time::Duration};

use common::env::{self, EnvError};

/// The shortest retention: an idempotency key replays its message for 24 hours.
const SHORTEST_RETENTION: Duration = Duration::from_hours(48);

/// A worker's own settings.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    /// Jobs at a time. High, because the work is waiting for a model.
    pub concurrency: usize,
    /// How long one run of a job may take.
    pub run_limit: Duration,
    /// How often a job may be begun without an outcome before it is given up.
    pub max_starts: u32,
    /// How long pieces of text are gathered before they leave together.
    pub delta_gather: Duration,
    /// How long running jobs may go on after the worker was told to stop.
    pub grace: Duration,
    /// How long finished messages are kept; for ever when there is none.
    pub retention: Option<Duration>,
    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub metrics_listen: SocketAddr,
}

impl WorkerConfig {
    /// `FRONTDESK_CONCURRENCY`, `FRONTDESK_RUN_LIMIT`, `FRONTDESK_MAX_STARTS`, `FRONTDESK_DELTA_GATHER`,
    /// `FRONTDESK_WORKER_GRACE`, `FRONTDESK_RETENTION` and `FRONTDESK_WORKER_METRICS_LISTEN`.
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self {
            concurrency: env::within("FRONTDESK_CONCURRENCY", 64, 1..=100_000)?,
            run_limit: env::duration("FRONTDESK_RUN_LIMIT", Duration::from_secs(15 * 60))?,
            max_starts: env::within("FRONTDESK_MAX_STARTS", 5, 1..=100)?,
            delta_gather: env::duration("FRONTDESK_DELTA_GATHER", Duration::from_millis(20))?,
            grace: env::duration("FRONTDESK_WORKER_GRACE", Duration::from_secs(30))?,
            retention: retention_from_environment()?,
            metrics_listen: env::parse("FRONTDESK_WORKER_METRICS_LISTEN", SocketAddr::from(([127, 0, 0, 1], 9091)))?,
        })
    }
}

/// `never`, zero, or nothing keeps messages for ever.
fn retention_from_environment() -> Result<Option<Duration>, EnvError> {
    const NAME: &str = "FRONTDESK_RETENTION";
    if env::text(NAME).as_deref() == Some("never") {
        return Ok(None);
    }
    let life = env::duration(NAME, Duration::ZERO)?;
    if !life.is_zero() && life < SHORTEST_RETENTION {
        let value = env::text(NAME).unwrap_or_default();
        return Err(env::invalid(NAME, &value, "must be `never`, or at least 48h"));
    }
    Ok((!life.is_zero()).then_some(life))
}
