//! The processes that the bench starts, and ends again by their handles alone.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child as Process, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

use crate::procfs;

/// How long a server may take to come up.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server. It is killed when this is dropped.
pub struct Child {
    name: String,
    process: Process,
    log: PathBuf,
}

impl Child {
    /// Starts `command` with its output in `folder/name.log`.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("could not start {name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), process, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The processor time that it has used so far.
    pub fn cpu(&self) -> Result<Duration> {
        procfs::cpu(self.id())
    }

    /// Its resident memory in KiB.
    pub fn resident(&self) -> Result<u64> {
        procfs::resident(self.id())
    }

    /// Waits until `is_up` says so; fails with the end of its log when it ends before, or takes too long.
    pub async fn until_up(&mut self, mut is_up: impl AsyncFnMut() -> bool) -> Result<()> {
        let until = Instant::now() + START_LIMIT;
        while !is_up().await {
            if self.process.try_wait()?.is_some() || Instant::now() > until {
                bail!("{} did not come up:\n{}", self.name, self.last_words());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let output = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = output.lines().count().saturating_sub(20);
        output.lines().skip(from).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address on the loopback that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Another program of this build: it lies beside this one.
pub fn beside(name: &str) -> Result<Command> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is not built: run `make bench`", path.display());
    let mut command = Command::new(path);
    command.env_clear();
    Ok(command)
}
