//! Settings: the one place that reads the environment. A wrong value names its variable.

use std::{fmt::Display, str::FromStr, time::Duration};

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// It is there and wrong.
    #[error("{name}: cannot use `{value}`: {reason}")]
    Invalid {
        /// The variable.
        name: String,
        /// What it held.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is needed and not there.
    #[error("{0} is not set")]
    Missing(String),
}

/// The text of `name`; `None` when it is unset or empty.
pub fn text(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this module is the door to the environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The text of `name`, which has to be there.
pub fn required(name: &str) -> Result<String, EnvError> {
    text(name).ok_or_else(|| EnvError::Missing(name.to_owned()))
}

/// The parsed value of `name`, or `default` when it is unset.
pub fn parse<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, EnvError> {
    match text(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|reason: T::Err| invalid(name, &value, reason)),
    }
}

/// Like [`parse`], and refuses what lies outside `range`.
pub fn within<T>(name: &str, default: T, range: std::ops::RangeInclusive<T>) -> Result<T, EnvError>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let value = parse(name, default)?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(invalid(name, &value.to_string(), format!("must be from {} to {}", range.start(), range.end())))
}

/// A length of time: `250ms`, `20s`, `15m`, `72h`, or plain seconds.
pub fn duration(name: &str, default: Duration) -> Result<Duration, EnvError> {
    match text(name) {
        None => Ok(default),
        Some(value) => parse_duration(&value)
            .ok_or_else(|| invalid(name, &value, "give a length of time such as 250ms, 20s, 15m or 72h")),
    }
}

/// A mistake in `name`, for checks that the caller makes itself.
pub fn invalid(name: &str, value: &str, reason: impl Display) -> EnvError {
    EnvError::Invalid { name: name.to_owned(), value: value.to_owned(), reason: reason.to_string() }
}

/// Reads a length of time as settings have them: `250ms`, `20s`, `15m`, `72h`, `3d`, or plain seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let amount: u64 = text[..digits].parse().ok()?;
    let millis_per_unit: u64 = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    amount.checked_mul(millis_per_unit).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_units() {
        for (text, millis) in [("250ms", 250), ("20s", 20_000), ("2", 2_000), ("15m", 900_000), ("72h", 259_200_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1.5s", "-1s", "5 s", "99999999999999999999h", "3w"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn an_unset_name_gives_the_default() {
        assert_eq!(within("FRONTDESK_NO_SUCH_SETTING", 7, 1..=9).expect("default"), 7);
        let error = within("FRONTDESK_NO_SUCH_SETTING", 12, 1..=9).expect_err("out of range").to_string();
        assert!(error.contains("FRONTDESK_NO_SUCH_SETTING") && error.contains("1 to 9"), "{error}");
    }
}
