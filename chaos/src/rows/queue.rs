//! Rows that torment nats-server.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{Met, fault};
use crate::{
    checks::{Check, Fault},
    site::Site,
};

/// Between two deaths.
const PAUSE: Duration = Duration::from_millis(2500);
/// How long it stands still.
const STILL: Duration = Duration::from_secs(6);
/// The gateway knows within this time.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// It dies, and is started again at once.
pub(super) async fn killed(site: &mut Site, times: usize) -> Result<Met> {
    for _ in 0..times {
        sleep(PAUSE).await;
        site.stack.nats.restart().await?;
    }
    Ok(Met::times("deaths of nats-server", times))
}

/// It stands still: connections look open, and nothing comes.
pub(super) async fn frozen(site: &mut Site) -> Result<Met> {
    sleep(PAUSE).await;
    site.stack.nats.process().signal("STOP");
    let began = Instant::now();
    let known = site.stack.until_status("/readyz", 503, STILL).await;
    let took = began.elapsed();
    sleep(STILL.saturating_sub(took)).await;
    site.stack.nats.process().signal("CONT");
    let mut met = Met::times("stand-stills of nats-server", 1);
    match known {
        Err(error) => met.faults.push(fault(Check::Back, error.to_string())),
        Ok(_) if took > KNOWN_WITHIN => {
            let found = format!("/readyz said so after {took:.1?}");
            met.faults.push(Fault { check: Check::Back, found, is_time: true });
        }
        Ok(_) => {}
    }
    Ok(met)
}
