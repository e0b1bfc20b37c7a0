//! Rows that torment workers.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::{Met, fault};
use crate::{
    calls::{Call, Manner},
    checks::{Check, Fault},
    site::{ACK_WAIT, DEADLINE, Site},
    store::Store,
};

/// So far from the deadline a 504 may come.
const AROUND: Duration = Duration::from_millis(500);
/// Between two faults.
const PAUSE: Duration = Duration::from_millis(1500);

/// One after the other dies; each has an heir at once.
pub(super) async fn killed(site: &mut Site, times: usize) -> Result<Met> {
    for _ in 0..times {
        sleep(PAUSE).await;
        site.stack.workers.remove(0).kill();
        site.stack.add_worker().await;
    }
    Ok(Met::times("workers killed", times))
}

/// All die at once.
pub(super) async fn all_killed(site: &mut Site, times: usize) -> Result<Met> {
    let workers = site.stack.workers.len();
    for _ in 0..times {
        sleep(PAUSE).await;
        site.stack.kill_workers();
        for _ in 0..workers {
            site.stack.add_worker().await;
        }
    }
    Ok(Met::times("workers killed", times * workers))
}

/// One stands still until the queue has given its jobs to others.
pub(super) async fn frozen(site: &mut Site, times: usize) -> Result<Met> {
    for time in 0..times {
        sleep(PAUSE).await;
        let worker = &site.stack.workers[time % site.stack.workers.len()];
        worker.signal("STOP");
        sleep(ACK_WAIT + ACK_WAIT / 2).await;
        worker.signal("CONT");
    }
    Ok(Met::times("workers frozen", times))
}

/// One after the other is told to stop, and ends by itself; its heir is there before.
pub(super) async fn stopped(site: &mut Site, times: usize) -> Result<Met> {
    let mut met = Met::times("workers stopped", times);
    for _ in 0..times {
        sleep(PAUSE).await;
        site.stack.add_worker().await;
        let mut worker = site.stack.workers.remove(0);
        worker.signal("TERM");
        if worker.ended(Duration::from_secs(40)).await.ok() != Some(0) {
            met.faults.push(fault(Check::Valid, "a worker did not end by itself".to_owned()));
        }
    }
    Ok(met)
}

/// The fault was met when jobs were begun more than once.
pub(super) fn some_ran_again(store: &Store) -> Vec<Fault> {
    match ran_again(store) {
        0 => vec![fault(Check::Valid, "no job was begun again".to_owned())],
        _ => Vec::new(),
    }
}

/// A job that says that it is alive is handed out once.
pub(super) fn none_ran_again(store: &Store) -> Vec<Fault> {
    match ran_again(store) {
        0 => Vec::new(),
        again => vec![fault(Check::Twice, format!("{again} jobs were begun again"))],
    }
}

/// Whoever waits for what takes longer than the deadline is told so then.
pub(super) fn told_at_the_deadline(calls: &[Call]) -> Vec<Fault> {
    let slow = calls.iter().filter(|call| call.manner == Manner::Sync && call.key.starts_with("nonce-call"));
    let firsts: Vec<_> = slow.filter_map(|call| call.asks.first()).collect();
    let mut faults = Vec::new();
    let otherwise = firsts.iter().filter(|ask| ask.status != Some(504)).count();
    if otherwise > 0 {
        faults.push(fault(Check::Code, format!("{otherwise} calls were not answered 504 first")));
    }
    let late = firsts.iter().filter(|ask| ask.took.abs_diff(DEADLINE) > AROUND).count();
    if late > 0 {
        let found = format!("{late} of them not within {AROUND:?} of {DEADLINE:?}");
        faults.push(Fault { is_time: true, ..fault(Check::Wait, found) });
    }
    faults
}

fn ran_again(store: &Store) -> usize {
    store.messages.values().filter(|message| message.attempts > 1).count()
}
