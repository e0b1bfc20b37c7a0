//! A nats-server of the test's own, with the configuration that is shipped.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{net::TcpStream, time::sleep};

use crate::process::Process;

/// The password of every user of a test's server.
pub const PASSWORD: &str = "for-tests";

/// The configuration that is shipped.
pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../nats.conf");

/// A running nats-server.
pub struct Nats {
    process: Process,
    setup: Setup,
    port: u16,
    monitor_port: u16,
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where it stores, and has its log.
    pub folder: PathBuf,
    /// Its configuration.
    pub configuration: PathBuf,
    /// What stands before its command, such as a program that watches it.
    pub before: Vec<String>,
}

impl Nats {
    /// Starts one on free ports with the configuration that is shipped, storing under `folder`.
    pub async fn start(folder: &Path) -> Result<Self> {
        let configuration = SHIPPED.into();
        Self::start_as(Setup { folder: folder.to_owned(), configuration, before: Vec::new() }).await
    }

    /// Starts one on free ports.
    pub async fn start_as(setup: Setup) -> Result<Self> {
        let mut nats = Self::on_free_ports(setup.clone())?;
        let mut up = nats.wait_until_up().await;
        // A port may be taken between the look and the use of it.
        for _ in 0..5 {
            if up.is_ok() {
                break;
            }
            nats = Self::on_free_ports(setup.clone())?;
            up = nats.wait_until_up().await;
        }
        up.map(|()| nats)
    }

    fn on_free_ports(setup: Setup) -> Result<Self> {
        let (port, monitor_port) = (free_port()?, free_port()?);
        let process = spawn(&setup, port, monitor_port)?;
        Ok(Self { process, setup, port, monitor_port })
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
        self.process = spawn(&self.setup, self.port, self.monitor_port)?;
        self.wait_until_up().await
    }

    async fn wait_until_up(&mut self) -> Result<()> {
        for _ in 0..1_000 {
            if self.process.has_ended()? {
                break;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("nats-server did not come up:\n{}", self.process.output())
    }
}

fn spawn(setup: &Setup, port: u16, monitor_port: u16) -> Result<Process> {
    let folder = &setup.folder;
    let words: Vec<String> = setup.before.iter().cloned().chain([binary()]).collect();
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .arg("-c")
        .arg(&setup.configuration)
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

/// A port that was free a moment ago. Not one of those that the system gives to connections and to port 0 (Linux: from
/// 32768 on), so that it is still free when a server comes back to it; each process looks in places of its own.
pub fn free_port() -> Result<u16> {
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(8);
    for _ in 0..1_000 {
        let look = begin.wrapping_add(LOOKS.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(16_000 + look % 16_000)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free")
}
