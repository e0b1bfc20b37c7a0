//! The one table, in Markdown.

use std::fmt::Write as _;

use crate::{
    bars,
    beside::{self, Beside},
    fairness::Fair,
    mixed,
    nats::Durability,
    rounds::{ACCEPTING, ARRIVAL, Kept, Kind, Results, Row},
    sample::Sample,
    scaling,
};

const HEAD: &str = "\
| what | NATS sync | callers | per second | p50 ms | p99 ms | errors | gateway | worker | nats-server | load | more |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|
";

/// The table and the bars below it.
pub fn markdown(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    for (row, samples) in results {
        text += &line(*row, &Sample::median(samples));
    }
    text += "\nMedians of the rounds; errors are summed up. The columns gateway to load are processor seconds for \
             10,000 calls (in (6): chunks). In (5), p50 and p99 are what was added to the 5 s.\n";
    let bars = bars::markdown(results);
    if !bars.is_empty() {
        let _ = write!(text, "\n{bars}");
    }
    text
}

fn line(row: Row, sample: &Sample) -> String {
    let (what, sync, callers) = label(row);
    let callers = callers.map_or_else(String::new, |callers| thousands(f64::from(callers)));
    let cpu: Vec<String> = sample.cpu.iter().map(|cpu| number(*cpu, 2)).collect();
    format!(
        "| {what} | {sync} | {callers} | {} | {} | {} | {} | {} | {} |\n",
        thousands(sample.rate),
        number(sample.p50, 2),
        number(sample.p99, 2),
        sample.errors,
        cpu.join(" | "),
        more(sample),
    )
}

fn label(row: Row) -> (String, String, Option<u32>) {
    let (what, sync, callers) = match row {
        Row::Echo(callers) => ("(1) bare axum echo".to_owned(), None, Some(callers)),
        Row::Job(durability, callers) => ("(2) bare job path".to_owned(), Some(durability), Some(callers)),
        Row::Commit => ("(2) bare durable commit, SQLite".to_owned(), None, Some(1)),
        Row::Floor(durability, callers) => ("(3) floor".to_owned(), Some(durability), Some(callers)),
        Row::Product(durability, callers) => ("(4) POST /api/v1/chat".to_owned(), Some(durability), Some(callers)),
        Row::Waiting(durability, callers, at_once) => {
            let how = if at_once { "at once".to_owned() } else { format!("within {} s", ARRIVAL.as_secs()) };
            (format!("(5) waiting for a 5 s job, come {how}"), Some(durability), Some(callers))
        }
        Row::Fan => ("(6) bare fan-in of the same frames, to HTTP bodies, at 1 ms".to_owned(), None, Some(100)),
        Row::Streams(false) => ("(6) chunks, each fragment by itself, model at 1 ms".to_owned(), None, Some(100)),
        Row::Readers => ("(6) events of one message to its readers, model at 1 ms".to_owned(), None, Some(100)),
        Row::Publish(durability) => ("(7) bare acknowledged publish".to_owned(), Some(durability), Some(ACCEPTING)),
        Row::Accept(durability, is_run) => {
            let how = if is_run { ", run beside" } else { "" };
            (format!("(7) POST /api/v1/messages{how}"), Some(durability), Some(ACCEPTING))
        }
        Row::Webhooks => ("(8) from a message's end to its webhook, 10,000 others wait".to_owned(), None, Some(1)),
        Row::Fairness(what) => (fairness_label(what), Some(Durability::Shipped), None),
        Row::Workers(workers) => {
            let callers = 2 * scaling::CALLERS_EACH;
            let what = format!("(10) /sleep 100ms, 2 gateways, workers of 16 slots: {workers}");
            (what, Some(Durability::Shipped), Some(callers))
        }
        Row::Beside(what) => {
            let callers =
                if matches!(what, Beside::Found(_) | Beside::Drained(_)) { None } else { Some(beside::CALLERS) };
            (beside_label(what), Some(Durability::Default), callers)
        }
        Row::Pipelined(durability) => ("(12) bare publishes, 512 under way".to_owned(), Some(durability), None),
        Row::Enqueue(durability) => ("(12) POST /api/v1/batches, 50,000 lines".to_owned(), Some(durability), None),
        Row::BareDrain(durability) => ("(12) 50,000 jobs pulled and acknowledged".to_owned(), Some(durability), None),
        Row::Drain(durability, kept) => {
            let kept = if kept == Kept::Sqlite { "SQLite" } else { "PostgreSQL" };
            (format!("(12) a batch of 50,000 lines run by one worker, {kept}"), Some(durability), None)
        }
        Row::Mixed(kind) => {
            let what = match kind {
                Kind::Call => "calls",
                Kind::Stream => "streams of 40 fragments at 5 ms",
                Kind::Submission => "submissions by webhook",
            };
            (format!("(13) all at once, beside a batch: {what}"), Some(Durability::Shipped), Some(mixed::CALLERS))
        }
        Row::Streams(true) => ("(6) chunks, gathered for 20 ms, model at 5 ms".to_owned(), None, Some(100)),
    };
    (what, sync.map_or_else(String::new, |durability| durability.to_string()), callers)
}

