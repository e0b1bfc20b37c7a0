//! Measures Frontdesk beside what it stands on, and prints one table; also the floor's two processes and the echo.

mod bare;
mod bars;
mod batches;
mod beside;
mod children;
mod commit;
mod echo;
mod fairness;
mod fan;
mod floor;
mod http;
mod load;
mod mixed;
mod nats;
mod options;
mod payload;
mod postgres;
mod procfs;
mod publish;
mod readers;
mod request;
mod rounds;
mod sample;
mod scaling;
mod sites;
mod stock;
mod streams;
mod table;
mod tenants;
mod waiting;
mod webhooks;
mod window;

use std::{net::SocketAddr, process::Command};

use anyhow::{Context as _, Result, ensure};
use common::lifecycle::Lifecycle;
use tempfile::TempDir;

use crate::{options::Options, rounds::Results};

/// What 10,000 callers and some more need.
const OPEN_FILES: u64 = 12_000;

#[tokio::main]
async fn main() -> Result<()> {
    let lifecycle = Lifecycle::new();
    let mut arguments = std::env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        Some("--help" | "-h") => {
            println!("{}", options::USAGE);
            Ok(())
        }
        Some("echo") => echo::serve(address(arguments.nth(1))?).await,
        Some("floor-gateway") => floor::gateway(address(arguments.nth(1))?, &lifecycle).await,
        Some("fan-gateway") => fan::gateway(address(arguments.nth(1))?, &lifecycle).await,
        Some("fan-worker") => fan::worker(&lifecycle).await,
        Some("floor-worker") => floor::worker(&lifecycle).await,
        _ => {
            let options = Options::read(arguments)?;
            lifecycle.listen_for_signals()?;
            tokio::select! {
                done = measure(&options) => done,
                // What was started is ended, and what was stored removed, by the drop of the other branch.
                () = lifecycle.stopping() => Ok(()),
            }
        }
    }
}

fn address(argument: Option<String>) -> Result<SocketAddr> {
    Ok(argument.context("an address to listen on is missing")?.parse()?)
}

async fn measure(options: &Options) -> Result<()> {
    let most = procfs::open_files()?;
    ensure!(
        ![5, 8, 11].iter().any(|part| options.has(*part)) || most >= OPEN_FILES,
        "{most} open files are too few: `ulimit -n {OPEN_FILES}`"
    );
    // Beside the program, and not in /tmp: that may be memory, where nothing is durable.
    let root = TempDir::new_in(std::env::current_exe()?.with_file_name(""))?;
    let about = about(options, &root)?;
    let mut results = Results::new();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        rounds::run(root.path(), options, &mut results).await?;
    }
    let text = format!("{about}\n\n{}", table::markdown(&results));
    println!("{text}");
    options.out.as_ref().map_or(Ok(()), |path| std::fs::write(path, text).with_context(|| path.display().to_string()))
}

/// The machine, the versions and how it was measured.
fn about(options: &Options, root: &TempDir) -> Result<String> {
    let machine = procfs::machine(root.path());
    let (nats, rustc) = (nats::version()?, version("rustc", "--version"));
    let (rounds, seconds) = (options.rounds, options.measure.as_secs_f64());
    let product = env!("CARGO_PKG_VERSION");
    Ok(format!(
        "{machine}; Frontdesk {product}, {nats}, {rustc}; {rounds} interleaved rounds of {seconds} s each, everything \
         and the load on this machine."
    ))
}

fn version(program: &str, argument: &str) -> String {
    let out = Command::new(program).arg(argument).output();
    let out = out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    out.unwrap_or_else(|_| format!("unknown {program}"))
}
