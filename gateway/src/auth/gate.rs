//! The gate that a request passes before anything of it is read: key, account, channel, rate.

use std::{marker::PhantomData, net::IpAddr, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use common::{domain::channel::Channel, http::listener::Peer, metrics::Metrics};
use http::request::Parts;
use tracing::error;

use super::{authenticator::Authenticator, caller::Caller, client::TrustedProxies};
use crate::{
    context::RequestContext,
    error::ApiError,
    rate_limit::{Bucket, RateLimiter},
};

/// What a route asks of its caller beyond a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A verified account.
    Verified,
    /// A verified account that has switched this channel on.
    Channel(Channel),
}

/// A route's way in, as a type, so that a handler's signature says it.
pub trait Door: Send {
    /// What it asks for.
    const NEEDS: Needs;
    /// What a request through it counts as.
    const BUCKET: Bucket = Bucket::Requests;
}

/// A door for whoever has a valid key.
#[derive(Debug)]
pub struct AnyKey;

impl Door for AnyKey {
    const NEEDS: Needs = Needs::Nothing;
}

/// A door for verified accounts.
#[derive(Debug)]
pub struct Verified;

impl Door for Verified {
    const NEEDS: Needs = Needs::Verified;
}

/// A door for whoever reads, follows or stops what is there: it leads to no channel.
#[derive(Debug)]
pub struct Reading;

impl Door for Reading {
    const NEEDS: Needs = Needs::Verified;
    const BUCKET: Bucket = Bucket::Reads;
}

/// The REST channel's door.
#[derive(Debug)]
pub struct Rest;

impl Door for Rest {
    const NEEDS: Needs = Needs::Channel(Channel::Api);
}

/// The door of the Webhooks channel: submission without waiting, and endpoints.
#[derive(Debug)]
pub struct Webhooks;

impl Door for Webhooks {
    const NEEDS: Needs = Needs::Channel(Channel::Webhooks);
}

/// A caller that has passed the gate through the door `D`. As a handler's argument it *is* the authentication.
#[derive(Debug)]
pub struct Admitted<D> {
    /// Who it is.
    pub caller: Arc<Caller>,
    door: PhantomData<D>,
}

impl<S, D> FromRequestParts<S> for Admitted<D>
where
    S: Sync,
    D: Door,
    Gate: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Gate::from_ref(state).admit(parts, D::NEEDS, D::BUCKET).await?;
        Ok(Self { caller, door: PhantomData })
    }
}

/// Everything that the gate looks at.
#[derive(Clone)]
pub struct Gate {
    authenticator: Authenticator,
    limiter: Arc<RateLimiter>,
    proxies: Arc<TrustedProxies>,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// A gate that knows callers by `authenticator` and clients behind `proxies`.
    pub fn new(
        authenticator: Authenticator,
        limiter: Arc<RateLimiter>,
        proxies: TrustedProxies,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { authenticator, limiter, proxies: Arc::new(proxies), metrics }
    }

    /// The order is the contract's: 429 for the address, 401, 403, 429 for the key.
    async fn admit(&self, parts: &Parts, needs: Needs, bucket: Bucket) -> Result<Arc<Caller>, ApiError> {
        let found = self.authenticator.caller(&parts.headers).await.map_err(|error| {
            error!(%error, "could not look up a key");
            ApiError::StoreUnavailable
        })?;
        let caller = found.ok_or_else(|| self.refusal(parts))?;
        let key = caller.key.id;
        let context = parts.extensions.get::<Arc<RequestContext>>();
        if let Err(refusal) = check(&caller, needs) {
            context.inspect(|context| context.note_standing(bucket, self.limiter.standing(bucket, key)));
            return Err(refusal);
        }
        let counted = self.limiter.request(bucket, key);
        let standing = counted.unwrap_or_else(|standing| standing);
        context.inspect(|context| context.note_standing(bucket, standing));
        if counted.is_err() {
            self.metrics.limited(bucket.name());
            return Err(ApiError::RateLimited);
        }
        Ok(caller)
    }

    /// Only failures count, and only failures are answered 429: a valid key never comes here.
    fn refusal(&self, parts: &Parts) -> ApiError {
        if self.limiter.failure(self.client(parts)) {
            return ApiError::Unauthorized;
        }
        self.metrics.limited("failures");
        ApiError::TooManyFailures
    }

    fn client(&self, parts: &Parts) -> IpAddr {
        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.address.ip());
        self.proxies.client(peer, &parts.headers)
    }
}

fn check(caller: &Caller, needs: Needs) -> Result<(), ApiError> {
    let account = &caller.account;
    if needs != Needs::Nothing && !account.email_verified {
        return Err(ApiError::EmailUnverified);
    }
    match needs {
        Needs::Channel(channel) if !account.channels.contains(channel) => Err(ApiError::ChannelDisabled(channel)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use common::domain::{
        account::Account,
        channel::ChannelSet,
        ids::{AccountId, KeyId},
        key::ApiKey,
        time::Millis,
    };

    use super::*;

    fn caller(email_verified: bool, api: bool) -> Caller {
        let account = Account {
            id: AccountId::new(),
            name: "acme".to_owned(),
            email: "ops@example.com".to_owned(),
            email_verified,
            channels: ChannelSet::default().with(Channel::Api, api),
            balance: 0,
            has_endpoints: false,
            created_at: Millis(0),
        };
        let key = ApiKey {
            id: KeyId::new(),
            account_id: account.id,
            name: "first".to_owned(),
            last_four: "0000".to_owned(),
            agents: None,
            created_at: Millis(0),
            revoked_at: None,
        };
        Caller { account, key }
    }

    #[test]
    fn the_email_is_looked_at_before_the_channel() {
        let rest = Needs::Channel(Channel::Api);
        assert_eq!(check(&caller(false, false), rest), Err(ApiError::EmailUnverified));
        assert_eq!(check(&caller(true, false), rest), Err(ApiError::ChannelDisabled(Channel::Api)));
        assert_eq!(check(&caller(true, true), rest), Ok(()));
        assert_eq!(check(&caller(true, false), Needs::Verified), Ok(()));
        assert_eq!(check(&caller(false, false), Needs::Verified), Err(ApiError::EmailUnverified));
        assert_eq!(check(&caller(false, false), Needs::Nothing), Ok(()));
    }
}
