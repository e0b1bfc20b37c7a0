//! Whether NATS writes to disk before it acknowledges, as it is started: asked of it, seen on it, and told by us.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use common::{
    domain::job::Lane,
    queue::{
        config::QueueRole,
        durability::{Durability, effective},
    },
};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    database::Database,
    nats::{Nats, SHIPPED, Setup},
    patience::until,
    queue::{Queue, job, publish},
    stack::Stack,
};

/// What the shipped configuration says about it.
const LINE: &str = "sync_interval: always";

/// The shipped configuration with `line` for that.
fn configuration(folder: &TempDir, line: &str) -> PathBuf {
    let shipped = fs::read_to_string(SHIPPED).expect("the shipped configuration");
    assert_eq!(shipped.matches(LINE).count(), 1, "{SHIPPED}");
    let file = folder.path().join("nats.conf");
    fs::write(&file, shipped.replace(LINE, line)).expect("a file");
    file
}

#[tokio::test]
async fn the_shipped_server_writes_before_it_acknowledges_and_others_are_told_from_it() {
    for (line, known, level, words) in [
        (LINE, Durability::Always, "INFO", "NATS writes to disk before it acknowledges"),
        ("", Durability::Interval(Duration::from_secs(120)), "WARN", "a power cut loses what it accepted since"),
        ("sync_interval: 10s", Durability::Interval(Duration::from_secs(10)), "WARN", "a power cut loses"),
    ] {
        let folder = TempDir::new().expect("a folder");
        let file = configuration(&folder, line);
        let stack = Stack::on(Database::Sqlite).workers(0).nats_configuration(&file).start().await;
        assert_eq!(effective(Some(&stack.nats.monitor_url())).await, known, "{line:?}");
        until("the gateway says so", async || said(&stack.logs(), level, words).then_some(())).await;
        let is_durable = known == Durability::Always;
        assert_eq!(said(&stack.logs(), "INFO", "NATS writes to disk before it acknowledges"), is_durable, "{line:?}");
    }
    println!("durability: `{LINE}` is in effect as shipped, 2 other settings are warned of");
}

/// Whether a line of the log has this level and says these words.
fn said(log: &str, level: &str, words: &str) -> bool {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lines = lines.filter(|line| line["level"] == level);
    lines.any(|line| line["fields"]["message"].as_str().is_some_and(|message| message.contains(words)))
}

/// Counts the system's calls, where they can be watched; elsewhere the server's word has to do.
#[tokio::test]
async fn each_acknowledged_job_is_behind_a_write_to_the_disk() {
    const JOBS: usize = 50;
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        println!("durability: calls of the system cannot be watched here (no strace); not counted");
        return;
    }
    let mut counts = Vec::new();
    for line in [LINE, ""] {
        let folder = TempDir::new().expect("a folder");
        let calls = folder.path().join("calls");
        let log = calls.to_string_lossy().into_owned();
        // It watches from aside (-D), so that the server is still our child.
        let before = ["strace", "-D", "-f", "-q", "-e", "trace=fsync,fdatasync", "-o", &log].map(str::to_owned);
        let configuration = configuration(&folder, line);
        let setup = Setup { folder: folder.path().to_owned(), configuration, before: before.to_vec() };
        let queue = Queue::on(Nats::start_as(setup).await.expect("a server"), folder).await;
        let gateway = queue.connect(QueueRole::Gateway).await;
        publish(&gateway, &job(Lane::Background)).await;
        let count = || fs::read_to_string(&calls).unwrap_or_default().matches("sync(").count();
        let before = count();
        for _ in 0..JOBS {
            publish(&gateway, &job(Lane::Background)).await;
        }
        // The watcher may be a line behind.
        let is_written = async || (count() - before >= JOBS).then_some(());
        if line == LINE {
            until("each job is written", is_written).await;
        }
        counts.push(count() - before);
    }
    println!("durability: {JOBS} jobs caused {} writes to the disk as shipped, {} by default", counts[0], counts[1]);
    assert!(counts[1] < JOBS, "the count says nothing: {counts:?}");
}
