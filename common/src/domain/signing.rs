//! Secrets that sign webhooks, after <https://www.standardwebhooks.com>.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::Rng as _;
use sha2::Sha256;

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";
/// How many random bytes a new one has; the specification asks for 24 to 64.
const BYTES: usize = 32;

/// A secret that a receiver shares with us. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

/// A text that is no secret of ours.
#[derive(Debug, thiserror::Error)]
#[error("not a signing secret (the form is whsec_ and base64)")]
pub struct NotASecret;

impl SigningSecret {
    /// A new secret.
    pub fn generate() -> Self {
        let mut bytes = vec![0; BYTES];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The secret that `text` shows.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, NotASecret> {
        let body = text.strip_prefix(PREFIX).ok_or(NotASecret)?;
        STANDARD.decode(body).map(Self).map_err(|_| NotASecret)
    }

    /// Its text, as a receiver configures it.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The signature `v1,<base64>` of a request with this `webhook-id`, `webhook-timestamp` (seconds since 1970)
    /// and body.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // A key of any length will do: the constructor never fails.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the specification's own libraries.
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_survives_its_text_and_hides_in_logs() {
        let secret = SigningSecret::generate();
        let text = secret.reveal();
        assert!(text.starts_with(PREFIX) && text.len() == PREFIX.len() + 44, "{text}");
        assert_eq!(SigningSecret::parse(&text).expect("own text"), secret);
        assert!(!format!("{secret:?}").contains(&text[PREFIX.len()..]));
        assert!(SigningSecret::parse("sk-").is_err() && SigningSecret::parse("whsec_%").is_err());
    }
}
