//! Dates on the command line, as the days that usage is counted in.

use std::str::FromStr;

use common::domain::time::Millis;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A UTC day, as days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i32);

/// A text that is no date.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a date such as 2026-11-21")]
pub struct DateError;

impl Day {
    /// The day that it is now.
    pub fn today() -> Self {
        Self(Millis::now().day())
    }

    /// So many days earlier.
    #[must_use]
    pub fn minus(self, days: i32) -> Self {
        Self(self.0.saturating_sub(days))
    }
}

impl FromStr for Day {
    type Err = DateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let midnight = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).map_err(|_| DateError)?;
        Ok(Self(Millis(midnight.unix_timestamp() * 1_000).day()))
    }
}

#[cfg(test)]
mod tests {
    use common::domain::time::date_of_day;

    use super::*;

    #[test]
    fn a_date_is_a_day() {
        assert_eq!("1970-01-01".parse(), Ok(Day(0)));
        assert_eq!("1969-12-31".parse(), Ok(Day(-1)));
        let day: Day = "2026-11-21".parse().expect("a date");
        assert_eq!(date_of_day(day.0), "2026-11-21");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "2026-02-30", "2026-13-01", "26-01-01", "2026-1-1", "yesterday", "2026-01-01T00:00:00Z"] {
            assert_eq!(text.parse::<Day>(), Err(DateError), "{text}");
        }
    }
}
