//! The largest batch that there may be costs a gateway little memory.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::stream;
use reqwest::Body;
use tests::{
    answer::Answer,
    batch::{accepted, body, counts, line, submission},
    database::Database,
    stack::Stack,
};
use tokio::time::sleep;

const LINES: usize = 50_000;
const BYTES: usize = 200_000_000;
/// What it may cost, in KiB.
const MOST_KIB: u64 = 64 * 1024;

/// What a process has in memory now, in KiB.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The largest batch: as many lines as there may be, and as many bytes together.
fn largest(agent: &str) -> Body {
    let agent = agent.to_owned();
    let of = move |n: usize, length: usize| {
        let id = format!("line-{n}");
        let bare = line(&id, &agent, "").len() + 1;
        line(&id, &agent, &"x".repeat(length - bare)) + "\n"
    };
    let lines = (1..=LINES).map(move |n| Ok::<_, Infallible>(of(n, BYTES / LINES)));
    Body::wrap_stream(stream::iter(lines))
}

#[tokio::test]
async fn the_largest_batch_costs_a_gateway_less_than_64_mib() {
    let stack = Stack::on(Database::Sqlite).workers(0).start().await;
    accepted(&stack, body(&stack.agent, 100)).await;
    let id = stack.gateways[0].process.id();
    let idle = resident(id);
    let (most, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watch = {
        let (most, is_over) = (most.clone(), is_over.clone());
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(resident(id), Ordering::Relaxed);
                sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let answer = Answer::to(submission(&stack, 0, largest(&stack.agent))).await;
    is_over.store(true, Ordering::Relaxed);
    watch.await.expect("the watch");
    assert_eq!(answer.status, 202, "{answer}");
    assert_eq!(counts(&answer.json())[0], LINES as u64);
    let grown = most.load(Ordering::Relaxed).saturating_sub(idle);
    eprintln!("the gateway grew from {idle} KiB by {grown} KiB");
    assert!(grown < MOST_KIB, "from {idle} KiB by {grown} KiB");
}
