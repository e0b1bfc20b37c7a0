//! How long a server that was called asks us to wait.

use std::time::Duration;

use common::domain::time::Millis;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// What `retry-after-ms` or `Retry-After` (seconds or a date) says; more than `longest` is taken for that. `None` when
/// neither can be read.
pub fn read(headers: &HeaderMap, now: Millis, longest: Duration) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let millis = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()).map(|millis| millis / 1_000.0);
    let seconds = millis.or_else(|| seconds_or_date(text(RETRY_AFTER.as_str())?, now))?;
    Duration::try_from_secs_f64(seconds).ok().map(|wait| wait.min(longest))
}

fn seconds_or_date(text: &str, now: Millis) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds);
    }
    // An HTTP date is one of RFC 2822, except for the name of its zone.
    let date = OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()?;
    let at = Millis(date.unix_timestamp().saturating_mul(1_000));
    Some(at.since(now).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(3_600);

    fn wait(name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header"));
        // 1994-11-06T08:49:30Z
        read(&headers, Millis(784_111_770_000), LONGEST)
    }

    #[test]
    fn seconds_milliseconds_and_dates_are_read() {
        assert_eq!(wait("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(wait("retry-after", " 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(wait("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(wait("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("retry-after", "99999999999"), Some(LONGEST));
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        for value in ["", "soon", "-1", "NaN", "inf", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(wait("retry-after", value), None, "{value}");
        }
        assert_eq!(read(&HeaderMap::new(), Millis(0), LONGEST), None);
    }
}
