//! The ratios that tell whether the product is fast enough, each with its bar.

use crate::{
    fairness::Fair,
    nats::Durability::{Default as ServerDefault, Shipped},
    rounds::{ACCEPTING, Kept, Results, Row},
    sample::{Sample, median},
    tenants::Way,
};

/// One number of a sample.
type Field = fn(&Sample) -> Option<f64>;

const RATE: Field = |sample| Some(sample.rate);
const P50: Field = |sample| sample.p50;
const P99: Field = |sample| sample.p99;
const ANSWERED: Field = |sample| sample.answered;
const MEMORY: Field = |sample| sample.memory;
const P95: Field = |sample| sample.p95;
const SHARE: Field = |sample| sample.share;
const GROWN: Field = |sample| sample.grown;

struct Bar {
    what: String,
    /// `None` when no round has such a number, as when callers were turned away: the bar is not met.
    value: Option<f64>,
    /// Value of each round.
    rounds: Vec<f64>,
    bar: f64,
    at_least: bool,
}

/// A table of all bars whose measurements are there; empty when none is.
pub fn markdown(results: &Results) -> String {
    let bars = all(results);
    if bars.is_empty() {
        return String::new();
    }
    let lines: String = bars.iter().map(Bar::line).collect();
    format!("| bar | asked | measured | in the rounds | met |\n|---|---:|---:|---:|---|\n{lines}")
}

fn all(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (durability, bar) in [(Shipped, 0.85), (ServerDefault, 0.65)] {
        for callers in [64, 512] {
            let rows = [(Row::Product(durability, callers), RATE), (Row::Floor(durability, callers), RATE)];
            let what = format!("(4) ÷ (3), {durability}, {callers} callers");
            bars.extend(Bar::of(results, what, &rows, |v| v[0] / v[1], bar, true));
        }
    }
    for (durability, bar) in [(Shipped, 1.2), (ServerDefault, 1.4)] {
        let rows = [(Row::Product(durability, 1), P50), (Row::Floor(durability, 1), P50), (Row::Commit, P50)];
        let what = format!("(4) p50 ÷ ((3) p50 + commit), {durability}, 1 caller");
        bars.extend(Bar::of(results, what, &rows, |v| v[0] / (v[1] + v[2]), bar, false));
    }
    let rows = [(Row::Accept(Shipped, false), RATE), (Row::Publish(Shipped), RATE)];
    let what = format!("(7) accepted ÷ bare publishes, {Shipped}, {ACCEPTING} callers");
    let accepting = Bar::of(results, what, &rows, |v| v[0] / v[1], 0.7, true);
    let rows = [(Row::Streams(false), RATE), (Row::Fan, RATE)];
    let streaming = Bar::of(results, "(6) chunks ÷ bare fan-in".to_owned(), &rows, |v| v[0] / v[1], 0.5, true);
    let rows = [(Row::Readers, RATE), (Row::Streams(false), RATE)];
    let what = "(6) events to 100 readers ÷ chunks of 100 streams".to_owned();
    let reading = Bar::of(results, what, &rows, |v| v[0] / v[1], 1.0, true);
    let mut single = |row, field: Field, what: &str, bar, at_least| {
        bars.extend(Bar::of(results, what.to_owned(), &[(row, field)], |v| v[0], bar, at_least));
    };
    for durability in [Shipped, ServerDefault] {
        let row = Row::Waiting(durability, 10_000, false);
        single(row, ANSWERED, &format!("(5) answered of 10,000, {durability}"), 10_000.0, true);
        single(row, MEMORY, &format!("(5) KiB a caller of 10,000, {durability}"), 25.0, false);
        single(row, P99, &format!("(5) ms added at p99 for 10,000 within 4 s, {durability}"), 100.0, false);
    }
    let added = "(5) ms added at p99 for 2,000";
    single(Row::Waiting(Shipped, 2_000, false), P99, &format!("{added} within 4 s, {Shipped}"), 100.0, false);
    single(Row::Waiting(ServerDefault, 2_000, true), P99, &format!("{added} at once, {ServerDefault}"), 100.0, false);
    single(Row::Streams(false), RATE, "(6) chunks a second", 20_000.0, true);
    single(Row::Webhooks, P50, "(8) ms to a webhook, 10,000 others wait", 50.0, false);
    bars.extend(fairness(results));
    let rows = [(Row::Workers(4), RATE), (Row::Workers(1), RATE)];
    bars.extend(Bar::of(results, "(10) 4 workers ÷ 1, jobs that wait".to_owned(), &rows, |v| v[0] / v[1], 3.6, true));
    bars.extend(streaming);
    bars.extend(reading);
    bars.extend(accepting);
    bars.extend(batches(results));
    bars
}

