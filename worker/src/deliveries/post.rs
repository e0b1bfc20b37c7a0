//! One request to a receiver: the guard before it, the limits around it, and what came of it.

use std::{error::Error, net::SocketAddr, time::Duration};

use bytes::Bytes;
use common::{
    domain::time::Millis,
    outbound::{
        guard::{Guard, NoAddress},
        refusal::Refusal,
    },
    sabotage::{self, Bug, Point},
};
use reqwest::{
    Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::CONTENT_TYPE,
    redirect::Policy,
};
use tracing::warn;

use super::schedule::LONGEST_RETRY_AFTER;
use crate::retry_after;

/// How long one try may take, from the look-up of the name to the head of the answer.
pub const TRY_LIMIT: Duration = Duration::from_secs(20);
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next delivery. Short, so that a name that leads elsewhere is soon noticed.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// As many connections are kept for one receiver as it may have at once.
const IDLE_CONNECTIONS: usize = 2;

/// A request that is ready to leave.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The receiver's address.
    pub url: String,
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`, in seconds since 1970.
    pub timestamp: i64,
    /// `webhook-signature`: one signature, or several separated by spaces.
    pub signatures: String,
    /// The JSON.
    pub body: Bytes,
}

/// An answer to a [`Parcel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its status.
    pub status: u16,
    /// The pause that it asks for.
    pub retry_after: Option<Duration>,
}

impl Receipt {
    /// Whether the receiver has taken the event. A redirect is no success: it is not followed.
    pub fn is_taken(self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the receiver says that it is gone for good.
    pub fn is_gone(self) -> bool {
        self.status == StatusCode::GONE.as_u16()
    }
}

/// Why there is no answer; as text for the receiver's owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The guard refused the address as it stands.
    #[error("the address {0}")]
    Refused(Refusal),
    /// The host's name leads to no address that we may call.
    #[error("{0}")]
    NoAddress(NoAddress),
    /// No answer within [`TRY_LIMIT`].
    #[error("no answer within {} s", TRY_LIMIT.as_secs())]
    Timeout,
    /// There is no connection: refused, unreachable, or TLS that does not come about.
    #[error("no connection could be made")]
    Connect,
    /// The connection ended, or what came over it was no HTTP.
    #[error("the connection broke off without an answer")]
    Broken,
}

/// Sends parcels. Follows no redirects and knows no proxies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Post {
    client: Client,
    guard: Guard,
}

impl Post {
    /// A sender that goes only where `guard` lets it.
    ///
    /// # Panics
    /// When no rustls crypto provider has been installed in this process.
    pub fn new(guard: Guard) -> Result<Self, reqwest::Error> {
        let builder = || {
            Client::builder()
                .user_agent(concat!("frontdesk/", env!("CARGO_PKG_VERSION")))
                .redirect(if sabotage::has(Bug::RedirectFollowed) { Policy::default() } else { Policy::none() })
                .no_proxy()
                .connect_timeout(CONNECT_LIMIT)
                .timeout(TRY_LIMIT)
                .pool_idle_timeout(IDLE_LIMIT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .dns_resolver(GuardedNames(guard.clone()))
        };
        let client = builder().build().or_else(|error| {
            warn!(%error, "no certificates are found on this machine: receivers at https:// cannot be reached");
            builder().tls_certs_only([]).build()
        })?;
        Ok(Self { client, guard })
    }

    /// Sends `parcel` once. Returns within [`TRY_LIMIT`].
    pub async fn send(&self, parcel: Parcel) -> Result<Receipt, PostError> {
        let url = self.guard.target(&parcel.url).map_err(PostError::Refused)?;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", parcel.id)
            .header("webhook-timestamp", parcel.timestamp)
            .header("webhook-signature", parcel.signatures)
            .body(parcel.body);
        sabotage::reach(Point::BeforePost);
        let answer = request.send().await.map_err(|error| error_of(&error))?;
        sabotage::reach(Point::AfterPost);
        let retry_after = retry_after::read(answer.headers(), Millis::now(), LONGEST_RETRY_AFTER);
        Ok(Receipt { status: answer.status().as_u16(), retry_after })
    }
}

fn error_of(error: &reqwest::Error) -> PostError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(no_address) = error.downcast_ref::<NoAddress>() {
            return PostError::NoAddress(no_address.clone());
        }
        cause = error.source();
    }
    if error.is_timeout() {
        PostError::Timeout
    } else if error.is_connect() {
        PostError::Connect
    } else {
        PostError::Broken
    }
}

/// Gives a connection the addresses that the guard has judged, and no others.
struct GuardedNames(Guard);

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str()).await?;
            // The port is that of the URL.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
