//! What one measurement found, and the medians of several.

use std::time::Duration;

/// One measurement. What does not apply to it is `None`.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Calls (or commits, or chunks) a second.
    pub rate: f64,
    /// The median time of a call in milliseconds; for callers that wait, what was added to the wait.
    pub p50: Option<f64>,
    /// The same for the slowest in twenty.
    pub p95: Option<f64>,
    /// The same for the slowest in a hundred.
    pub p99: Option<f64>,
    /// Calls that had no answer, or not their own.
    pub errors: u64,
    /// Processor seconds for 10,000 calls: of the gateway, the worker, nats-server and the callers.
    pub cpu: [Option<f64>; 4],
    /// How many were answered, of a fixed number.
    pub answered: Option<f64>,
    /// Growth of the gateway's resident memory in KiB for each caller.
    pub memory: Option<f64>,
    /// Fragments that the model made in a second.
    pub fragments: Option<f64>,
    /// Growth of the gateway's resident memory in MiB, over all.
    pub grown: Option<f64>,
    /// Old messages that were forgotten in a second.
    pub forgotten: Option<f64>,
    /// The smallest share of an account as a part of the largest.
    pub share: Option<f64>,
}

impl Sample {
    /// The median of each number; errors are added up.
    pub fn median(samples: &[Self]) -> Self {
        let of = |field: &dyn Fn(&Self) -> Option<f64>| median(samples.iter().filter_map(field).collect());
        Self {
            rate: of(&|sample| Some(sample.rate)).unwrap_or_default(),
            p50: of(&|sample| sample.p50),
            p95: of(&|sample| sample.p95),
            p99: of(&|sample| sample.p99),
            errors: samples.iter().map(|sample| sample.errors).sum(),
            cpu: std::array::from_fn(|process| of(&|sample| sample.cpu[process])),
            answered: of(&|sample| sample.answered),
            memory: of(&|sample| sample.memory),
            fragments: of(&|sample| sample.fragments),
            grown: of(&|sample| sample.grown),
            forgotten: of(&|sample| sample.forgotten),
            share: of(&|sample| sample.share),
        }
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let upper = *numbers.get(numbers.len() / 2)?;
    let lower = numbers[(numbers.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// How long calls took, in microseconds.
#[derive(Debug, Default)]
pub struct Times(Vec<u32>);

impl Times {
    /// Takes one more.
    pub fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes all of another.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The median and the 99th percentile in milliseconds; `None` when there are none.
    pub fn p50_and_p99(self) -> Option<(f64, f64)> {
        let [p50, p99] = self.at([50, 99]);
        p50.zip(p99)
    }

    /// These percentiles in milliseconds; `None` when there are no times.
    pub fn at<const N: usize>(mut self, percents: [usize; N]) -> [Option<f64>; N] {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1);
        percents.map(|percent| last.map(|last| f64::from(self.0[last * percent / 100]) / 1_000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_number_by_number() {
        let sample = |rate, p50, errors| Sample { rate, p50, errors, ..Sample::default() };
        let median = Sample::median(&[sample(3.0, Some(1.0), 1), sample(1.0, None, 0), sample(2.0, Some(2.0), 1)]);
        assert_eq!((median.rate, median.p50, median.errors), (2.0, Some(1.5), 2));
        assert_eq!(median.p99, None);
    }

    #[test]
    fn percentiles_are_those_of_all_times() {
        let mut times = Times::default();
        (0..=100).rev().for_each(|ms| times.add(Duration::from_millis(ms)));
        assert_eq!(times.p50_and_p99(), Some((50.0, 99.0)));
        assert_eq!(Times::default().p50_and_p99(), None);
    }
}
