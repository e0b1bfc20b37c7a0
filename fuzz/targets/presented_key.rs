//! The key of a request: what two headers say, and the form that a key has.
//!
//! Each line of the input is a header: `A` and the value of `Authorization`, or `K` and that of `X-API-Key`.
#![no_main]

use common::domain::key;
use gateway::auth::authenticator::presented;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use libfuzzer_sys::fuzz_target;

/// The digits of a key and of its checksum.
const DIGITS: usize = 49;

fuzz_target!(|input: &[u8]| {
    let (mut headers, mut shown) = (HeaderMap::new(), Vec::new());
    for line in input.split(|byte| *byte == b'\n') {
        let Some((kind, value)) = line.split_first() else { continue };
        let Ok(parsed) = HeaderValue::from_bytes(value) else { continue };
        match kind {
            b'A' => {
                headers.append(AUTHORIZATION, parsed);
                shown.extend(after_bearer(value));
            }
            b'K' => {
                headers.append("x-api-key", parsed);
                shown.push(value.trim_ascii());
            }
            _ => {}
        }
    }
    let key = presented(&headers);
    match shown.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => assert_eq!(key, *first),
        _ => assert!(key.is_empty(), "one of two keys was believed, or one that nobody showed: {key:?}"),
    }
    check(&String::from_utf8_lossy(key));
});

fn after_bearer(value: &[u8]) -> Option<&[u8]> {
    let scheme = value.get(..7)?;
    (scheme.to_ascii_lowercase() == b"bearer ").then(|| value[7..].trim_ascii())
}

/// A key of the right form ends in its 49 digits, and has it no longer when one of them is another.
fn check(text: &str) {
    assert_eq!(key::hash(text), key::hash(&text.to_owned()));
    if !key::is_well_formed(text) {
        return;
    }
    let (prefix, digits) = text.split_at(text.len() - DIGITS);
    assert!(digits.bytes().all(|digit| digit.is_ascii_alphanumeric()));
    assert!(key::is_well_formed(digits), "the prefix counts");
    for place in 0..DIGITS {
        let mut changed = digits.as_bytes().to_vec();
        changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(changed).expect("digits");
        assert!(!key::is_well_formed(&format!("{prefix}{changed}")), "{changed}");
        assert_ne!(key::hash(&changed), key::hash(digits));
    }
}
