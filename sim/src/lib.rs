//! Holds properties of the product's pure parts against many random cases; the one home of the `proptest` crate.
//!
//! The properties are in `tests/it`, a file for each part. See `README.md` for what is simulated, and for how to repeat a
//! seed.

use std::{
    cell::Cell,
    fmt::Debug,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

pub use proptest;
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestRunner},
};

/// Holds `property` against `cases` values of `values`, or as many as `PROPTEST_CASES` says, and prints how many that were
/// and of which seed. Before them come the cases that failed once, from `proptest-regressions` beside `source`.
///
/// # Panics
/// When it does not hold: with the smallest value that was found for which it does not.
pub fn check<S: Strategy<Value: Debug>>(
    source: &'static str,
    name: &'static str,
    cases: u32,
    values: S,
    property: impl Fn(S::Value),
) {
    let mut config = Config { source_file: Some(source), test_name: Some(name), ..Config::default() };
    if config.cases == PROPTEST_DEFAULT_CASES {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => seed_of_now(),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let (tried, begun) = (Cell::new(0_u32), Instant::now());
    let found = TestRunner::new(config).run(&values, |value| {
        tried.set(tried.get() + 1);
        property(value);
        Ok(())
    });
    if let Err(failure) = found {
        panic!("{name} does not hold (PROPTEST_RNG_SEED={seed} repeats the run): {failure}");
    }
    // On a line of its own: the test runner has not ended its line.
    println!("\nsimulated {name}: {} cases in {:.1?}, seed {seed}", tried.get(), begun.elapsed());
}

/// What proptest takes when `PROPTEST_CASES` says nothing.
const PROPTEST_DEFAULT_CASES: u32 = 256;

fn seed_of_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos() % u128::from(u64::MAX)).unwrap_or_default()
}
