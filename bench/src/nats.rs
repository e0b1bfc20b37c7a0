//! A nats-server of the bench's own: with the configuration that is shipped, or with the server's own durability.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use common::{
    env,
    queue::{
        config::{QueueConfig, QueueRole, StreamLimits},
        connection::Connection,
        streams,
    },
};
use tokio::net::TcpStream;

use crate::children::{Child, free_address};

/// The password of every user.
const PASSWORD: &str = "for-the-bench";
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../nats.conf");

/// When what is acknowledged is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// `nats.conf` as it is: before the acknowledgement.
    Shipped,
    /// `nats.conf` without its `sync_interval`: within the server's default of two minutes.
    Default,
}

impl Durability {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Shipped, Self::Default];
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shipped => "shipped",
            Self::Default => "default",
        })
    }
}

/// A running nats-server.
pub struct Nats {
    /// Its process.
    pub process: Child,
    address: SocketAddr,
    monitor: SocketAddr,
}

impl Nats {
    /// Starts one on free ports with its data in `folder`.
    ///
    /// # Errors
    /// When there is none (`NATS_SERVER`, `PATH`), or it does not come up.
    pub async fn start(durability: Durability, folder: &Path) -> Result<Self> {
        let (address, monitor) = (free_address()?, free_address()?);
        let mut command = Command::new(binary());
        command
            .arg("-c")
            .arg(configuration(durability, folder)?)
            .env("NATS_HOST", address.ip().to_string())
            .env("NATS_PORT", address.port().to_string())
            .env("NATS_MONITOR_PORT", monitor.port().to_string())
            .env("NATS_STORE_DIR", format!("\"{}\"", folder.join("jetstream").display()));
        for user in ["ADMIN", "GATEWAY", "WORKER", "SYS"] {
            command.env(format!("NATS_{user}_PASSWORD"), PASSWORD);
        }
        let mut process = Child::start("nats-server", command, folder)?;
        process.until_up(async || TcpStream::connect(address).await.is_ok()).await?;
        Ok(Self { process, address, monitor })
    }

    /// Starts one and makes the product's streams.
    ///
    /// # Errors
    /// As [`Nats::start`], or when the server refuses the streams.
    pub async fn with_streams(durability: Durability, folder: &Path) -> Result<Self> {
        let nats = Self::start(durability, folder).await?;
        let connection = Connection::open(&nats.config(QueueRole::Admin)).await?;
        ensure!(connection.wait_until_up(std::time::Duration::from_secs(5)).await, "no connection to nats-server");
        streams::migrate(&connection, &StreamLimits::from_environment()?).await?;
        Ok(nats)
    }

    /// How `role` connects.
    pub fn config(&self, role: QueueRole) -> QueueConfig {
        let credentials = Some((user(role).to_owned(), PASSWORD.to_owned()));
        QueueConfig { url: self.url(), credentials, role, monitor_url: None }
    }

    /// Gives a child all that it needs to connect as `role`.
    pub fn give(&self, role: QueueRole, command: &mut Command) {
        command
            .env("NATS_URL", self.url())
            .env("NATS_MONITOR_URL", format!("http://{}", self.monitor))
            .env("NATS_USER", user(role))
            .env("NATS_PASSWORD", PASSWORD);
    }

    fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

/// What `nats-server --version` says.
pub fn version() -> Result<String> {
    let out = Command::new(binary()).arg("--version").output();
    let out = out.context("NATS_SERVER or PATH has to have a nats-server")?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().replace(": ", " "))
}

fn binary() -> String {
    env::text("NATS_SERVER").unwrap_or_else(|| "nats-server".to_owned())
}

fn user(role: QueueRole) -> &'static str {
    match role {
        QueueRole::Admin => "admin",
        QueueRole::Gateway => "gateway",
        QueueRole::Worker => "worker",
    }
}

/// The file to start with: the shipped one, or the same without the one line that says when to write through.
fn configuration(durability: Durability, folder: &Path) -> Result<PathBuf> {
    if durability == Durability::Shipped {
        return Ok(SHIPPED.into());
    }
    let shipped = fs::read_to_string(SHIPPED).context("nats.conf")?;
    let (dropped, kept): (Vec<_>, Vec<_>) =
        shipped.lines().partition(|line| line.trim_start().starts_with("sync_interval"));
    ensure!(dropped.len() == 1, "nats.conf has {} lines with sync_interval", dropped.len());
    let path = folder.join("nats.conf");
    fs::write(&path, kept.join("\n") + "\n")?;
    Ok(path)
}
