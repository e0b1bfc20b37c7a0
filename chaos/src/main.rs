//! Torments the product and says what held: `make chaos`.

mod calls;
mod checks;
mod desk;
mod drivers;
mod ledger;
mod links;
mod options;
mod proxy;
mod rows;
mod site;
mod store;
mod traffic;

use anyhow::{Result, ensure};

use self::{options::Options, rows::Row};

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    if options.lists {
        Row::ALL.iter().for_each(|row| println!("{:<18} {}", row.name(), row.what()));
        return Ok(());
    }
    let mut entries = Vec::new();
    for (number, row) in options.rows.iter().enumerate() {
        for database in options.databases_of(*row, number) {
            eprintln!("{}: {} ({database:?})", row.name(), row.what());
            let entry = rows::run(*row, database, options.seed, options.is_full).await?;
            for fault in &entry.faults {
                eprintln!("  {:?}: {}", fault.check, fault.found);
            }
            entries.push(entry);
        }
    }
    println!("{}", ledger::text(&entries, options.seed));
    let failed: Vec<_> = entries.iter().filter(|entry| entry.has_failed(options.is_full)).collect();
    let names: Vec<_> = failed.iter().map(|entry| entry.row.name()).collect();
    ensure!(failed.is_empty(), "failed with seed {}: {}", options.seed, names.join(", "));
    Ok(())
}
