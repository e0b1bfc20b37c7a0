//! One row from its set-up to its entry in the ledger.

use std::{collections::BTreeSet, time::Duration};

use ::tests::database::Database;
use anyhow::Result;
use common::{lifecycle::Lifecycle, sabotage::Bug};
use tokio::time::{Instant, sleep};

use crate::{
    calls::{Call, Calls, MANNERS, Manner},
    checks::{Check, Evidence, Fault, faults, leaks, nonce_in},
    desk::Desk,
    drivers,
    ledger::Entry,
    rows::{Met, Place, Row, fault},
    site::{Footprint, LITTLE_PATIENCE, Site},
    store::Store,
    traffic::{Plan, Traffic},
};

/// How long the receiver of webhooks may have to wait after all else has come to rest: a delivery that a dead worker had
/// begun is tried again when its lease is over.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// So many of those who were answered ask again at the end.
const ASKED_AGAIN: usize = 10;
/// Until what was opened in the row is closed again.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);

/// One run of a row.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The row.
    pub row: Row,
    /// Where messages are stored.
    pub database: Database,
    /// What all that is random comes from.
    pub seed: u64,
    /// In full size.
    pub is_full: bool,
    /// A bug that the product has in it.
    pub bug: Option<Bug>,
}

/// Runs one row.
///
/// # Errors
/// When the product cannot be set up, or the fault cannot be made.
pub async fn run(trial: Trial) -> Result<Entry> {
    let Trial { row, database, seed, is_full, bug } = trial;
    let (plan, pace) = row.traffic(is_full);
    let at_once = plan.at_once;
    let mut settings = row.settings().to_vec();
    settings.extend(bug.map(|bug| ("PLANTED_BUG", bug.name())));
    let mut site = match row.place() {
        Place::Plain => Site::start(database, pace, &settings).await?,
        Place::WithLinks => Site::with_links(database, pace, &settings).await?,
        Place::OnASmallDisk => Site::on_a_small_disk(database, pace, &settings).await?,
    };
    if bug.is_some() {
        site.patience = LITTLE_PATIENCE;
    }
    site.receivers(row.receivers()).await;
    let tasks = Lifecycle::new();
    // Whatever is opened once and kept is open by now.
    let first = Plan { calls: 20, at_once: 20, pause: Duration::ZERO, manners: MANNERS.to_vec(), lines: 1 };
    Traffic::start(site.desk("first"), first, seed, &tasks).over().await;
    site.settle().await?;
    let before = site.footprint().await?;
    let desk = Desk { hangs_up_within: row.hangs_up_within(), preface: row.preface(), ..site.desk("call") };
    let traffic = Traffic::start(desk, plan, seed, &tasks);
    let mut met = row.torment(&mut site, &traffic, is_full).await?;
    let healed = met.healed.unwrap_or_else(|| site.calls.elapsed());
    traffic.over().await;
    if let Err(error) = site.settle().await {
        met.faults.push(fault(Check::Back, error.to_string()));
    }
    judge(row, database, &site, met, (before, at_once), healed).await
}

async fn judge(
    row: Row,
    database: Database,
    site: &Site,
    met: Met,
    (before, at_once): (Footprint, usize),
    healed: Duration,
) -> Result<Entry> {
    until_told(site).await;
    let after = until_closed(site, &before, at_once).await?;
    let (calls, store) = (site.calls.all(), site.store()?);
    let back = first_success(&calls, healed);
    let mut all = faults(&Evidence {
        calls: &calls,
        store: &store,
        received: &site.received(),
        met: &met.counts,
        footprints: [&before, &after],
        at_once,
        limit: row.longest_wait(),
        waiters: site.waiters().await,
        back: (back, row.back_within()),
    });
    all.extend(met.faults);
    all.extend(Store::broken(&site.stack.database_url)?.map(|said| fault(Check::Truth, said)));
    // Without a key, what came too late for its caller to know is not run.
    let in_doubt = calls.iter().filter(|call| call.manner == Manner::Unkeyed && !call.accepted);
    let in_doubt: BTreeSet<&str> = in_doubt.flat_map(|call| call.answers.keys()).map(String::as_str).collect();
    let failures = store.failures(|message| nonce_in(&message.prompt).is_some_and(|nonce| in_doubt.contains(nonce)));
    if !failures.is_empty() && !row.may_fail() {
        all.push(fault(Check::Lost, format!("ended without an answer: {failures:?}")));
    }
    if !row.cuts_callers_off() {
        all.extend(unanswered(&calls));
    }
    if row.spares_all() {
        all.extend(miscounted(site, &store).await);
    }
    all.extend(asked_again(site, row, &calls).await);
    all.extend(row.own_faults(site, &calls, &store));
    all.sort_by_key(|fault| fault.check);
    Ok(Entry {
        row,
        database,
        calls: (calls.len(), calls.iter().map(|call| call.answers.len()).sum()),
        requests: calls.iter().map(|call| call.asks.len()).sum(),
        met: met.counts,
        notes: met.notes,
        back,
        faults: all,
    })
}

