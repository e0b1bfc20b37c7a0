//! Whether a process can do its work now, and if not, why.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Mutex;

/// How long a check may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer stands. Anybody may ask, so asking often must cost nothing.
const FRESH: Duration = Duration::from_millis(500);

type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The checks of one process.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Checks>);

#[derive(Default)]
struct Checks {
    checks: Vec<(&'static str, Check)>,
    last: Mutex<Option<(Instant, Vec<String>)>>,
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|(name, _)| name)).finish()
    }
}

impl Readiness {
    /// The given checks, each with the name of what it checks; it gives a reason when that does not work.
    pub fn new(checks: Vec<(&'static str, Check)>) -> Self {
        Self(Arc::new(Checks { checks, last: Mutex::default() }))
    }

    /// Why it is not ready: `<name>: <reason>` for each check that fails. Empty when it is ready.
    pub async fn reasons(&self) -> Vec<String> {
        let mut last = self.0.last.lock().await;
        if let Some((at, reasons)) = &*last
            && at.elapsed() < FRESH
        {
            return reasons.clone();
        }
        let checks = self.0.checks.iter().map(|(name, check)| reason(name, check()));
        let reasons: Vec<String> = join_all(checks).await.into_iter().flatten().collect();
        *last = Some((Instant::now(), reasons.clone()));
        reasons
    }
}

/// Puts a check into the form that [`Readiness::new`] takes.
pub fn check<F, R>(check: F) -> Check
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), String>> + Send + 'static,
{
    Box::new(move || Box::pin(check()))
}

async fn reason(name: &str, check: BoxFuture<'static, Result<(), String>>) -> Option<String> {
    match tokio::time::timeout(PATIENCE, check).await {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(format!("{name}: {reason}")),
        Err(_) => Some(format!("{name}: no answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_failing_check_gives_its_reason() {
        let readiness = Readiness::new(vec![
            ("queue", check(|| async { Ok(()) })),
            ("database", check(|| async { Err("gone".to_owned()) })),
            ("nats", check(std::future::pending)),
        ]);
        assert_eq!(readiness.reasons().await, ["database: gone", "nats: no answer within 2 s"]);
    }

    #[tokio::test]
    async fn asking_often_checks_once() {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = asked.clone();
        let counting = check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        });
        let readiness = Readiness::new(vec![("database", counting)]);
        for _ in 0..5 {
            assert!(readiness.reasons().await.is_empty());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
