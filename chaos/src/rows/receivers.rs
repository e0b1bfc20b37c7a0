//! The row in which receivers of webhooks misbehave.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use common::lifecycle::Lifecycle;
use tests::{model::Gate, sink::Reply};
use tokio::time::{Instant, sleep};

use super::{Met, fault};
use crate::{
    calls::Manner,
    checks::{Check, Fault},
    desk::Desk,
    site::{CALLBACK, Site},
    traffic::{Plan, Traffic},
};

/// Where a receiver sends us instead, in vain.
const ELSEWHERE: &str = "/elsewhere";
/// How often a receiver fails in each way.
const EACH: usize = 3;
/// What failed is tried again within this time: 20 s are given to one that says nothing, then a pause of 5 s is made.
const TRIED_AGAIN: Duration = Duration::from_secs(60);
/// How long a slow receiver takes for its first answers.
const SLOW: Duration = Duration::from_secs(5);

/// How many receivers there are: one that fails, one that is slow, one that is silent at first, and one that is gone.
const COUNT: usize = 4;
const FAILING: usize = 0;
const SLOW_ONE: usize = 1;
const SILENT: usize = 2;
const GONE: usize = 3;

/// Receivers fail in each way, and then take what comes; but for one, which says that it is gone.
pub(super) async fn fail(site: &mut Site, traffic: &Traffic) -> Result<Met> {
    // The others are not for the callers who are there already.
    site.receivers(COUNT).await;
    let failing = &site.sinks[FAILING];
    let moved = Reply::Status(301, vec![("location", failing.url(ELSEWHERE))]);
    let ways = [Reply::status(500), moved, Reply::status(503), Reply::Cut];
    for reply in ways.iter().cycle().take(ways.len() * EACH) {
        failing.script(CALLBACK, reply.clone());
    }
    let gate = Gate::closed();
    for _ in 0..EACH {
        site.sinks[SLOW_ONE].script(CALLBACK, Reply::Held(gate.clone()));
    }
    // Once is 20 s, and one that failed twice is left alone for minutes.
    site.sinks[SILENT].script(CALLBACK, Reply::Silence);
    site.sinks[GONE].always(CALLBACK, Reply::status(410));
    let tasks = Lifecycle::new();
    let others: Vec<_> = [(SLOW_ONE, "slow"), (SILENT, "silent"), (GONE, "gone")]
        .map(|(place, name)| Traffic::start(desk(site, place, name), plan(), 0, &tasks))
        .into();
    sleep(SLOW).await;
    gate.open();
    traffic.ended().await;
    for other in others {
        other.over().await;
    }
    let until = Instant::now() + TRIED_AGAIN;
    while Instant::now() < until && (again(site, SILENT) == 0 || again(site, FAILING) < 4 * EACH) {
        sleep(Duration::from_millis(250)).await;
    }
    Ok(Met::times("failures of receivers", (ways.len() + 2) * EACH + 1))
}

fn plan() -> Plan {
    Plan { calls: EACH, at_once: EACH, manners: vec![Manner::Webhook], lines: 0, pause: Duration::from_millis(100) }
}

fn desk(site: &Site, place: usize, name: &str) -> Desk {
    Desk { callbacks: vec![site.sinks[place].url(CALLBACK)], is_told: place != GONE, ..site.desk(name) }
}

/// What a receiver did not take was sent again, and only to it; but not to one that is gone.
pub(super) fn told_again(site: &Site) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (place, least) in [(FAILING, 4 * EACH), (SILENT, 1)] {
        let again = again(site, place);
        if again < least {
            faults.push(fault(Check::Valid, format!("{again} deliveries were tried again by receiver {place}")));
        }
    }
    if again(site, GONE) > 0 || site.sinks[GONE].received(CALLBACK).is_empty() {
        faults.push(fault(Check::Twice, "a receiver that is gone was not told once".to_owned()));
    }
    if !site.sinks[FAILING].received(ELSEWHERE).is_empty() {
        faults.push(fault(Check::Right, "a redirect was followed".to_owned()));
    }
    faults
}

/// How many requests told a receiver of what it had been told before.
fn again(site: &Site, place: usize) -> usize {
    let received = site.sinks[place].received(CALLBACK);
    let deliveries: BTreeSet<_> = received.iter().filter_map(|request| request.header("webhook-id")).collect();
    received.len() - deliveries.len()
}