fn fairness_label(what: Fair) -> String {
    match what {
        Fair::Alone(way) => format!("(9) a prompt of 50 ms, one after the other, {}: alone", way.route()),
        Fair::Beside(way) => {
            format!("(9) the same, {}: beside another account's 10,000 there", way.route())
        }
        Fair::Shares(1) => "(9) 10,000 jobs of 50 ms of one account".to_owned(),
        Fair::Shares(accounts) => {
            let accounts = thousands(f64::from(accounts));
            format!("(9) the same of {accounts} accounts, enqueued one account after the other")
        }
        Fair::Drained(0) => "(9) 20,000 jobs pulled and acknowledged: in front".to_owned(),
        Fair::Drained(queues) => format!("(9) the same: in slot queues, {queues} of them"),
    }
}

fn beside_label(what: Beside) -> String {
    let count = |count: u32| thousands(f64::from(count));
    match what {
        Beside::Pending(jobs) => format!("(11) calls, jobs pending: {}", count(jobs)),
        Beside::Found(jobs) => format!("(11) a job found and taken back, jobs pending: {}", count(jobs)),
        Beside::Drained(jobs) => format!("(11) jobs run, pending: {}", count(jobs)),
        Beside::Finished(messages) => format!("(11) calls, messages finished: {}", count(messages)),
        Beside::Forgotten(messages) => format!("(11) calls, messages being forgotten: {}", count(messages)),
        Beside::Waiters(callers) => format!("(11) calls, other callers waiting: {}", count(callers)),
    }
}

fn more(sample: &Sample) -> String {
    let mut parts = Vec::new();
    if let Some(answered) = sample.answered {
        parts.push(format!("{} answered", thousands(answered)));
    }
    if let Some(memory) = sample.memory {
        parts.push(format!("{memory:.1} KiB a caller in the gateway"));
    }
    if let Some(fragments) = sample.fragments {
        parts.push(format!("{} fragments/s from the model", thousands(fragments)));
    }
    if let Some(grown) = sample.grown {
        parts.push(format!("{grown:.0} MiB more in the gateway"));
    }
    if let Some(p95) = sample.p95 {
        parts.push(format!("p95 {p95:.1} ms"));
    }
    if let Some(share) = sample.share {
        parts.push(format!("smallest ÷ largest share {share:.2}"));
    }
    if let Some(forgotten) = sample.forgotten {
        parts.push(format!("{} messages/s forgotten", thousands(forgotten)));
    }
    parts.join(", ")
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

/// A whole number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!(["7", "999", "1,000", "12,345,678"], [7.2, 999.4, 999.6, 12_345_678.0].map(thousands));
    }

    #[test]
    fn every_line_has_as_many_columns_as_the_head() {
        let columns = |line: &str| line.matches('|').count();
        let head = columns(HEAD.lines().next().expect("a head"));
        for row in [
            Row::Echo(1),
            Row::Commit,
            Row::Waiting(Durability::Default, 2_000, true),
            Row::Streams(false),
            Row::Accept(Durability::Default, true),
            Row::Webhooks,
            Row::Drain(Durability::Default, Kept::Postgres),
            Row::Mixed(Kind::Stream),
            Row::Fairness(Fair::Shares(10)),
            Row::Workers(4),
            Row::Beside(Beside::Forgotten(1_000_000)),
        ] {
            let line = line(row, &Sample { answered: Some(3.0), memory: Some(1.0), ..Sample::default() });
            assert_eq!(columns(&line), head, "{line}");
        }
    }
}
