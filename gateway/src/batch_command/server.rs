//! Which Frontdesk is asked, and with which key.

use std::fmt;

use common::env;
use reqwest::{Url, header::HeaderValue};

use super::{args::ServerArgs, error::BatchError};

const URL: &str = "FRONTDESK_URL";
const KEY: &str = "FRONTDESK_KEY";

/// An address, and what opens its door.
#[derive(Clone)]
pub struct Server {
    /// The address without a slash at its end; paths of the API are put behind it.
    pub url: String,
    /// `Bearer` and the key.
    pub authorization: HeaderValue,
}

impl Server {
    /// What the command line says, and where it says nothing, the environment.
    ///
    /// # Errors
    /// When neither names an address or a key, or one of them cannot be used.
    pub fn of(args: &ServerArgs) -> Result<Self, BatchError> {
        let url = args.url.clone().or_else(|| env::text(URL));
        let url = url.ok_or_else(|| BatchError::Usage(format!("say where Frontdesk is, with --url or {URL}")))?;
        Ok(Self { url: usable(&url)?, authorization: bearer(&key(args)?)? })
    }

    /// Whether it is reached without TLS.
    pub fn is_plain(&self) -> bool {
        self.url.starts_with("http:")
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

fn usable(text: &str) -> Result<String, BatchError> {
    let wrong = || BatchError::Usage(format!("{text:?} is no address such as http://127.0.0.1:8080"));
    let url: Url = text.parse().map_err(|_| wrong())?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https") || !plain || url.password().is_some() {
        return Err(wrong());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn key(args: &ServerArgs) -> Result<String, BatchError> {
    let Some(file) = &args.key_file else {
        return env::text(KEY)
            .ok_or_else(|| BatchError::Usage(format!("give an API key, in {KEY} or with --key-file")));
    };
    std::fs::read_to_string(file).map_err(BatchError::file("could not read the key in", file))
}

fn bearer(key: &str) -> Result<HeaderValue, BatchError> {
    let unusable = || BatchError::Usage("the key is empty, or holds characters that no key has".to_owned());
    let key = key.trim();
    if key.is_empty() {
        return Err(unusable());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_with_a_slash_and_without() {
        for text in ["http://host:8080", "http://host:8080/", "http://HOST:8080//"] {
            assert_eq!(usable(text).expect(text), "http://host:8080");
        }
        assert_eq!(usable("https://host/frontdesk/").expect("an address"), "https://host/frontdesk");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "host:8080", "ftp://host", "http://", "http://me:pw@host", "http://host/?a=b", "http://h/#a"] {
            assert!(usable(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_is_sent_as_it_stands_in_its_file_and_never_shown() {
        let authorization = bearer(" sk-secret\n").expect("a key");
        assert_eq!(authorization, "Bearer sk-secret");
        let server = Server { url: "http://host".to_owned(), authorization };
        assert!(!format!("{server:?}").contains("secret"));
        assert!(bearer(" \n").is_err() && bearer("two\nlines").is_err());
    }
}
