//! The W3C trace context's `traceparent`: taken from a caller, or made anew.

use std::fmt;

use rand::Rng as _;

/// Where a request belongs in a trace: `00-<trace id>-<parent id>-<flags>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent(String);

impl Traceparent {
    /// A new, sampled trace.
    #[expect(clippy::new_without_default, reason = "a default trace would hide that each one is different")]
    pub fn new() -> Self {
        let mut ids = [0u8; 24];
        rand::rng().fill_bytes(&mut ids);
        // An id of zeros is invalid; one bit keeps even that draw usable.
        ids[15] |= 1;
        ids[23] |= 1;
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&mut text, &ids[..16]);
        text.push('-');
        push_hex(&mut text, &ids[16..]);
        text.push_str("-01");
        Self(text)
    }

    /// The header's value, if it is valid. A newer version's is read as far as this version goes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let parent_id = hex(fields.next()?, 16)?;
        let flags = hex(fields.next()?, 2)?;
        let has_more = fields.next().is_some();
        let is_wrong_version = version == "ff" || (version == "00" && has_more);
        (!is_wrong_version && !is_zero(trace_id) && !is_zero(parent_id))
            .then(|| Self(format!("00-{trace_id}-{parent_id}-{flags}")))
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// By hand: the formatter of the standard library takes as long for one byte as this for all.
fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(byte & 15)]));
}

fn hex(text: &str, digits: usize) -> Option<&str> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_hex)).then_some(text)
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_one_is_kept() {
        let taken = Traceparent::parse(GOOD).expect("valid");
        assert_eq!(taken.as_str(), GOOD);
        assert_eq!(taken.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(Traceparent::parse(&format!("cc{}-what-comes", &GOOD[2..])), Some(taken));
    }

    #[test]
    fn an_invalid_one_is_not() {
        for text in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é",
        ] {
            assert_eq!(Traceparent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_new_one_is_valid_and_unlike_the_last() {
        let (one, other) = (Traceparent::new(), Traceparent::new());
        assert_eq!(Traceparent::parse(one.as_str()), Some(one.clone()));
        assert_ne!(one.trace_id(), other.trace_id());
    }
}
