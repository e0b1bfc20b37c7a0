//! Child processes that do not outlive their test, with their output kept for when it fails.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};

/// A running server.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `folder/name.log`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("could not start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal such as `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "could not send {signal} to {}", self.name);
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub async fn ended(&mut self, within: Duration) -> Result<i32> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code().unwrap_or(-1));
            }
            ensure!(Instant::now() < until, "{} did not end within {within:?}", self.name);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// All that it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `find` finds something in what it printed.
    pub async fn printed<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = find(&self.output()) {
                return Ok(found);
            }
            let over = self.has_ended()? || Instant::now() > until;
            ensure!(!over, "{} never printed {what}:\n{}", self.name, self.output());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            eprintln!("--- the last lines of {}:", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Where the binaries of this workspace are: beside the running program, or beside the folder of the running test.
pub fn binary(name: &str) -> PathBuf {
    let running = std::env::current_exe().expect("the running program");
    let mut places = running.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    places.find(|place| place.exists()).unwrap_or_else(|| panic!("{name} is not built beside {}", running.display()))
}
