//! Rows that torment workers.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use common::lifecycle::Lifecycle;
use tokio::time::sleep;

use super::{Met, fault, late};
use crate::{
    calls::{Call, Manner},
    checks::{Check, Fault},
    site::{ACK_WAIT, DEADLINE, Site},
    store::Store,
    traffic::{Plan, Traffic},
};

/// What a prompt begins with that kills whoever begins it, and the name of those who send such.
pub(super) const POISON: &str = "nonce-poison-";
/// So often is a job begun whose worker is lost.
const MAX_STARTS: usize = 5;
/// Workers that die while their heirs come.
const SPARE: u64 = 2;
const POISONERS: &str = "poison";
/// What a worker hands back is begun elsewhere within this time: sooner than the queue would give it out by itself.
const BEGUN_WITHIN: Duration = Duration::from_millis(1500);

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

/// A worker is told to stop, has to drop its jobs, and hands them back: others begin them at once.
pub(super) async fn hurried(site: &mut Site) -> Result<Met> {
    sleep(PAUSE).await;
    let before = site.model.calls();
    site.stack.add_worker().await;
    let mut worker = site.stack.workers.remove(0);
    worker.signal("TERM");
    worker.ended(Duration::from_secs(40)).await?;
    let ended = std::time::Instant::now();
    sleep(ACK_WAIT * 2).await;
    let asked: BTreeSet<_> = before.iter().map(|call| call.prompt()).collect();
    let later = site.model.calls().split_off(before.len());
    let again: Vec<_> = later.iter().filter(|call| asked.contains(call.prompt())).collect();
    let mut met = Met::at_least("jobs handed back", again.len() as u64, 1);
    let latest = again.iter().map(|call| call.at.saturating_duration_since(ended)).max().unwrap_or_default();
    if latest > BEGUN_WITHIN {
        met.faults.push(late(Check::Back, format!("what a worker handed back was begun elsewhere after {latest:.1?}")));
    }
    Ok(met)
}

/// Some prompts kill whoever begins them; each dead worker has an heir.
pub(super) async fn poisoned(site: &mut Site, traffic: &Traffic, prompts: usize) -> Result<Met> {
    let (tasks, desk) = (Lifecycle::new(), site.desk(POISONERS));
    let pause = Duration::from_millis(100);
    let plan = Plan { calls: prompts, at_once: prompts, manners: vec![Manner::Submit], lines: 0, pause };
    let poisoners = Traffic::start(desk, plan, 0, &tasks);
    let (mut killed, mut faults) = (0, Vec::new());
    while !poisoners.is_over() || !traffic.is_over() {
        for place in (0..site.stack.workers.len()).rev() {
            if site.stack.workers[place].has_ended()? {
                site.stack.workers.remove(place);
                site.stack.add_worker().await;
                killed += 1;
            }
        }
        if killed > (prompts * MAX_STARTS) as u64 + SPARE && faults.is_empty() {
            faults.push(fault(Check::Twice, format!("{killed} workers were killed by {prompts} prompts")));
            // Nothing else would end it.
            site.stack.set("POISON", "");
        }
        sleep(Duration::from_millis(20)).await;
    }
    poisoners.over().await;
    let slowest = percentile_99(&site.calls.all());
    let notes = vec![format!("the others {slowest:.1?} at p99")];
    Ok(Met { notes, faults, ..Met::at_least("workers killed", killed, prompts as u64) })
}

/// How long all but one in a hundred of those took who waited and were not poisoned.
fn percentile_99(calls: &[Call]) -> Duration {
    let others = calls.iter().filter(|call| call.manner == Manner::Sync && call.key.starts_with("nonce-call"));
    let mut times: Vec<Duration> = others.map(|call| call.asks.iter().map(|ask| ask.took).sum()).collect();
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// Whoever sent no poison has an answer.
pub(super) fn the_others_are_answered(calls: &[Call]) -> Vec<Fault> {
    let others = calls.iter().filter(|call| !call.key.starts_with(POISON));
    let without: Vec<_> = others.filter(|call| !call.done).map(|call| call.key.clone()).collect();
    if without.is_empty() {
        return Vec::new();
    }
    vec![fault(Check::Lost, format!("{} others were not answered, first {}", without.len(), without[0]))]
}

/// The fault was met when jobs were begun more than once.
pub(super) fn some_ran_again(store: &Store) -> Vec<Fault> {
    let again = store.messages.values().any(|message| message.attempts > 1);
    if again { Vec::new() } else { vec![fault(Check::Valid, "no job was begun again".to_owned())] }
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
    let others = firsts.iter().filter(|ask| ask.took.abs_diff(DEADLINE) > AROUND).count();
    if others > 0 {
        let found = format!("{others} of them not within {AROUND:?} of {DEADLINE:?}");
        faults.push(late(Check::Wait, found));
    }
    faults
}
