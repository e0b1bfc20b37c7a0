//! The settings of the `openai` provider.

use std::{fmt, time::Duration};

use common::env::{self, EnvError};
use reqwest::{Url, header::HeaderValue};

const OPENAI: &str = "https://api.openai.com/v1";
const URL: &str = "FRONTDESK_OPENAI_URL";
const KEY: &str = "FRONTDESK_OPENAI_KEY";

/// How long each part of a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until there is a connection.
    pub connect: Duration,
    /// From the request to the first byte of the answer's body.
    pub first_byte: Duration,
    /// Between two pieces of the answer, of whatever kind: a keep-alive counts as life.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), first_byte: Duration::from_secs(60), idle: Duration::from_secs(30) }
    }
}

/// Where the endpoint is and how to call it.
#[derive(Clone)]
pub struct OpenAiConfig {
    url: Url,
    pub(super) authorization: Option<HeaderValue>,
    /// The limits of a call.
    pub limits: Limits,
}

/// A setting that is no endpoint or no key; says which, and never shows the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The base address cannot be used.
    #[error("give the base address of an API, such as http://127.0.0.1:8000/v1")]
    Url,
    /// The key holds characters that no header can carry.
    #[error("the key holds characters that cannot be sent")]
    Key,
}

impl OpenAiConfig {
    /// The endpoint below `url` (`…/v1`), called with `key` if there is one.
    pub fn new(url: &str, key: Option<&str>, limits: Limits) -> Result<Self, ConfigError> {
        let url: Url = url.trim_end_matches('/').parse().map_err(|_| ConfigError::Url)?;
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !matches!(url.scheme(), "http" | "https") || !plain || url.password().is_some() {
            return Err(ConfigError::Url);
        }
        let authorization = key.map(bearer).transpose()?;
        Ok(Self { url, authorization, limits })
    }

    /// What `FRONTDESK_OPENAI_URL`, `FRONTDESK_OPENAI_KEY` and the `FRONTDESK_MODEL_*_TIMEOUT` say; `None` when
    /// neither an address nor a key is given. With a key alone the address is OpenAI's.
    pub fn from_environment() -> Result<Option<Self>, EnvError> {
        let (url, key) = (env::text(URL), env::text(KEY));
        if url.is_none() && key.is_none() {
            return Ok(None);
        }
        let usual = Limits::default();
        let limits = Limits {
            connect: env::duration("FRONTDESK_MODEL_CONNECT_TIMEOUT", usual.connect)?,
            first_byte: env::duration("FRONTDESK_MODEL_FIRST_BYTE_TIMEOUT", usual.first_byte)?,
            idle: env::duration("FRONTDESK_MODEL_IDLE_TIMEOUT", usual.idle)?,
        };
        let url = url.as_deref().unwrap_or(OPENAI);
        let config = Self::new(url, key.as_deref(), limits).map_err(|error| match error {
            // It may be wrong for a password or a key within.
            ConfigError::Url if url.contains(['@', '?', '#']) => env::invalid(URL, "(not shown)", error),
            ConfigError::Url => env::invalid(URL, url, error),
            ConfigError::Key => env::invalid(KEY, "(not shown)", error),
        })?;
        Ok(Some(config))
    }

    /// The base address, for logs; holds no credentials.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    pub(super) fn endpoint(&self) -> Url {
        let mut endpoint = self.url.clone();
        endpoint.set_path(&format!("{}/chat/completions", self.url.path().trim_end_matches('/')));
        endpoint
    }

    /// Whether the most tokens are called `max_completion_tokens`: OpenAI's newer models refuse `max_tokens`, and
    /// most others know only that.
    pub(super) fn wants_completion_tokens(&self) -> bool {
        self.url.host_str().is_some_and(|host| host == "api.openai.com" || host.ends_with(".openai.azure.com"))
    }
}

impl fmt::Debug for OpenAiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_key = self.authorization.is_some();
        f.debug_struct("OpenAiConfig")
            .field("url", &self.url.as_str())
            .field("has_key", &has_key)
            .field("limits", &self.limits)
            .finish()
    }
}

fn bearer(key: &str) -> Result<HeaderValue, ConfigError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim())).map_err(|_| ConfigError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<OpenAiConfig, ConfigError> {
        OpenAiConfig::new(url, Some("sk-secret"), Limits::default())
    }

    #[test]
    fn the_endpoint_lies_below_the_address() {
        for url in ["http://host:1/v1", "http://host:1/v1/", "http://host:1/v1//"] {
            assert_eq!(config(url).expect("an address").endpoint().as_str(), "http://host:1/v1/chat/completions");
        }
        assert_eq!(config("http://host").expect("an address").endpoint().path(), "/chat/completions");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["", "host:1", "ftp://host/v1", "http://", "http://me:pw@host/v1", "http://host/v1?key=1"] {
            assert!(config(url).is_err(), "{url}");
        }
        assert!(OpenAiConfig::new(OPENAI, Some("line\nbreak"), Limits::default()).is_err());
    }

    #[test]
    fn the_key_is_never_shown() {
        let shown = format!("{:?}", config(OPENAI).expect("an address"));
        assert!(shown.contains("api.openai.com") && !shown.contains("secret"), "{shown}");
    }
}
