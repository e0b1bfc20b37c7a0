//! Rows that torment the database.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::env;
use tests::stack::Stack;
use tokio::{process::Command, time::sleep};

use super::{Met, fault};
use crate::{
    checks::{Check, Fault},
    site::Site,
    store::Store,
};

/// Between two faults.
const PAUSE: Duration = Duration::from_millis(1500);
/// Between two deaths of those who write to one file.
const SHORT_PAUSE: Duration = Duration::from_millis(400);
/// The command that stops and starts the PostgreSQL of the rows, but for its last word.
const CONTROL: &str = "CHAOS_POSTGRES_CONTROL";
/// What SQLite says to who waited in vain for another one's write.
const LOCKED: &str = "database is locked";

/// PostgreSQL dies and is there again `times` times, then is away for `seconds`.
pub(super) async fn postgres_restarted(times: usize, seconds: usize) -> Result<Met> {
    for _ in 0..times {
        sleep(PAUSE).await;
        postgres("stop").await?;
        postgres("start").await?;
    }
    sleep(PAUSE).await;
    postgres("stop").await?;
    sleep(Duration::from_secs(seconds as u64)).await;
    postgres("start").await?;
    Ok(Met::times("deaths of PostgreSQL", times + 1))
}

async fn postgres(verb: &str) -> Result<()> {
    let control = env::text(CONTROL).with_context(|| format!("{CONTROL} is not set: run `make chaos`"))?;
    let mut words = control.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    let status = command.args(words).arg(verb).status().await.with_context(|| format!("{CONTROL}: {control}"))?;
    ensure!(status.success(), "{control} {verb}: {status}");
    Ok(())
}

/// One of five processes that write to the same file dies, whatever it is doing, and has an heir at once.
pub(super) async fn sqlite_killed(site: &mut Site, times: usize) -> Result<Met> {
    let mut met = Met::times("writers killed", times);
    for time in 0..times {
        sleep(SHORT_PAUSE).await;
        if time % 3 == 2 {
            let gateway = time % site.stack.gateways.len();
            met.faults.extend(locked(&site.stack.gateways[gateway].process.output()));
            site.stack.restart_gateway(gateway).await;
        } else {
            let mut worker = site.stack.workers.remove(0);
            worker.kill();
            met.faults.extend(locked(&worker.output()));
            site.stack.add_worker().await;
        }
        let broken = Store::broken(&site.stack.database_url)?;
        met.faults.extend(broken.map(|said| fault(Check::Truth, said)));
    }
    Ok(met)
}

/// Nobody waited in vain for somebody else's write.
pub(super) fn nothing_was_locked(stack: &Stack) -> Vec<Fault> {
    locked(&stack.logs())
}

fn locked(log: &str) -> Vec<Fault> {
    match log.matches(LOCKED).count() {
        0 => Vec::new(),
        times => vec![fault(Check::Truth, format!("a write waited in vain {times} times"))],
    }
}
