//! A nats-server of the test's own, with the configuration that is shipped.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{net::TcpStream, time::sleep};

use crate::process::Process;

/// The password of every user of a test's server.
pub const PASSWORD: &str = "for-tests";

/// A running nats-server.
pub struct Nats {
    process: Process,
    folder: std::path::PathBuf,
    port: u16,
    monitor_port: u16,
}

impl Nats {
    /// Starts one on free ports, storing under `folder`.
    pub async fn start(folder: &Path) -> Result<Self> {
        let (port, monitor_port) = (free_port()?, free_port()?);
        let process = spawn(folder, port, monitor_port)?;
        let nats = Self { process, folder: folder.to_owned(), port, monitor_port };
        nats.wait_until_up().await?;
        Ok(nats)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it can be monitored.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// Its process, to be stopped and signalled.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again on the same ports and files after it was killed.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = spawn(&self.folder, self.port, self.monitor_port)?;
        self.wait_until_up().await
    }

    async fn wait_until_up(&self) -> Result<()> {
        for _ in 0..1_000 {
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("nats-server did not come up:\n{}", self.process.output())
    }
}

fn spawn(folder: &Path, port: u16, monitor_port: u16) -> Result<Process> {
    let mut command = Command::new(binary());
    command
        .args(["-c", concat!(env!("CARGO_MANIFEST_DIR"), "/../nats.conf")])
        .env("NATS_HOST", "127.0.0.1")
        .env("NATS_PORT", port.to_string())
        .env("NATS_MONITOR_PORT", monitor_port.to_string())
        .env("NATS_STORE_DIR", format!("\"{}\"", folder.join("jetstream").display()));
    for user in ["ADMIN", "GATEWAY", "WORKER", "SYS"] {
        command.env(format!("NATS_{user}_PASSWORD"), PASSWORD);
    }
    Process::start("nats-server", command, folder).context("NATS_SERVER or PATH has to have a nats-server")
}

fn binary() -> String {
    common::env::text("NATS_SERVER").unwrap_or_else(|| "nats-server".to_owned())
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}
