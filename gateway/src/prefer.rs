//! `Prefer` (RFC 7240): whether, and how long, a caller wants to wait for the answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preferences were applied.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The longest wait that can be asked for, in seconds: the contract's own.
const LONGEST_WAIT_S: u16 = 300;

/// How a caller wants to be answered. What makes no sense is as good as absent: RFC 7240 allows no error for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    respond_async: bool,
    wait_s: Option<u16>,
}

impl Prefer {
    /// What `headers` ask for. Of a preference that is there twice, the first counts.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let mut wait_is_known = false;
        for line in headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok()) {
            for preference in split_outside_quotes(line, ',') {
                let (name, value) = name_and_value(preference);
                if name.eq_ignore_ascii_case("respond-async") {
                    prefer.respond_async = true;
                } else if name.eq_ignore_ascii_case("wait") && !wait_is_known {
                    wait_is_known = true;
                    prefer.wait_s = seconds(value).filter(|wait| (1..=LONGEST_WAIT_S).contains(wait));
                }
            }
        }
        prefer
    }

    /// How long to wait before the answer is "accepted"; zero is not at all, `None` the contract's wait and error.
    pub fn patience(self) -> Option<Duration> {
        match self {
            Self { wait_s: Some(wait_s), .. } => Some(Duration::from_secs(wait_s.into())),
            Self { respond_async: true, .. } => Some(Duration::ZERO),
            Self { .. } => None,
        }
    }

    /// What an answer that followed these preferences says of them.
    pub fn applied(self) -> Option<HeaderValue> {
        match (self.respond_async, self.wait_s) {
            (false, None) => None,
            (true, None) => Some(HeaderValue::from_static("respond-async")),
            (false, Some(wait_s)) => HeaderValue::try_from(format!("wait={wait_s}")).ok(),
            (true, Some(wait_s)) => HeaderValue::try_from(format!("respond-async, wait={wait_s}")).ok(),
        }
    }
}

fn seconds(digits: &str) -> Option<u16> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The parts of `text` between `separator`s, but for those within double quotes.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let was_escaped = std::mem::replace(&mut escaped, false);
        match c {
            '\\' if quoted && !was_escaped => escaped = true,
            '"' if !was_escaped => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
}

/// `name`, `name=value` or `name="value"`, without the parameters that may follow.
fn name_and_value(preference: &str) -> (&str, &str) {
    let preference = split_outside_quotes(preference, ';').next().unwrap_or_default();
    let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (name.trim(), unquoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(lines: &[&str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        }
        Prefer::of(&headers)
    }

    fn applied(lines: &[&str]) -> Option<String> {
        prefer(lines).applied().map(|value| value.to_str().expect("a text").to_owned())
    }

    #[test]
    fn what_is_asked_for_is_applied() {
        for (lines, expected, patience_s) in [
            (&["respond-async"][..], "respond-async", 0),
            (&["RESPOND-ASYNC"], "respond-async", 0),
            (&["wait=1"], "wait=1", 1),
            (&["Wait = \"300\" ; priority=5"], "wait=300", 300),
            (&["respond-async, wait=10"], "respond-async, wait=10", 10),
            (&["wait=10", "respond-async;x=y"], "respond-async, wait=10", 10),
            (&["wait=5, wait=6"], "wait=5", 5),
            (&["return=minimal; foo=\"a, b\", handling=lenient, wait=7"], "wait=7", 7),
        ] {
            assert_eq!(applied(lines).as_deref(), Some(expected), "{lines:?}");
            assert_eq!(prefer(lines).patience(), Some(Duration::from_secs(patience_s)), "{lines:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_as_good_as_absent() {
        for lines in [
            &[][..],
            &[""],
            &["wait"],
            &["wait="],
            &["wait=0"],
            &["wait=301"],
            &["wait=-1"],
            &["wait=+1"],
            &["wait=1.5"],
            &["wait=99999999999999999999"],
            &["wait=no, wait=5"],
            &["x=\"respond-async, wait=5\""],
            &["x=\"\\\", wait=5\""],
            &["respond-asynchronously"],
            &["é, respond-async"],
            &[",;=,\""],
        ] {
            assert_eq!(prefer(lines), Prefer::default(), "{lines:?}");
            assert_eq!((prefer(lines).patience(), applied(lines)), (None, None), "{lines:?}");
        }
    }
}