/// How long after `healed` the first request that began then was answered well: nothing when none began, without end when
/// none was.
fn first_success(calls: &[Call], healed: Duration) -> Duration {
    let asks: Vec<_> = calls.iter().flat_map(|call| &call.asks).filter(|ask| ask.began >= healed).collect();
    if asks.is_empty() {
        return Duration::ZERO;
    }
    let good = asks.iter().filter(|ask| matches!(ask.status, Some(200 | 202)));
    good.map(|ask| ask.began + ask.took - healed).min().unwrap_or(Duration::MAX)
}

/// Requests without any answer. A stream breaks off when its worker dies, and says so in this way.
fn unanswered(calls: &[Call]) -> Vec<Fault> {
    let whole = calls.iter().filter(|call| call.manner != Manner::Stream);
    let without = whole.flat_map(|call| &call.asks).filter(|ask| ask.status.is_none()).count();
    if without == 0 { Vec::new() } else { vec![fault(Check::Code, format!("{without} requests had no answer"))] }
}

/// What gateways and workers have counted, where none of them died and nothing was in doubt: it is what is stored.
async fn miscounted(site: &Site, store: &Store) -> Vec<Fault> {
    let [accepted, finished] = site.counted().await;
    let (all, ended) = (store.messages.len(), store.ended().len());
    if (accepted, finished) == (all, ended) {
        return Vec::new();
    }
    let found = format!("{accepted} accepted and {finished} finished in the metrics, {all} and {ended} stored");
    vec![fault(Check::Truth, found)]
}

/// Some of those who were answered ask again with their keys, at every gateway: the id and the answer are the same.
async fn asked_again(site: &Site, row: Row, calls: &[Call]) -> Vec<Fault> {
    let desk = Desk { preface: row.preface(), calls: Calls::begin(), ..site.desk("again") };
    let answered =
        calls.iter().filter(|call| call.manner == Manner::Sync && call.done && call.key.starts_with("nonce-call"));
    let mut others = Vec::new();
    for call in answered.take(ASKED_AGAIN) {
        for gateway in 0..desk.urls.len() {
            let again = drivers::again(&desk, call, gateway).await;
            let before = call.ids.first().cloned().zip(call.answers.values().next().cloned().flatten());
            if again != before {
                others.push(format!("{}: {before:?}, then {again:?}", call.key));
            }
        }
    }
    match others.first() {
        None => Vec::new(),
        Some(first) => vec![fault(Check::Retry, format!("{} answers were others later, first {first}", others.len()))],
    }
}

/// Waits until the receiver has heard of every end that it was to be told of.
async fn until_told(site: &Site) {
    let until = Instant::now() + TOLD_WITHIN;
    let calls = site.calls.all();
    let wanted = calls.iter().filter(|call| call.manner == Manner::Webhook && call.done && call.is_told).count();
    while Instant::now() < until {
        let received = site.received();
        let told: BTreeSet<_> = received.iter().filter_map(|request| request.header("webhook-id")).collect();
        if told.len() >= wanted {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What is held once no more of it than before, or it has had the time.
async fn until_closed(site: &Site, before: &Footprint, at_once: usize) -> Result<Footprint> {
    let until = Instant::now() + CLOSED_WITHIN;
    loop {
        let after = site.footprint().await?;
        if leaks([before, &after], at_once).is_empty() || Instant::now() > until {
            return Ok(after);
        }
        sleep(Duration::from_millis(250)).await;
    }
}
