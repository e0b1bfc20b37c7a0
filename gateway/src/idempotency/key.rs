//! The key by which a caller marks a request as the same as an earlier one.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::ApiError;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in characters.
const LONGEST: usize = 255;

/// An `Idempotency-Key`: 1 to 255 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key in `headers`, if there is one.
    ///
    /// # Errors
    /// 400 when there is one that cannot be used, or more than one.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(refusal("is there more than once"));
        }
        Self::parse(value).map(Some).map_err(refusal)
    }

    /// The key as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(value: &HeaderValue) -> Result<Self, &'static str> {
        let text = value.as_bytes();
        if text.is_empty() {
            return Err("must not be empty");
        }
        if !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err("has to be of printable ASCII characters");
        }
        if text.len() > LONGEST {
            return Err("is longer than 255 characters");
        }
        // Printable ASCII is text.
        Ok(Self(String::from_utf8_lossy(text).into_owned()))
    }
}

fn refusal(what: &str) -> ApiError {
    ApiError::BadRequest(format!("the header `Idempotency-Key` {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&[u8]]) -> Result<Option<IdempotencyKey>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).expect("a value"));
        }
        IdempotencyKey::of(&headers)
    }

    #[test]
    fn up_to_255_printable_characters_are_a_key() {
        assert_eq!(key(&[]), Ok(None));
        let longest = "k".repeat(255);
        for text in ["k", "01a20041-b7f8-71fc-b820-9ed86ed9b996", "\"quoted\"", "a b; c,~", &longest] {
            assert_eq!(key(&[text.as_bytes()]), Ok(Some(IdempotencyKey(text.to_owned()))), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let too_long = "k".repeat(256);
        for values in
            [&[&b""[..]][..], &[b"a\tb"], &["ä".as_bytes()], &[b"\xff"], &[too_long.as_bytes()], &[b"a", b"a"]]
        {
            assert!(matches!(key(values), Err(ApiError::BadRequest(_))), "{values:?}");
        }
    }
}
