//! What to measure and for how long: the command line, then the environment.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use common::env;

/// How the bench is called.
pub const USAGE: &str = "bench [--only 1,4] [--rounds N] [--seconds S] [--out FILE.md]";
const PARTS: std::ops::RangeInclusive<u8> = 1..=13;

/// What to measure.
#[derive(Debug)]
pub struct Options {
    /// Parts of the table, 1 to 13.
    pub parts: BTreeSet<u8>,
    /// How often; the medians are told.
    pub rounds: u32,
    /// How long one measurement takes, without its warm-up.
    pub measure: Duration,
    /// Where the table is written besides standard output.
    pub out: Option<PathBuf>,
}

impl Options {
    /// Reads the command line; `BENCH_ROUNDS` and `BENCH_SECONDS` stand in for what it does not say.
    ///
    /// # Errors
    /// Says what cannot be understood.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            parts: PARTS.collect(),
            rounds: env::within("BENCH_ROUNDS", 3, 1..=100)?,
            measure: seconds(&env::text("BENCH_SECONDS").unwrap_or_else(|| "4".to_owned())).context("BENCH_SECONDS")?,
            out: None,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value: {USAGE}"));
            match name.as_str() {
                "--only" => options.parts = parts(&value()?)?,
                "--rounds" => {
                    options.rounds = value()?.parse().ok().filter(|n| *n > 0).context("--rounds: 1 or more")?
                }
                "--seconds" => options.measure = seconds(&value()?).context("--seconds")?,
                "--out" => options.out = Some(value()?.into()),
                _ => bail!("{name} is unknown: {USAGE}"),
            }
        }
        Ok(options)
    }

    /// Whether `part` is to be measured.
    pub fn has(&self, part: u8) -> bool {
        self.parts.contains(&part)
    }
}

fn parts(list: &str) -> Result<BTreeSet<u8>> {
    let parse = |part: &str| part.trim().parse().ok().filter(|part| PARTS.contains(part));
    list.split(',')
        .map(|part| parse(part).with_context(|| format!("--only: `{part}` is not a part, 1 to 13")))
        .collect()
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.parse().with_context(|| format!("`{text}` is not a number of seconds"))?;
    ensure!((0.1..=600.0).contains(&seconds), "{seconds} is not from 0.1 to 600 seconds");
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        Options::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_chooses() {
        let options = read("--only 1,4 --rounds 2 --seconds 0.5").expect("options");
        assert!(options.has(1) && options.has(4) && !options.has(2));
        assert_eq!((options.rounds, options.measure), (2, Duration::from_millis(500)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in ["--only 14", "--only", "--rounds 0", "--seconds x", "--seconds 0", "--fast"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
