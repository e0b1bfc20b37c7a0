//! A person at a terminal with a folder of files, a key and `gateway batch`.

use std::{path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    patience::until,
    process::{Process, binary},
    stack::Ran,
};

/// Longer than any command takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Somebody who calls a running Frontdesk.
pub struct Client {
    folder: TempDir,
    logs: TempDir,
    url: String,
    key: String,
}

impl Client {
    /// Somebody who calls `url` with `key`.
    pub fn of(url: &str, key: &str) -> Self {
        let folder = || TempDir::new().expect("a folder");
        Self { folder: folder(), logs: folder(), url: url.to_owned(), key: key.to_owned() }
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    /// What a file holds; nothing when it is not there.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The whole lines of a file, as JSON.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = self.read(name);
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))).collect()
    }

    /// The custom_ids in a file, in their order there.
    pub fn custom_ids(&self, name: &str) -> Vec<String> {
        let id = |line: &Value| line["custom_id"].as_str().expect("a custom_id").to_owned();
        self.lines(name).iter().map(id).collect()
    }

    /// The names of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Waits until a file has `count` whole lines.
    pub async fn until_lines(&self, name: &str, count: usize) {
        until(&format!("{name} has {count} lines"), async || (self.lines(name).len() >= count).then_some(())).await;
    }

    /// `gateway batch` with these arguments, in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("gateway"));
        command.arg("batch").args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("FRONTDESK_URL", &self.url).env("FRONTDESK_KEY", &self.key);
        command
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.finish(self.command(arguments)).await
    }

    /// The same with changes to its environment or input.
    pub async fn finish(&self, command: Command) -> Ran {
        let mut command = tokio::process::Command::from(command);
        let out = timeout(PATIENCE, command.kill_on_drop(true).output()).await.expect("an end in time");
        let out = out.expect("the gateway's binary");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: out.status.code().unwrap_or(-1), stdout: text(&out.stdout), stderr: text(&out.stderr) }
    }

    /// Starts it, to be killed or interrupted.
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start("batch", self.command(arguments), self.logs.path()).expect("the gateway's binary")
    }
}
