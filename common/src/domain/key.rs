//! API keys: how a secret is made and recognised, and what is kept of it.

use rand::Rng as _;
use sha2::{Digest, Sha256};

use super::{
    ids::{AccountId, AgentId, KeyId},
    time::Millis,
};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 > 2^256: the digits that 32 bytes need.
const BODY_DIGITS: usize = 43;
/// 62^6 > 2^32: the digits of the checksum.
const CHECK_DIGITS: usize = 6;

/// A key's secret. It is shown once, to whoever makes the key, and never stored.
pub struct Secret(String);

impl Secret {
    /// A new secret: `prefix`, 32 random bytes in base 62 and a checksum of 6 digits, so that a scanner
    /// can tell a key from a look-alike without asking us.
    pub fn generate(prefix: &str) -> Self {
        let mut bytes = [0u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let body = base62(&bytes, BODY_DIGITS);
        let check = checksum(&body);
        Self(format!("{prefix}{body}{check}"))
    }

    /// Its text, for the one time that it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored for people to recognise it by.
    pub fn last_four(&self) -> String {
        self.0[self.0.len() - 4..].to_owned()
    }
}

/// Whether `text` has the form of a key with a right checksum. Says nothing on whether the key exists.
pub fn is_well_formed(text: &str) -> bool {
    let Some(split) = text.len().checked_sub(BODY_DIGITS + CHECK_DIGITS) else { return false };
    let Some(digits) = text.get(split..) else { return false };
    digits.bytes().all(|b| ALPHABET.contains(&b)) && checksum(&digits[..BODY_DIGITS]) == digits[BODY_DIGITS..]
}

/// What a presented secret is looked up by. A SHA-256 is enough: 256 random bits cannot be guessed.
pub fn hash(presented: &str) -> [u8; 32] {
    Sha256::digest(presented.as_bytes()).into()
}

/// A key as it is stored.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its identifier.
    pub id: KeyId,
    /// Whose it is.
    pub account_id: AccountId,
    /// A name for people.
    pub name: String,
    /// The end of its secret, to recognise it by.
    pub last_four: String,
    /// The agents that it may use; `None`: all of the account.
    pub agents: Option<Vec<AgentId>>,
    /// When it was made.
    pub created_at: Millis,
    /// When it was revoked.
    pub revoked_at: Option<Millis>,
}

impl ApiKey {
    /// Whether it may use `agent`.
    pub fn may_use(&self, agent: AgentId) -> bool {
        self.agents.as_ref().is_none_or(|agents| agents.contains(&agent))
    }
}

fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    base62(&digest[..4], CHECK_DIGITS)
}

/// `bytes` as one big-endian number in base 62, padded to `digits`.
fn base62(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut out = vec![b'0'; digits];
    for digit in out.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        *digit = ALPHABET[rest as usize];
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_the_prefix_and_a_checksum() {
        let secret = Secret::generate("sk-");
        assert!(secret.reveal().starts_with("sk-"));
        assert_eq!(secret.reveal().len(), 3 + BODY_DIGITS + CHECK_DIGITS);
        assert!(is_well_formed(secret.reveal()));
        assert!(secret.reveal().ends_with(&secret.last_four()));
    }

    #[test]
    fn a_changed_digit_breaks_the_checksum() {
        let good = Secret::generate("sk-").reveal().to_owned();
        let flipped = if good.as_bytes()[10] == b'A' { "B" } else { "A" };
        let bad = format!("{}{}{}", &good[..10], flipped, &good[11..]);
        assert!(!is_well_formed(&bad));
        for text in ["", "sk-", "sk-ä", &"ä".repeat(60), &"0".repeat(49)] {
            assert!(!is_well_formed(text), "{text}");
        }
    }

    #[test]
    fn base_62_counts_like_numbers() {
        assert_eq!(base62(&[0], 2), "00");
        assert_eq!(base62(&[61], 2), "0z");
        assert_eq!(base62(&[62], 2), "10");
        assert_eq!(base62(&[1, 0], 3), "048");
    }
}
