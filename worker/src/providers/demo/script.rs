//! The directives of the demo provider, as they are written in a prompt.

use std::{ops::RangeInclusive, time::Duration};

use crate::providers::provider::ErrorKind;

const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);
const LONGEST_PACE: Duration = Duration::from_secs(60);
const TOKENS: RangeInclusive<u32> = 1..=100_000;
const LONGEST_RETRY_AFTER_S: u64 = 86_400;

/// What a directive asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait once.
    Sleep(Duration),
    /// Wait before every later fragment.
    Pace(Duration),
    /// Say so many fragments.
    Tokens(u32),
    /// Fail.
    Fail {
        /// With this kind.
        kind: ErrorKind,
        /// As though this status had been answered.
        status: Option<u16>,
        /// Asking for this pause.
        retry_after: Option<Duration>,
    },
}

/// The directive that `line` is; `None` when it is text.
pub(super) fn read(line: &str) -> Option<Step> {
    let mut words = line.trim().strip_prefix('/')?.split_whitespace();
    let (name, value, extra) = (words.next()?, words.next()?, words.next());
    if words.next().is_some() {
        return None;
    }
    match (name, extra) {
        ("sleep", None) => length(value).filter(|length| *length <= LONGEST_SLEEP).map(Step::Sleep),
        ("pace", None) => length(value).filter(|length| *length <= LONGEST_PACE).map(Step::Pace),
        ("tokens", None) => value.parse().ok().filter(|count| TOKENS.contains(count)).map(Step::Tokens),
        ("fail", extra) => fail(value, extra),
        _ => None,
    }
}

fn fail(what: &str, extra: Option<&str>) -> Option<Step> {
    let (kind, status) = match what {
        "400" => (ErrorKind::BadRequest, Some(400)),
        "401" => (ErrorKind::Auth, Some(401)),
        "429" => (ErrorKind::RateLimited, Some(429)),
        "503" => (ErrorKind::Unavailable, Some(503)),
        "quota" => (ErrorKind::Quota, Some(429)),
        "context" => (ErrorKind::ContextLength, Some(400)),
        "timeout" => (ErrorKind::Timeout, None),
        "truncated" => (ErrorKind::Truncated, None),
        _ => return None,
    };
    let retry_after = match extra {
        None => None,
        Some(extra) => Some(retry_after(extra)?),
    };
    Some(Step::Fail { kind, status, retry_after })
}

fn retry_after(text: &str) -> Option<Duration> {
    let seconds: u64 = text.strip_prefix("retry-after=")?.parse().ok()?;
    (seconds <= LONGEST_RETRY_AFTER_S).then(|| Duration::from_secs(seconds))
}

/// `250ms`, `2s`, `1.5s`, `3m` or `1h`.
fn length(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let amount: f64 = text[..digits].parse().ok()?;
    let seconds = match &text[digits..] {
        "ms" => amount / 1_000.0,
        "s" => amount,
        "m" => amount * 60.0,
        "h" => amount * 3_600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read() {
        assert_eq!(read("/sleep 2s"), Some(Step::Sleep(Duration::from_secs(2))));
        assert_eq!(read("  /sleep 1.5s\r"), Some(Step::Sleep(Duration::from_millis(1_500))));
        assert_eq!(read("/pace 20ms"), Some(Step::Pace(Duration::from_millis(20))));
        assert_eq!(read("/tokens 500"), Some(Step::Tokens(500)));
        let quota = Step::Fail { kind: ErrorKind::Quota, status: Some(429), retry_after: None };
        assert_eq!(read("/fail quota"), Some(quota));
    }

    #[test]
    fn what_is_no_directive_is_text() {
        let lines = [
            "",
            "/",
            "/sleep",
            "sleep 2s",
            "/sleep 2",
            "/sleep 2s now",
            "/sleep 61m",
            "/sleep 2h",
            "/sleep .s",
            "/pace 2m",
            "/tokens 0",
            "/tokens 100001",
            "/tokens x",
            "/fail",
            "/fail 418",
            "/fail 429 retry-after=soon",
            "/fail 429 retry-after=99999999",
            "/fail 429 a b",
            "/dance 2s",
            "say /sleep 2s",
        ];
        for line in lines {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
