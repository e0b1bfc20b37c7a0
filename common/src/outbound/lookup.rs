//! From a host's name to its addresses.

use std::{fmt, io, net::IpAddr};

use futures_util::future::BoxFuture;

/// What knows the addresses of names.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// All addresses of `host`, as they are now.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The machine's own resolver.
#[derive(Debug)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}