/// A single account beside a backlog, ten with backlogs, and what it costs.
fn fairness(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for way in Way::ALL {
        let rows = [(Row::Fairness(Fair::Beside(way)), P95), (Row::Fairness(Fair::Alone(way)), P95)];
        let what = format!("(9) p95 beside a backlog ÷ alone, {}", way.route());
        bars.extend(Bar::of(results, what, &rows, |v| v[0] / v[1], 2.0, false));
    }
    let what = "(9) smallest ÷ largest share of ten accounts".to_owned();
    bars.extend(Bar::of(results, what, &[(Row::Fairness(Fair::Shares(10)), SHARE)], |v| v[0], 0.8, true));
    for queues in [1, 10] {
        let rows = [(Row::Fairness(Fair::Drained(queues)), RATE), (Row::Fairness(Fair::Drained(0)), RATE)];
        let what = format!("(9) drained from slot queues, {queues} of them ÷ from the front");
        bars.extend(Bar::of(results, what, &rows, |v| v[0] / v[1], 0.6, true));
    }
    bars
}

/// Batches beside the same without the product.
fn batches(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for durability in [Shipped, ServerDefault] {
        let rows = [(Row::Enqueue(durability), RATE), (Row::Pipelined(durability), RATE)];
        let what = format!("(12) enqueued ÷ bare publishes, {durability}");
        bars.extend(Bar::of(results, what, &rows, |v| v[0] / v[1], 0.8, true));
        for (kept, name) in [(Kept::Sqlite, "SQLite"), (Kept::Postgres, "PostgreSQL")] {
            let rows = [(Row::Drain(durability, kept), RATE), (Row::BareDrain(durability), RATE)];
            let what = format!("(12) drained ÷ pulled and acknowledged, {durability}, {name}");
            bars.extend(Bar::of(results, what, &rows, |v| v[0] / v[1], 0.6, true));
        }
    }
    let what = "(12) MiB more in the gateway".to_owned();
    bars.extend(Bar::of(results, what, &[(Row::Enqueue(Shipped), GROWN)], |v| v[0], 64.0, false));
    bars
}

impl Bar {
    /// `combine` of one number of each row: of their medians, and in each round. `None` when one was not measured.
    fn of(
        results: &Results,
        what: String,
        rows: &[(Row, Field)],
        combine: fn(&[f64]) -> f64,
        bar: f64,
        at_least: bool,
    ) -> Option<Self> {
        let numbers: Option<Vec<Vec<f64>>> = rows
            .iter()
            .map(|(row, field)| results.get(row).map(|samples| samples.iter().filter_map(*field).collect()))
            .collect();
        let numbers = numbers?;
        let medians: Option<Vec<f64>> = numbers.iter().map(|numbers| median(numbers.clone())).collect();
        let count = numbers.iter().map(Vec::len).min()?;
        let round = |i: usize| combine(&numbers.iter().map(|numbers| numbers[i]).collect::<Vec<_>>());
        let value = medians.map(|medians| combine(&medians));
        Some(Self { what, value, rounds: (0..count).map(round).collect(), bar, at_least })
    }

    fn is_met(&self) -> bool {
        self.value.is_some_and(|value| if self.at_least { value >= self.bar } else { value <= self.bar })
    }

    fn line(&self) -> String {
        let asked = if self.at_least { "≥" } else { "≤" };
        let rounds: Vec<String> = self.rounds.iter().map(|value| short(*value)).collect();
        let met = if self.is_met() { "yes" } else { "**no**" };
        let value = self.value.map_or_else(|| "nothing".to_owned(), short);
        format!("| {} | {asked} {} | {value} | {} | {met} |\n", self.what, self.bar, rounds.join(", "))
    }
}

/// With as many digits as matter.
fn short(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(row: Row, rates: &[f64]) -> (Row, Vec<Sample>) {
        (row, rates.iter().map(|rate| Sample { rate: *rate, ..Sample::default() }).collect())
    }

    #[test]
    fn a_bar_is_told_for_the_medians_and_for_each_round() {
        let results = Results::from([
            results(Row::Floor(Shipped, 64), &[100.0, 200.0, 100.0]),
            results(Row::Product(Shipped, 64), &[75.0, 100.0, 80.0]),
        ]);
        assert!(markdown(&results).contains("64 callers | ≥ 0.85 | 0.80 | 0.75, 0.50, 0.80 | **no** |"));
        assert_eq!(markdown(&Results::new()), "");
    }

    #[test]
    fn a_bar_without_a_number_is_not_met() {
        let row = Row::Waiting(Shipped, 10_000, false);
        let results = Results::from([(row, vec![Sample { answered: Some(9.0), ..Sample::default() }])]);
        assert!(markdown(&results).contains("| ≤ 25 | nothing |  | **no** |"));
    }
}
