//! Torments the product and says what held: `make chaos`.

mod calls;
mod checks;
mod desk;
mod disk;
mod drivers;
mod ledger;
mod links;
mod options;
mod planted;
mod proxy;
mod rows;
mod run;
mod site;
mod store;
mod traffic;

use std::time::Instant;

use anyhow::{Result, ensure};

use self::{options::Options, rows::Row, run::Trial};

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    if options.lists {
        Row::ALL.iter().for_each(|row| println!("{:<18} {}", row.name(), row.what()));
        return Ok(());
    }
    if !options.planted.is_empty() {
        return planted::check(&options.planted, options.seed).await;
    }
    let (began, mut seed) = (Instant::now(), options.seed);
    loop {
        all(&options, seed).await?;
        if options.soak.is_none_or(|soak| began.elapsed() > soak) {
            return Ok(());
        }
        seed += 1;
    }
}

/// Runs all rows once, and prints the ledger.
async fn all(options: &Options, seed: u64) -> Result<()> {
    let mut entries = Vec::new();
    for (number, row) in options.rows.iter().copied().enumerate() {
        let databases = options.databases_of(row, number);
        if databases.is_empty() {
            eprintln!("{}: left out, it cannot be run here", row.name());
        }
        for database in databases {
            eprintln!("{}: {} ({database:?})", row.name(), row.what());
            let entry = run::run(Trial { row, database, seed, is_full: options.is_full, bug: None }).await?;
            for fault in &entry.faults {
                eprintln!("  {:?}: {}", fault.check, fault.found);
            }
            entries.push(entry);
        }
    }
    println!("{}", ledger::text(&entries, seed));
    let failed: Vec<_> = entries.iter().filter(|entry| entry.has_failed(options.is_full)).collect();
    let names: Vec<_> = failed.iter().map(|entry| entry.row.name()).collect();
    ensure!(failed.is_empty(), "failed with seed {seed}: {}", names.join(", "));
    Ok(())
}
