//! Refuses what hyper lets through: heads that another server on the way could read differently.

use common::http::listener::Peer;
use http::{
    Version,
    header::{HOST, TRANSFER_ENCODING},
};

use crate::error::ApiError;

/// What `request` is refused for, if its host or its length can be read in more than one way.
pub fn refusal<B>(request: &http::Request<B>) -> Option<ApiError> {
    ambiguity(request).map(ApiError::AmbiguousHead)
}

fn ambiguity<B>(request: &http::Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() >= Version::HTTP_11) {
        return Some("exactly one `Host` header is needed");
    }
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_plain = encodings.next().is_none_or(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    if !is_plain || encodings.next().is_some() {
        return Some("`Transfer-Encoding` may only be chunked");
    }
    let peer = request.extensions().get::<Peer>();
    if peer.is_some_and(|peer| peer.ambiguous_length) {
        return Some("`Content-Length` and `Transfer-Encoding` exclude each other");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(headers: &[(&str, &str)], version: Version, ambiguous_length: bool) -> bool {
        let mut request = http::Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = "127.0.0.1:1".parse().expect("an address");
        let request = request.extension(Peer { address, ambiguous_length }).body(()).expect("a request");
        ambiguity(&request).is_some()
    }

    #[test]
    fn one_host_and_one_length() {
        let host = ("host", "a");
        assert!(!is_refused(&[host], Version::HTTP_11, false));
        assert!(!is_refused(&[host, ("transfer-encoding", "Chunked")], Version::HTTP_11, false));
        assert!(!is_refused(&[], Version::HTTP_10, false));
        assert!(is_refused(&[], Version::HTTP_11, false));
        assert!(is_refused(&[host, ("host", "b")], Version::HTTP_11, false));
        assert!(is_refused(&[host, ("transfer-encoding", "gzip, chunked")], Version::HTTP_11, false));
        let twice = [host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert!(is_refused(&twice, Version::HTTP_11, false));
        assert!(is_refused(&[host, ("transfer-encoding", "chunked")], Version::HTTP_11, true));
    }
}
