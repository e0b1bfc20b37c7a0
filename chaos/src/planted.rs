//! The check of the checks: each bug is planted, and its row has to find it.

use ::tests::database::Database;
use anyhow::{Result, ensure};
use common::sabotage::{self, Bug};

use crate::{
    checks::{Check, Fault},
    rows::Row,
    run::{self, Trial},
};

/// A bug that takes a coincidence to do harm gets so many runs.
const RUNS: u64 = 3;

/// Where a bug has to be found, and by which rules.
fn place(bug: Bug) -> (Row, &'static [Check]) {
    match bug {
        Bug::AckBeforeCommit => (Row::CrashRun, &[Check::Lost, Check::Back, Check::Truth]),
        Bug::NoHeartbeat => (Row::LongJobs, &[Check::Twice]),
        Bug::NoFence => (Row::WorkerFrozen, &[Check::Twice]),
        Bug::ReplyBeforeCommit => (Row::CrashRun, &[Check::Right]),
        Bug::NoMessageId => (Row::AcksLate, &[Check::Twice]),
        Bug::NoReread => (Row::LinksOneWay, &[Check::Wait]),
        Bug::LeakedWaiter => (Row::CallersGone, &[Check::Wait]),
        Bug::RedirectFollowed => (Row::ReceiversFail, &[Check::Right]),
        Bug::CacheKept => (Row::KeysRevoked, &[Check::Code]),
        Bug::LeftMostHop => (Row::AddressesForged, &[Check::Code]),
        Bug::NakForgotten => (Row::WorkerHurried, &[Check::Back]),
        Bug::OldDelta => (Row::StreamsCut, &[Check::Right]),
        Bug::EndlessStarts => (Row::Poisoned, &[Check::Lost, Check::Back, Check::Twice]),
        Bug::KeyForgotten => (Row::GatewayKilled, &[Check::Twice, Check::Retry]),
        Bug::NewWebhookId => (Row::ReceiversFail, &[Check::Twice]),
        Bug::AcceptedUnpublished => (Row::LinksOneWay, &[Check::Lost, Check::Back, Check::Truth]),
        Bug::WaitersDropped => (Row::GatewayStopped, &[Check::Lost]),
        Bug::LineCountedTwice => (Row::EnvelopesAgain, &[Check::Twice, Check::Truth]),
    }
}

/// Plants each of `bugs`, runs its row, and prints what found it.
///
/// # Errors
/// When a bug was not found, or this build has none.
pub async fn check(bugs: &[Bug], seed: u64) -> Result<()> {
    ensure!(sabotage::IS_BUILT_IN, "no bug can be planted in this build: it takes the feature `sabotage`");
    println!("| bug | row | runs | found by | what |\n|---|---|---:|---|---|");
    let mut missed = Vec::new();
    for bug in bugs {
        if !is_found(*bug, seed).await? {
            missed.push(bug.name());
        }
    }
    ensure!(missed.is_empty(), "not found with seed {seed}: {}", missed.join(", "));
    println!("\n{} bugs planted, {} found", bugs.len(), bugs.len());
    Ok(())
}

async fn is_found(bug: Bug, seed: u64) -> Result<bool> {
    let (row, checks) = place(bug);
    for time in 0..RUNS {
        eprintln!("{}: {}", bug.name(), row.name());
        let trial = Trial { row, database: Database::Sqlite, seed: seed + time, is_full: false, bug: Some(bug) };
        let entry = run::run(trial).await?;
        if let Some(Fault { check, found, .. }) = entry.faults.iter().find(|fault| checks.contains(&fault.check)) {
            println!("| {} | {} | {} | {} | {found} |", bug.name(), row.name(), time + 1, check.name());
            return Ok(true);
        }
        let others: Vec<_> =
            entry.faults.iter().map(|fault| format!("{}: {}", fault.check.name(), fault.found)).collect();
        eprintln!("  not found in {} requests; {}", entry.requests, others.join("; "));
    }
    println!("| {} | {} | {RUNS} | **nothing** | |", bug.name(), row.name());
    Ok(false)
}
