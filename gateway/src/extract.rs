//! The body of a request, read within its limits and turned into what a route takes.

use std::{str::FromStr, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRef, FromRequest, FromRequestParts, Path, Request},
};
use bytes::Bytes;
use common::{
    domain::ids::{BatchId, DeliveryId, EndpointId},
    env::{self, EnvError},
};
use http::{HeaderMap, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    error::ApiError,
    fields::{FieldFault, Fields},
};

/// How large a body may be, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyRules {
    /// The most bytes.
    pub limit: usize,
    /// The longest time from the head to the body's last byte.
    pub timeout: Duration,
}

impl BodyRules {
    /// `FRONTDESK_BODY_LIMIT` and `FRONTDESK_BODY_TIMEOUT`.
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self {
            limit: env::within("FRONTDESK_BODY_LIMIT", 65_536, 1..=64 << 20)?,
            timeout: env::duration("FRONTDESK_BODY_TIMEOUT", Duration::from_secs(10))?,
        })
    }
}

/// What a path names by its id.
pub trait PathId: FromStr {
    /// That there is nothing of this id, be it that it is none.
    const MISSING: ApiError;
}

impl PathId for BatchId {
    const MISSING: ApiError = ApiError::BatchNotFound;
}

impl PathId for EndpointId {
    const MISSING: ApiError = ApiError::EndpointNotFound;
}

impl PathId for DeliveryId {
    const MISSING: ApiError = ApiError::DeliveryNotFound;
}

/// The one id in a path. It stands behind the authentication among a handler's arguments.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<S, T> FromRequestParts<S> for InPath<T>
where
    S: Send + Sync,
    T: PathId,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.ok().and_then(|Path(text)| text.parse().ok()).map(Self).ok_or(T::MISSING)
    }
}

/// What can be made from the fields of a JSON object.
pub trait FromFields: Sized {
    /// Reads the fields.
    ///
    /// # Errors
    /// With a sentence that names the field.
    fn from_fields(fields: Fields) -> Result<Self, FieldFault>;
}

/// A JSON body. It stands last among a handler's arguments, hence behind its authentication.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S, T> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    BodyRules: FromRef<S>,
    T: FromFields,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body, BodyRules::from_ref(state)).await?;
        require_json(&parts.headers)?;
        let parsed = Fields::parse(&bytes).and_then(T::from_fields);
        parsed.map(Self).map_err(|FieldFault(sentence)| ApiError::BadRequest(sentence))
    }
}

async fn read(body: Body, rules: BodyRules) -> Result<Bytes, ApiError> {
    let too_large = ApiError::BodyTooLarge(rules.limit);
    // A declared length is known before the first byte.
    if body.size_hint().lower() > rules.limit as u64 {
        return Err(too_large);
    }
    let collected = tokio::time::timeout(rules.timeout, Limited::new(body, rules.limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(ApiError::BadRequest("the body broke off, or its chunks make no sense".to_owned())),
        Err(_) => Err(ApiError::BodyTimeout),
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json =
        media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"));
    if is_json { Ok(()) } else { Err(ApiError::BadRequest("`Content-Type` has to be application/json".to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http::HeaderValue;

    use super::*;

    const RULES: BodyRules = BodyRules { limit: 8, timeout: Duration::from_secs(10) };

    fn chunked(chunks: &'static [&'static str]) -> Body {
        Body::from_stream(stream::iter(chunks.iter().map(|chunk| Ok::<_, Infallible>(*chunk))))
    }

    #[tokio::test]
    async fn the_limit_is_exact_declared_or_not() {
        assert_eq!(read(Body::from("12345678"), RULES).await.expect("fits"), "12345678");
        assert_eq!(read(chunked(&["1234", "5678"]), RULES).await.expect("fits"), "12345678");
        assert_eq!(read(Body::from("123456789"), RULES).await, Err(ApiError::BodyTooLarge(8)));
        assert_eq!(read(chunked(&["1234", "56789"]), RULES).await, Err(ApiError::BodyTooLarge(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let stuck = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(read(stuck, RULES).await, Err(ApiError::BodyTimeout));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_bad_request() {
        let broken = stream::iter([Ok(Bytes::from("12")), Err(std::io::Error::other("reset"))]);
        assert!(matches!(read(Body::from_stream(broken), RULES).await, Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn only_json_is_json() {
        for (media_type, is_json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.frontdesk+json", true),
            ("application/x-www-form-urlencoded", false),
            ("text/json", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
            assert_eq!(require_json(&headers).is_ok(), is_json, "{media_type}");
        }
        assert!(require_json(&HeaderMap::new()).is_err());
    }
}
