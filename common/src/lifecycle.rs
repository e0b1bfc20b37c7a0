//! Stopping in two steps: first finish what you have, then drop it.

use std::{future::Future, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// The two steps of stopping, and the tasks that they are for. Passed down, never global.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    background: TaskTracker,
}

impl Lifecycle {
    /// Nothing is running, nothing is stopping.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task`; stopping waits for it.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Runs `task`, which serves the others: it goes on while they finish, and ends with [`Lifecycle::aborting`].
    pub fn spawn_background<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.background.spawn(task)
    }

    /// Begins the stop: take nothing new, finish what you have.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Ends the stop: drop what is left.
    pub fn abort(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Whether the stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Whether what is left has to be dropped.
    pub fn is_aborting(&self) -> bool {
        self.hard.is_cancelled()
    }

    /// Waits until the stop begins.
    pub async fn stopping(&self) {
        self.soft.cancelled().await;
    }

    /// Waits until what is left has to be dropped.
    pub async fn aborting(&self) {
        self.hard.cancelled().await;
    }

    /// Waits for all tasks but those in the background, for at most `grace`; then aborts and waits `last` more for
    /// the rest. Whether they all ended.
    pub async fn wait(&self, grace: Duration, last: Duration) -> bool {
        self.tasks.close();
        self.background.close();
        if tokio::time::timeout(grace, self.wait_or_abort()).await.is_err() {
            warn!(grace_s = grace.as_secs(), "the grace time is over; dropping what still runs");
        }
        self.abort();
        let rest = async { tokio::join!(self.tasks.wait(), self.background.wait()) };
        tokio::time::timeout(last, rest).await.is_ok()
    }

    async fn wait_or_abort(&self) {
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.hard.cancelled() => {}
        }
    }

    /// Turns SIGTERM and SIGINT into a stop, and a second one into an abort.
    pub fn listen_for_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let lifecycle = self.clone();
        #[expect(clippy::disallowed_methods, reason = "the task that ends the others is not one of them")]
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
                if lifecycle.is_stopping() {
                    warn!("asked twice to stop: dropping what still runs");
                    lifecycle.abort();
                    return;
                }
                info!("stopping: finishing what has begun");
                lifecycle.stop();
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_stop_is_told_to_drop_it() {
        let lifecycle = Lifecycle::new();
        let inner = lifecycle.clone();
        lifecycle.spawn(async move { inner.aborting().await });
        lifecycle.stop();
        assert!(lifecycle.wait(Duration::from_secs(5), Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_serves_the_others_does_not_hold_up_the_stop() {
        let lifecycle = Lifecycle::new();
        let inner = lifecycle.clone();
        lifecycle.spawn_background(async move { inner.aborting().await });
        lifecycle.spawn(tokio::time::sleep(Duration::from_secs(1)));
        lifecycle.stop();
        let begun = tokio::time::Instant::now();
        assert!(lifecycle.wait(Duration::from_secs(300), Duration::from_secs(1)).await);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_reported() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn(std::future::pending::<()>());
        lifecycle.stop();
        assert!(!lifecycle.wait(Duration::from_secs(5), Duration::from_secs(1)).await);
    }
}
