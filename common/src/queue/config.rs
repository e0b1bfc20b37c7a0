//! How the queue is reached and how large it may grow.

use std::time::Duration;

use super::place::MOST_SLOTS;
use crate::env::{self, EnvError};

/// Which of the users of `nats.conf` a process is; decides its inbox and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueRole {
    /// Makes streams and consumers, tells about changes.
    Admin,
    /// Publishes jobs and waits for replies.
    Gateway,
    /// Pulls jobs and replies.
    Worker,
}

impl QueueRole {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }
}

/// Where NATS is and who we are there.
#[derive(Clone)]
pub struct QueueConfig {
    /// Server addresses, separated by commas.
    pub url: String,
    /// User and password, when the server asks for them.
    pub credentials: Option<(String, String)>,
    /// Who we are.
    pub role: QueueRole,
    /// The server's monitoring address, for a look at its effective settings.
    pub monitor_url: Option<String>,
}

impl QueueConfig {
    /// `NATS_URL`, `NATS_USER`, `NATS_PASSWORD` and `NATS_MONITOR_URL`; for the admin
    /// `NATS_ADMIN_USER` and `NATS_ADMIN_PASSWORD` come first.
    pub fn from_environment(role: QueueRole) -> Result<Self, EnvError> {
        let own = (role == QueueRole::Admin).then(|| credentials("NATS_ADMIN_USER", "NATS_ADMIN_PASSWORD"));
        let credentials = match own.transpose()?.flatten() {
            Some(own) => Some(own),
            None => credentials("NATS_USER", "NATS_PASSWORD")?,
        };
        let url = env::text("NATS_URL").unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
        Ok(Self { url, credentials, role, monitor_url: env::text("NATS_MONITOR_URL") })
    }
}

fn credentials(user: &str, password: &str) -> Result<Option<(String, String)>, EnvError> {
    env::text(user).map(|name| Ok((name, env::required(password)?))).transpose()
}

/// The limits of the streams and consumers that `gateway migrate` makes.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// The most bytes of unfinished jobs; keep it below what the disk has. A full stream answers 503.
    pub jobs_max_bytes: i64,
    /// The most unfinished jobs.
    pub jobs_max_messages: i64,
    /// The most bytes of frames of running jobs, in the server's memory.
    pub events_max_bytes: i64,
    /// How long such a frame is kept.
    pub events_max_age: Duration,
    /// After how long without a sign of life a job is handed to another worker.
    pub ack_wait: Duration,
    /// How many slot queues each lane has: so many accounts with backlogs do not stand behind each other.
    pub slots: u8,
    /// How many jobs of an account may run at a time in each lane, over all workers; `None` for any number.
    pub account_running: Option<u32>,
}

impl StreamLimits {
    /// `FRONTDESK_JOBS_MAX_BYTES`, `FRONTDESK_JOBS_MAX_MESSAGES`, `FRONTDESK_EVENTS_MAX_BYTES`,
    /// `FRONTDESK_EVENTS_MAX_AGE`, `FRONTDESK_ACK_WAIT`, `FRONTDESK_SLOTS` and `FRONTDESK_ACCOUNT_RUNNING`.
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self {
            jobs_max_bytes: env::within("FRONTDESK_JOBS_MAX_BYTES", 2 << 30, 1..=i64::MAX)?,
            jobs_max_messages: env::within("FRONTDESK_JOBS_MAX_MESSAGES", 2_000_000, 1..=i64::MAX)?,
            events_max_bytes: env::within("FRONTDESK_EVENTS_MAX_BYTES", 256 << 20, 1..=i64::MAX)?,
            events_max_age: env::duration("FRONTDESK_EVENTS_MAX_AGE", Duration::from_secs(30 * 60))?,
            ack_wait: ack_wait_from_environment()?,
            slots: env::within("FRONTDESK_SLOTS", 32, 1..=MOST_SLOTS)?,
            account_running: account_running_from_environment()?,
        })
    }
}

fn account_running_from_environment() -> Result<Option<u32>, EnvError> {
    env::text("FRONTDESK_ACCOUNT_RUNNING").map(|_| env::within("FRONTDESK_ACCOUNT_RUNNING", 1, 1..=100_000)).transpose()
}

fn ack_wait_from_environment() -> Result<Duration, EnvError> {
    let ack_wait = env::duration("FRONTDESK_ACK_WAIT", Duration::from_secs(30))?;
    if ack_wait < Duration::from_secs(1) {
        return Err(env::invalid("FRONTDESK_ACK_WAIT", &format!("{ack_wait:?}"), "must be at least 1s"));
    }
    Ok(ack_wait)
}
