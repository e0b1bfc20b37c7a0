//! Rows that torment gateways.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{Met, fault};
use crate::{
    calls::Call,
    checks::{Check, Fault},
    site::Site,
    traffic::Traffic,
};

/// All callers are there within this time.
const GATHERED_WITHIN: Duration = Duration::from_secs(20);

/// It dies while callers wait, and comes back on its address later.
pub(super) async fn killed(site: &mut Site, gathered: u64) -> Result<Met> {
    let waiting = until_gathered(site, gathered).await;
    site.stack.gateways[0].process.kill();
    sleep(Duration::from_secs(1)).await;
    site.stack.restart_gateway(0).await;
    Ok(Met::at_least("callers cut off", waiting, 10))
}

/// It is told to stop while callers wait, answers them all, and comes back.
pub(super) async fn stopped(site: &mut Site, traffic: &Traffic, gathered: u64) -> Result<Met> {
    let waiting = until_gathered(site, gathered).await;
    let told = site.calls.elapsed();
    site.stack.gateways[0].process.signal("TERM");
    let ended = site.stack.gateways[0].process.ended(Duration::from_secs(60)).await;
    let mut met = Met::at_least("callers waiting", waiting, 10);
    if ended.ok() != Some(0) {
        met.faults.push(fault(Check::Valid, "the gateway did not end by itself".to_owned()));
    }
    site.stack.restart_gateway(0).await;
    met.healed = Some(site.calls.elapsed());
    // Who was cut off is noted when they have come to their end elsewhere.
    traffic.ended().await;
    met.faults.extend(cut_off(&site.calls.all(), told));
    Ok(met)
}

/// Whoever waited when the gateway was told has the answer.
fn cut_off(calls: &[Call], told: Duration) -> Vec<Fault> {
    let asks = calls.iter().flat_map(|call| call.asks.iter().map(move |ask| (call, ask)));
    // What is sent at the very moment may find the door closing.
    let earlier = asks.filter(|(_, ask)| ask.began + Duration::from_millis(250) < told);
    let open = earlier.filter(|(_, ask)| ask.began + ask.took > told);
    let cut: Vec<_> = open
        .filter(|(_, ask)| ask.status != Some(200))
        .map(|(call, ask)| format!("{}: {:?} {:?} after {:.1?}", call.key, ask.status, ask.code, ask.took))
        .collect();
    if cut.is_empty() {
        Vec::new()
    } else {
        vec![fault(Check::Lost, format!("{} calls were not answered, first {}", cut.len(), cut[0]))]
    }
}

/// Waits until so many callers wait at the first gateway, and no more come; gives how many.
async fn until_gathered(site: &Site, gathered: u64) -> u64 {
    let (until, mut most) = (Instant::now() + GATHERED_WITHIN, 0);
    while Instant::now() < until {
        let url = &site.stack.gateways[0].metrics_url;
        let waiting = tests::stack::metric(site.stack.client(), url, "frontdesk_waiters").await as u64;
        // No more come: those who are there are all.
        if waiting <= most && most >= gathered {
            return most;
        }
        most = most.max(waiting);
        sleep(Duration::from_millis(100)).await;
    }
    most
}

/// However often a caller asked, the model was asked once.
pub(super) fn each_ran_once(site: &Site, calls: &[Call]) -> Vec<Fault> {
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for call in site.model.calls() {
        *asked.entry(call.prompt().to_owned()).or_default() += 1;
    }
    let nonces = calls.iter().flat_map(|call| call.answers.keys());
    let otherwise: Vec<_> = nonces.filter(|nonce| asked.get(*nonce).copied() != Some(1)).collect();
    if otherwise.is_empty() {
        return Vec::new();
    }
    vec![fault(Check::Twice, format!("{} prompts did not reach the model once: {:?}", otherwise.len(), otherwise[0]))]
}

/// It dies again and again while batches come in.
pub(super) async fn killed_in_batches(site: &mut Site, times: usize) -> Result<Met> {
    for _ in 0..times {
        sleep(Duration::from_millis(300)).await;
        site.stack.restart_gateway(0).await;
    }
    Ok(Met::times("gateways killed", times))
}

/// The fault was met when requests had no answer.
pub(super) fn some_were_cut_off(calls: &[Call]) -> Vec<Fault> {
    let cut = calls.iter().flat_map(|call| &call.asks).filter(|ask| ask.status.is_none()).count();
    if cut > 0 { Vec::new() } else { vec![fault(Check::Valid, "no request was cut off".to_owned())] }
}

/// Every gateway and every worker is told to stop, ends by itself, and is there again, one after the other.
pub(super) async fn all_restarted(site: &mut Site) -> Result<Met> {
    let (gateways, workers) = (site.stack.gateways.len(), site.stack.workers.len());
    for gateway in 0..gateways {
        site.stack.gateways[gateway].process.signal("TERM");
        site.stack.gateways[gateway].process.ended(Duration::from_secs(60)).await?;
        site.stack.restart_gateway(gateway).await;
        // As who restarts one after the other does.
        until_ready(site, gateway).await;
        sleep(Duration::from_secs(1)).await;
    }
    for _ in 0..workers {
        site.stack.add_worker().await;
        let mut worker = site.stack.workers.remove(0);
        worker.signal("TERM");
        worker.ended(Duration::from_secs(60)).await?;
    }
    Ok(Met::times("processes restarted", gateways + workers))
}

async fn until_ready(site: &Site, gateway: usize) {
    let until = Instant::now() + GATHERED_WITHIN;
    let url = format!("{}/readyz", site.stack.gateways[gateway].url);
    while Instant::now() < until {
        let answer = site.stack.client().get(&url).send().await;
        if answer.is_ok_and(|answer| answer.status() == 200) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Nobody had to try twice.
pub(super) fn one_retry_was_enough(calls: &[Call]) -> Vec<Fault> {
    let is_failure = |status: &Option<u16>| !matches!(status, Some(200 | 202));
    let statuses = |call: &Call| call.asks.iter().map(|ask| ask.status).collect::<Vec<_>>();
    let failed = calls.iter().filter(|call| statuses(call).iter().filter(|status| is_failure(status)).count() > 1);
    let failed: Vec<_> = failed.map(|call| format!("{} ({}): {:?}", call.key, call.manner, statuses(call))).collect();
    if failed.is_empty() {
        return Vec::new();
    }
    vec![fault(Check::Back, format!("{} calls failed more than once, first {}", failed.len(), failed[0]))]
}
