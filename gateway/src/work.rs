//! A request that makes work: its body, and the headers that say how it is to be treated.

use axum::extract::{FromRef, FromRequest, Request};

use crate::{
    error::ApiError,
    extract::{BodyRules, FromFields, JsonBody},
    idempotency::key::IdempotencyKey,
    prefer::Prefer,
};

/// A JSON body with its headers. It stands last among a handler's arguments, hence behind its authentication.
#[derive(Debug)]
pub struct Work<T> {
    /// What is asked for.
    pub body: T,
    /// What marks it as the same as an earlier request.
    pub key: Option<IdempotencyKey>,
    /// How its caller wants to wait; for the routes that know several ways.
    pub prefer: Prefer,
}

impl<S, T> FromRequest<S> for Work<T>
where
    S: Send + Sync,
    BodyRules: FromRef<S>,
    T: FromFields,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let key = IdempotencyKey::of(request.headers());
        let prefer = Prefer::of(request.headers());
        // A body that is too large comes before a header that makes no sense.
        let JsonBody(body) = JsonBody::from_request(request, state).await?;
        Ok(Self { body, key: key?, prefer })
    }
}
