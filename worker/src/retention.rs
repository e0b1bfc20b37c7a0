//! Forgets finished messages once they are as old as the operator wants, and is in nobody's way.

use std::time::Duration;

use common::{
    domain::time::Millis,
    lifecycle::Lifecycle,
    store::{connection::Store, error::StoreError},
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// How often a worker looks; also the pause before its first look, in which jobs come back that a stopped pool had
/// stored and not acknowledged.
const EVERY: Duration = Duration::from_mins(1);
/// How long the deletions of one step are to take: whoever writes meanwhile waits for them.
const STEP: Duration = Duration::from_millis(5);
/// Between two steps, this many times as long as the last one took is everybody else's.
const SHARE_OF_OTHERS: u32 = 4;
const FEWEST: u64 = 8;
const MOST: u64 = 512;

/// Looks from time to time until the lifecycle says stop. Workers that do so at once do not disturb each other.
pub async fn run(store: Store, life: Duration, lifecycle: Lifecycle) {
    loop {
        tokio::select! {
            () = lifecycle.stopping() => return,
            () = sleep(EVERY) => {}
        }
        tokio::select! {
            () = lifecycle.stopping() => return,
            forgotten = forget(&store, Millis::now().minus(life)) => match forgotten {
                Ok(0) => {}
                Ok(messages) => info!(messages, "forgot old messages"),
                Err(error) => warn!(%error, "could not forget old messages"),
            }
        }
    }
}

/// Forgets what ended before `before`, in steps of a few milliseconds with pauses between them; how many messages
/// those were.
pub async fn forget(store: &Store, before: Millis) -> Result<u64, StoreError> {
    let (mut most, mut after, mut messages) = (FEWEST, None, 0);
    loop {
        let begun = Instant::now();
        let Some((last, step)) = store.forget_messages(before, after, most).await? else { break };
        after = Some(last);
        messages += step.messages;
        sleep(begun.elapsed() * SHARE_OF_OTHERS).await;
        most = next_step(most, step.took);
    }
    loop {
        let begun = Instant::now();
        let Some(step) = store.forget_lines(before, most).await? else { return Ok(messages) };
        messages += step.messages;
        sleep(begun.elapsed() * SHARE_OF_OTHERS).await;
        most = next_step(most, step.took);
    }
}

/// How many messages the next step is for, after one whose deletions took so long: answers may be of a few bytes or of megabytes,
/// and the database idle or busy.
fn next_step(most: u64, took: Duration) -> u64 {
    let next = if took > STEP { most / 2 } else { most * 2 };
    next.clamp(FEWEST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_while_they_are_short_and_shrink_when_they_are_not() {
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(20));
        assert_eq!(next_step(100, short), 200);
        assert_eq!(next_step(100, long), 50);
        assert_eq!((next_step(MOST, short), next_step(FEWEST, long)), (MOST, FEWEST));
    }
}
