//! Points in time as they travel and as they are stored: milliseconds since the Unix epoch, UTC.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// The wall clock, now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// This moment and `by` more.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `by` before this one.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was, seen from this moment; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The UTC day as days since 1970-01-01: the unit in which usage is added up.
    pub fn day(self) -> i32 {
        i32::try_from(self.0.div_euclid(86_400_000)).unwrap_or(i32::MAX)
    }
}

impl From<OffsetDateTime> for Millis {
    /// Fractions of a millisecond are cut off.
    fn from(at: OffsetDateTime) -> Self {
        Self(i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Millis {
    /// RFC 3339 with milliseconds, as in `2026-11-21T09:30:00.125Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("out of range"))
    }
}

/// A text that is no point in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a point in time such as 2026-11-21T09:30:00Z")]
pub struct NoMoment;

impl FromStr for Millis {
    type Err = NoMoment;

    /// RFC 3339, with any offset; fractions of a millisecond are cut off.
    fn from_str(text: &str) -> Result<Self, NoMoment> {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NoMoment)?;
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).map(Self).map_err(|_| NoMoment)
    }
}

/// A point in time as callers see it: RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Millis);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The date of a [`Millis::day`], as in `2026-11-21`.
pub fn date_of_day(day: i32) -> String {
    let midnight = Millis(i64::from(day) * 86_400_000).to_string();
    midnight.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_prints_as_rfc_3339_and_knows_its_day() {
        let at = Millis(1_795_253_400_125);
        assert_eq!(at.to_string(), "2026-11-21T09:30:00.125Z");
        assert_eq!(date_of_day(at.day()), "2026-11-21");
    }

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        assert_eq!("2026-11-21T09:30:00.125Z".parse(), Ok(Millis(1_795_253_400_125)));
        assert_eq!("2026-11-21T10:30:00.125999+01:00".parse(), Ok(Millis(1_795_253_400_125)));
        for text in ["", "2026-11-21", "2026-11-21T09:30:00", "1795253400", "now"] {
            assert_eq!(text.parse::<Millis>(), Err(NoMoment), "{text}");
        }
    }

    #[test]
    fn an_elapsed_time_is_never_negative() {
        assert_eq!(Millis(5).since(Millis(9)), Duration::ZERO);
        assert_eq!(Millis(9).since(Millis(5)), Duration::from_millis(4));
    }
}
