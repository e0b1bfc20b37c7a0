//! Death at a chosen place: before and after each step that lasts, in the build that can be told to die there.

use std::time::Duration;

use anyhow::Result;
use common::sabotage::Point;
use tokio::time::{Instant, sleep};

use super::{Met, fault};
use crate::{
    checks::{Check, Fault},
    site::Site,
    traffic::Traffic,
};

/// The place at which the next process dies.
const CRASH_AT: &str = "CRASH_AT";
/// Whoever is to die has to come there within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// So often are jobs orphaned, for who has to find one.
const ORPHANED_EVERY: Duration = Duration::from_secs(1);

/// At each place of a worker `times` of them die.
pub(super) async fn of_workers(site: &mut Site, traffic: &Traffic, times: usize) -> Result<Met> {
    // Those who are to die have more to do.
    let workers = site.stack.workers.len();
    site.stack.workers.truncate(1);
    let mut deaths = Deaths::default();
    for (point, time) in places(true, times) {
        site.stack.set(CRASH_AT, format!("{}:{}", point.name(), 1 + time % 3));
        deaths.note(point, worker_dies(site, point).await?);
    }
    traffic.enough();
    while site.stack.workers.len() < workers {
        site.stack.add_worker().await;
    }
    Ok(deaths.met())
}

/// At each place of a gateway one of them dies `times` times.
pub(super) async fn of_a_gateway(site: &mut Site, traffic: &Traffic, times: usize) -> Result<Met> {
    let mut deaths = Deaths::default();
    for (point, time) in places(false, times) {
        site.stack.set(CRASH_AT, format!("{}:{}", point.name(), 1 + time % 3));
        deaths.note(point, gateway_dies(site).await?);
    }
    traffic.enough();
    site.stack.restart_gateway(0).await;
    Ok(deaths.met())
}

/// Each place so often, with which time it is.
fn places(in_worker: bool, times: usize) -> impl Iterator<Item = (Point, usize)> {
    let points = Point::ALL.iter().copied().filter(move |point| is_in_worker(*point) == in_worker);
    points.flat_map(move |point| (0..times).map(move |time| (point, time)))
}

/// Who died, and where nobody came.
#[derive(Default)]
struct Deaths {
    died: u64,
    wanted: u64,
    faults: Vec<Fault>,
}

impl Deaths {
    fn note(&mut self, point: Point, has_died: bool) {
        self.wanted += 1;
        self.died += u64::from(has_died);
        if !has_died {
            self.faults.push(fault(Check::Valid, format!("nobody came to {}", point.name())));
        }
    }

    fn met(self) -> Met {
        Met { faults: self.faults, ..Met::at_least("deaths at chosen places", self.died, self.wanted) }
    }
}

fn is_in_worker(point: Point) -> bool {
    use Point::{AfterAck, AfterCommit, AfterPost, AfterStart, BeforeAck, BeforeCommit, BeforePost, BeforeStart};
    matches!(
        point,
        BeforeStart | AfterStart | BeforeCommit | AfterCommit | BeforeAck | AfterAck | BeforePost | AfterPost
    )
}

async fn worker_dies(site: &mut Site, point: Point) -> Result<bool> {
    site.stack.add_worker().await;
    site.stack.set(CRASH_AT, "");
    let (until, mut orphaned) = (Instant::now() + PATIENCE, Instant::now());
    while Instant::now() < until {
        let doomed = site.stack.workers.last_mut();
        if doomed.is_none_or(|doomed| doomed.has_ended().unwrap_or(true)) {
            site.stack.workers.pop();
            return Ok(true);
        }
        // A start is counted when a job comes back, and that takes one whose worker has died.
        if point == Point::BeforeStart && orphaned.elapsed() > ORPHANED_EVERY {
            site.stack.workers.remove(0).kill();
            site.stack.add_worker().await;
            let other = site.stack.workers.len() - 1;
            site.stack.workers.swap(0, other);
            orphaned = Instant::now();
        }
        sleep(Duration::from_millis(10)).await;
    }
    site.stack.workers.pop();
    Ok(false)
}

async fn gateway_dies(site: &mut Site) -> Result<bool> {
    site.stack.restart_gateway(0).await;
    site.stack.set(CRASH_AT, "");
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if site.stack.gateways[0].process.has_ended()? {
            return Ok(true);
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}
