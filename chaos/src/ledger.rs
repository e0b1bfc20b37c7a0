//! The ledger that is printed at the end: a line a row, a column a check.

use std::{fmt::Write as _, time::Duration};

use tests::database::Database;

use crate::{
    checks::{CHECKS, Check, Fault},
    rows::Row,
};

/// What came of a row.
pub struct Entry {
    /// The row.
    pub row: Row,
    /// Where its messages were stored.
    pub database: Database,
    /// How many calls were made, and how many prompts they had.
    pub calls: (usize, usize),
    /// How many requests.
    pub requests: usize,
    /// How often the fault happened.
    pub met: Vec<(String, u64, u64)>,
    /// How long the first request after the fault took to succeed.
    pub back: Duration,
    /// What else is to be told.
    pub notes: Vec<String>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Entry {
    /// Whether anything that decides is wrong.
    pub fn has_failed(&self, times_decide: bool) -> bool {
        self.faults.iter().any(|fault| times_decide || !fault.is_time)
    }
}

/// The table and what is wrong below it.
pub fn text(entries: &[Entry], seed: u64) -> String {
    let mut text = format!("seed {seed}\n\n| row | database | calls | prompts | requests | faults | back |");
    CHECKS.iter().for_each(|check| text.push_str(&format!(" {} |", check.name())));
    text.push_str("\n|---|---|---:|---:|---:|---|---:|");
    text.push_str(&"---|".repeat(CHECKS.len()));
    for entry in entries {
        text.push_str(&line(entry));
    }
    text.push_str(&totals(entries));
    for entry in entries {
        for fault in &entry.faults {
            let time = if fault.is_time { " (a time)" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{} on {:?}: {:?}{time}: {}",
                entry.row.name(),
                entry.database,
                fault.check,
                fault.found
            );
        }
    }
    text
}

/// All rows together: what was lost and twice, of how much.
fn totals(entries: &[Entry]) -> String {
    let prompts: usize = entries.iter().map(|entry| entry.calls.1).sum();
    let requests: usize = entries.iter().map(|entry| entry.requests).sum();
    let faults: u64 = entries.iter().flat_map(|entry| &entry.met).map(|(_, met, _)| met).sum();
    let broken = |check| {
        let rows = entries.iter().filter(|entry| entry.faults.iter().any(|fault| fault.check == check));
        rows.count()
    };
    format!(
        "\n\n{} rows, {prompts} prompts in {requests} requests, {faults} faults: LOST in {} rows, TWICE in {}\n\n",
        entries.len(),
        broken(Check::Lost),
        broken(Check::Twice)
    )
}

fn line(entry: &Entry) -> String {
    let met = entry.met.iter().map(|(what, met, _)| format!("{met} {what}"));
    let met: Vec<_> = met.chain(entry.notes.iter().cloned()).collect();
    let mut line = format!(
        "\n| {} | {:?} | {} | {} | {} | {} | {:.1?} |",
        entry.row.name(),
        entry.database,
        entry.calls.0,
        entry.calls.1,
        entry.requests,
        met.join(", "),
        entry.back,
    );
    for check in CHECKS {
        let faults: Vec<_> = entry.faults.iter().filter(|fault| fault.check == check).collect();
        let mark = match faults.as_slice() {
            [] => "ok",
            faults if faults.iter().all(|fault| fault.is_time) => "late",
            _ => "**no**",
        };
        line.push_str(&format!(" {mark} |"));
    }
    line
}
