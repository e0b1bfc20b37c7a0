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
/// So often is a job begun that never comes to an end.
const MAX_STARTS: u32 = 5;
/// How long nobody is poisoned.
const UNDISTURBED: Duration = Duration::from_secs(3);
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

/// Some callers send what no worker survives the run of, while others go on.
pub(super) async fn poisoned(site: &mut Site, traffic: &Traffic, prompts: usize) -> Result<Met> {
    sleep(UNDISTURBED).await;
    let poisoned_at = site.calls.elapsed();
    let (tasks, desk) = (Lifecycle::new(), site.desk(POISONERS));
    let pause = Duration::from_millis(100);
    let plan = Plan { calls: prompts, at_once: prompts, manners: vec![Manner::Submit], lines: 0, pause };
    Traffic::start(desk, plan, 0, &tasks).over().await;
    traffic.ended().await;
    let calls = site.calls.all();
    let [before, after] =
        [false, true].map(|is_after| percentile_99(&calls, |began| (began > poisoned_at) == is_after));
    let mut met = Met::times("prompts were poison", prompts);
    met.notes.push(format!("the others {before:.1?} at p99, then {after:.1?}"));
    if after > before * 2 {
        met.faults.push(late(Check::Wait, format!("the others took {before:.1?} at p99, then {after:.1?}")));
    }
    Ok(met)
}

/// How long all but one in a hundred of those took who waited, were not poisoned, and began when `is_meant`.
fn percentile_99(calls: &[Call], is_meant: impl Fn(Duration) -> bool) -> Duration {
    let others = calls.iter().filter(|call| call.manner == Manner::Sync && call.key.starts_with("nonce-call"));
    let asks = others.flat_map(|call| &call.asks).filter(|ask| is_meant(ask.began));
    let mut times: Vec<Duration> = asks.map(|ask| ask.took).collect();
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// Whoever sent no poison has an answer; and poison was begun as often as it may be, and failed.
pub(super) fn only_poison_failed(calls: &[Call], store: &Store) -> Vec<Fault> {
    let poison = store.messages.values().filter(|message| message.prompt.contains(POISON));
    let otherwise =
        poison.filter(|message| (message.failure.as_str(), message.attempts) != ("worker_lost", MAX_STARTS));
    if let Some(message) = otherwise.into_iter().next() {
        return vec![fault(Check::Twice, format!("poison was begun {} times: {}", message.attempts, message.failure))];
    }
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
