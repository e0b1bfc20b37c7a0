//! Texts that nobody else sends, and waiting for what comes about by itself.

use std::time::Duration;

use common::domain::ids::MessageId;
use tokio::time::{Instant, sleep};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A prompt that no other test, and no other call of this one, has: its echo is the answer to it and to no other.
pub fn nonce() -> String {
    format!("nonce {}", MessageId::new())
}

/// Asks again and again until there is what `what` says.
///
/// # Panics
/// When there still is not after a minute.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "in vain waited until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
