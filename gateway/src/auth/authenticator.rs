//! Knows callers by their keys.

use std::{sync::Arc, time::Duration};

use common::{
    cache::Cache,
    domain::key,
    store::{connection::Store, error::StoreError},
};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use super::caller::Caller;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How many keys are remembered, known and unknown ones.
const CAPACITY: u64 = 100_000;
/// What is looked up when a request shows no key: no key has this text.
const NO_KEY: &[u8] = b"";

/// Knows callers by their keys, from the store and for a short while from memory. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    callers: Cache<[u8; 32], Arc<Caller>>,
    store: Store,
}

impl Authenticator {
    /// What the store says is remembered for `time_to_live`.
    pub fn new(store: Store, time_to_live: Duration) -> Self {
        Self(Arc::new(Inner { callers: Cache::new(CAPACITY, time_to_live), store }))
    }

    /// The caller whose key `headers` show. No key, a malformed, an unknown and a revoked one take the same path
    /// and come out as `None`.
    ///
    /// # Errors
    /// When the store has to be asked and cannot be.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Option<Arc<Caller>>, StoreError> {
        let hash = key::hash(&String::from_utf8_lossy(presented(headers)));
        let load = async || {
            let credential = self.0.store.credential(hash).await?;
            Ok(credential.map(|found| Arc::new(Caller { account: found.account, key: found.key })))
        };
        self.0.callers.get(hash, load).await
    }

    /// Forgets everybody: accounts or keys have changed.
    pub fn flush(&self) {
        self.0.callers.flush();
    }
}

/// The key as it was sent: the bearer token, or else `X-API-Key`. Both at once have to agree;
/// else, and without any, it is empty.
pub fn presented(headers: &HeaderMap) -> &[u8] {
    let mut keys = headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let mut named = headers.get_all(X_API_KEY).iter().map(|value| value.as_bytes().trim_ascii());
    let Some(first) = keys.next().or_else(|| named.next()) else { return NO_KEY };
    if keys.chain(named).all(|other| other == first) { first } else { NO_KEY }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key_in(lines: &[(HeaderName, &'static str)]) -> Vec<u8> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        presented(&headers).to_vec()
    }

    #[test]
    fn both_headers_carry_a_key() {
        assert_eq!(key_in(&[(AUTHORIZATION, "Bearer sk-1")]), b"sk-1");
        assert_eq!(key_in(&[(AUTHORIZATION, "bearer  sk-1 ")]), b"sk-1");
        assert_eq!(key_in(&[(X_API_KEY, "sk-1")]), b"sk-1");
        assert_eq!(key_in(&[(AUTHORIZATION, "Basic dTpw"), (X_API_KEY, "sk-1")]), b"sk-1");
        assert_eq!(key_in(&[(AUTHORIZATION, "Bearer sk-1"), (X_API_KEY, "sk-1")]), b"sk-1");
    }

    #[test]
    fn what_is_none_or_two_is_no_key() {
        assert_eq!(key_in(&[]), NO_KEY);
        assert_eq!(key_in(&[(AUTHORIZATION, "Basic dTpw")]), NO_KEY);
        assert_eq!(key_in(&[(AUTHORIZATION, "Bearer")]), NO_KEY);
        assert_eq!(key_in(&[(AUTHORIZATION, "Bearersk-1")]), NO_KEY);
        assert_eq!(key_in(&[(AUTHORIZATION, "Bearer sk-1"), (X_API_KEY, "sk-2")]), NO_KEY);
        assert_eq!(key_in(&[(AUTHORIZATION, "Bearer sk-1"), (AUTHORIZATION, "Bearer sk-2")]), NO_KEY);
    }
}
