//! What makes two requests the same: a hash of where they went and of what they asked for.

use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// A hash of a request's route and fields, as they were understood: the order of fields, white space and unknown fields
/// do not count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a request to `route` with `fields`.
    ///
    /// # Errors
    /// When `fields` are nothing that JSON can hold.
    pub fn of(route: &str, fields: &impl Serialize) -> serde_json::Result<Self> {
        let mut hash = Sha256::new();
        hash.update(route.len().to_be_bytes());
        hash.update(route);
        hash.update(serde_json::to_vec(fields)?);
        Ok(Self(hash.finalize().into()))
    }
}

/// A hash of a body that is read piece by piece.
#[derive(Clone, Debug, Default)]
pub struct BodyHash(Sha256);

impl BodyHash {
    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all of them.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn of(route: &str, body: &str) -> Fingerprint {
        let fields: Value = serde_json::from_str(body).expect("JSON");
        Fingerprint::of(route, &fields).expect("a fingerprint")
    }

    #[test]
    fn the_order_of_fields_does_not_count() {
        let one = of("/a", r#"{"x":1,"y":{"a":[1,2],"b":null}}"#);
        assert_eq!(one, of("/a", r#" { "y" : {"b":null, "a":[1, 2]}, "x" : 1 } "#));
    }

    #[test]
    fn everything_else_does() {
        let one = of("/a", r#"{"x":1,"y":["a","b"]}"#);
        for (route, body) in [
            ("/b", r#"{"x":1,"y":["a","b"]}"#),
            ("/a", r#"{"x":2,"y":["a","b"]}"#),
            ("/a", r#"{"x":"1","y":["a","b"]}"#),
            ("/a", r#"{"x":1,"y":["b","a"]}"#),
            ("/a", r#"{"x":1,"y":["a","b "]}"#),
            ("/a", r#"{"x":1,"y":["a","b"],"z":null}"#),
        ] {
            assert_ne!(one, of(route, body), "{route} {body}");
        }
    }
}
