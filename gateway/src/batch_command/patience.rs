//! Going on after a failure that may pass: with growing pauses, until the user's patience is at its end.

use std::time::Duration;

use common::retry::Pauses;
use tokio::time::{Instant, sleep};

use super::{client_error::ClientError, progress::Progress};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often it went wrong lately, and what is still borne.
#[derive(Debug)]
pub struct Patience<'a> {
    limit: Duration,
    progress: &'a Progress,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    pauses: Pauses,
    until: Instant,
}

impl<'a> Patience<'a> {
    /// As much as `limit` from the first failure after something went well. Failures are told through `progress`.
    pub fn new(limit: Duration, progress: &'a Progress) -> Self {
        Self { limit, progress, trouble: None }
    }

    /// For how long failures are borne.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Does `act` until it works.
    ///
    /// # Errors
    /// When it fails in a way that does not pass, or when patience is at its end.
    pub async fn through<T>(&mut self, mut act: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
        loop {
            match act().await {
                Ok(done) => {
                    self.went_well();
                    return Ok(done);
                }
                Err(error) => self.bear(error).await?,
            }
        }
    }

    /// Waits after a failure.
    ///
    /// # Errors
    /// The failure itself, when waiting does not help or patience is at its end.
    pub async fn bear(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !error.may_pass() {
            return Err(error);
        }
        if self.trouble.is_none() {
            self.progress.trouble(&error, self.limit);
        }
        let limit = self.limit;
        let trouble = self.trouble.get_or_insert_with(|| Trouble::new(limit));
        let Some(pause) = trouble.pause(error.retry_after()) else { return Err(error) };
        sleep(pause).await;
        Ok(())
    }

    /// What went wrong before counts no more.
    pub fn went_well(&mut self) {
        if self.trouble.take().is_some() {
            self.progress.trouble_is_over();
        }
    }
}

impl Trouble {
    fn new(limit: Duration) -> Self {
        Self { pauses: Pauses::new(FIRST_PAUSE, LONGEST_PAUSE, Some(limit)), until: Instant::now() + limit }
    }

    /// How long to wait: not less than the server asks for, and not at all when that is too long.
    fn pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let pause = self.pauses.next_pause()?.max(asked.unwrap_or_default());
        (Instant::now() + pause <= self.until).then_some(pause)
    }
}
