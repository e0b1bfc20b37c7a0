//! Rows that torment what is between the parts.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

use super::{Met, fault, late};
use crate::{
    calls::Call,
    checks::{Check, Fault},
    links::Links,
    proxy::Mode,
    site::Site,
    traffic::Traffic,
};

/// Between two cuts of all links.
const PAUSE: Duration = Duration::from_millis(800);
/// How long a route is gone.
const GONE: Duration = Duration::from_secs(10);
/// How long each kind of slowness lasts.
const SLOW: Duration = Duration::from_secs(4);
/// How long one direction is gone.
const HOLE: Duration = Duration::from_secs(2);
/// For longer than one try of a publish takes: half of its budget of 2 s.
const HELD_BACK: Duration = Duration::from_millis(1500);
/// How late bytes come.
const LATE: Duration = Duration::from_millis(100);
/// How many a second.
const RATE: u32 = 400;
/// The gateway knows within this time.
const KNOWN_WITHIN: Duration = Duration::from_secs(12);

/// Every connection of each link is cut by an RST, one link after the other.
pub(super) async fn reset(site: &Site, times: usize) -> Result<Met> {
    let mut cut: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..times {
        for (name, proxy) in links(site)?.all() {
            sleep(PAUSE / 5).await;
            *cut.entry(name).or_default() += proxy.reset() as u64;
        }
        sleep(PAUSE).await;
    }
    let counts = cut.into_iter().map(|(name, cut)| (format!("cuts {name}"), cut, times as u64));
    Ok(Met { counts: counts.collect(), ..Met::default() })
}

/// The route between gateways and queue is gone, then the one between workers and queue.
pub(super) async fn half_open(site: &Site) -> Result<Met> {
    sleep(PAUSE).await;
    let mut met = Met::times("routes gone", 2);
    links(site)?.gateways.set(Mode::BlackHole { up: true, down: true });
    let began = Instant::now();
    let known = site.stack.until_status("/readyz", 503, KNOWN_WITHIN).await;
    let took = began.elapsed();
    sleep(GONE.saturating_sub(took)).await;
    links(site)?.gateways.set(Mode::Pass);
    match known {
        Ok(_) => {}
        Err(error) => met.faults.push(late(Check::Back, error.to_string())),
    }
    site.stack.until_status("/readyz", 200, KNOWN_WITHIN).await?;
    links(site)?.workers.set(Mode::BlackHole { up: true, down: true });
    sleep(GONE).await;
    links(site)?.workers.set(Mode::Pass);
    Ok(met)
}

/// What nats-server says to gateways is lost for a while, with all the answers in it; then what they say to it, and what
/// workers do.
pub(super) async fn one_way(site: &Site) -> Result<Met> {
    let links = links(site)?;
    for (proxy, mode) in [
        (&links.gateways, Mode::BlackHole { up: false, down: true }),
        (&links.gateways, Mode::BlackHole { up: true, down: false }),
        (&links.workers, Mode::BlackHole { up: true, down: false }),
    ] {
        sleep(PAUSE).await;
        proxy.set(mode);
        sleep(HOLE).await;
        // What was kept is lost with its connection.
        proxy.reset();
        proxy.set(Mode::Pass);
    }
    Ok(Met::times("ways gone", 3))
}

/// Nobody was told that it takes longer: an answer whose reply is lost is looked for where it is stored.
pub(super) fn nobody_timed_out(calls: &[Call]) -> Vec<Fault> {
    let late = calls.iter().flat_map(|call| &call.asks).filter(|ask| ask.status == Some(504)).count();
    if late == 0 { Vec::new() } else { vec![fault(Check::Wait, format!("{late} requests were told to wait longer"))] }
}

/// What nats-server says to gateways is held back again and again, for longer than one try of a publish takes.
pub(super) async fn acks_late(site: &Site, traffic: &Traffic) -> Result<Met> {
    let (gateways, mut times) = (&links(site)?.gateways, 0);
    while !traffic.is_over() {
        gateways.set(Mode::BlackHole { up: false, down: true });
        sleep(HELD_BACK).await;
        gateways.set(Mode::Pass);
        sleep(PAUSE).await;
        times += 1;
    }
    Ok(Met::at_least("acknowledgements held back", times, 2))
}

/// Bytes of all links come in small pieces, then late, then, to callers, a few a second.
pub(super) async fn slow(site: &Site) -> Result<Met> {
    let links = links(site)?;
    for mode in [Mode::Slice(7), Mode::Delay(LATE)] {
        links.all().iter().for_each(|(_, proxy)| proxy.set(mode));
        sleep(SLOW).await;
    }
    links.all().iter().for_each(|(_, proxy)| proxy.set(Mode::Pass));
    links.callers.iter().for_each(|proxy| proxy.set(Mode::Throttle(RATE)));
    sleep(SLOW).await;
    links.callers.iter().for_each(|proxy| proxy.set(Mode::Pass));
    Ok(Met::times("kinds of slowness", 3))
}

/// The route to the database is gone for `seconds`, on connections that look open; then these are cut.
pub(super) async fn database_gone(site: &Site, seconds: usize) -> Result<Met> {
    let database = links(site)?.database.as_ref().context("there is no server of a database")?;
    sleep(PAUSE).await;
    database.set(Mode::BlackHole { up: true, down: true });
    sleep(Duration::from_secs(seconds as u64)).await;
    let cut = database.reset();
    database.set(Mode::Pass);
    Ok(Met::at_least("connections to the database gone", cut as u64, 1))
}

fn links(site: &Site) -> Result<&Links> {
    site.links.as_ref().context("no links were laid")
}
