//! The gateway process: serves the HTTP API, or runs one of the commands of operators and callers.

mod allocator;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use common::{lifecycle::Lifecycle, telemetry};
use gateway::{
    admin, batch_command,
    cli::{Cli, Command},
    config::Config,
    server::Server,
};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cli = Cli::from_arguments();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let json = cli.json;
    match cli.into_command() {
        Command::Serve => serve().await.map(|()| ExitCode::SUCCESS),
        Command::Admin(command) => Ok(admin::run::run(command, json).await),
        Command::Batch(command) => Ok(batch_command::run::run(command, json).await),
    }
}

async fn serve() -> Result<()> {
    let _last_lines = telemetry::init_from_environment()?;
    let config = Config::from_environment()?;
    let lifecycle = Lifecycle::new();
    lifecycle.listen_for_signals().context("could not listen for signals")?;
    Server::build(config, lifecycle).await?.run_until_stopped().await
}
