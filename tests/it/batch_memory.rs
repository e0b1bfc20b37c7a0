//! The largest batch that there may be costs a gateway little memory.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures_util::stream;
use reqwest::Body;
use tests::{
    answer::Answer,
    batch::{accepted, body, counts, line, submission},
    database::Database,
    stack::Stack,
};
use tokio::time::sleep;

const BYTES: usize = 200_000_000;
/// What it may cost, in KiB.
const MOST_KIB: u64 = 64 * 1024;

/// What a process has in memory now, in KiB.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Lines of `length` bytes each, one of them after the other, and `last`.
fn lines(agent: &str, count: usize, length: usize, last: &'static str) -> Body {
    let agent = agent.to_owned();
    let all = (1..=count).map(move |n| {
        let id = format!("line-{n}");
        let bare = line(&id, &agent, "").len() + 1;
        line(&id, &agent, &"x".repeat(length - bare)) + "\n"
    });
    Body::wrap_stream(stream::iter(all.chain([last.to_owned()]).map(Ok::<_, Infallible>)))
}

/// Sends `body`; the answer, and the most that the gateway had in memory meanwhile.
async fn submitted(stack: &Stack, body: Body) -> (Answer, u64) {
    let id = stack.gateways[0].process.id();
    let mut answer = pin!(Answer::to(submission(stack, 0, body)));
    let mut most = 0;
    loop {
        tokio::select! {
            answer = &mut answer => return (answer, most),
            () = sleep(Duration::from_millis(10)) => most = most.max(resident(id)),
        }
    }
}

#[tokio::test]
async fn the_largest_batches_cost_a_gateway_less_than_64_mib() {
    let settings = Stack::on(Database::Sqlite).workers(0).set("FRONTDESK_BODY_TIMEOUT", "5m");
    let stack = settings.start().await;
    accepted(&stack, body(&stack.agent, 100)).await;
    let idle = resident(stack.gateways[0].process.id());
    let cost = |most: u64| {
        let cost = most.saturating_sub(idle);
        eprintln!("{cost} KiB above {idle} KiB");
        assert!(cost < MOST_KIB, "{cost} KiB above {idle} KiB");
    };
    // As many lines as there may be, and as many bytes; the last line is bad, so that this takes only as long as judging.
    let (answer, most) = submitted(&stack, lines(&stack.agent, 49_999, BYTES / 50_000, "no")).await;
    assert_eq!(answer.fault(422, "invalid_lines")["invalid_lines"][0]["line"], 50_000);
    cost(most);
    // As many bytes in lines that are as long as they may be, all the way onto the queue.
    let (answer, most) = submitted(&stack, lines(&stack.agent, BYTES / 65_000, 65_000, "")).await;
    assert_eq!(answer.status, 202, "{answer}");
    assert_eq!(counts(&answer.json())[0], (BYTES / 65_000) as u64);
    cost(most);
}
