//! Why an address that a user gave is not called.

use std::fmt;

/// The longest URL that is taken, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// What is wrong with a URL. As text it goes on from the name of the field that held it: "`url` is not a URL".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than [`MAX_URL_BYTES`].
    #[error("is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// White space or control characters, which parsers disagree on.
    #[error("must not hold spaces or control characters")]
    Characters,
    /// No URL at all.
    #[error("is not a URL such as https://example.com/hook")]
    NoUrl,
    /// Another scheme.
    #[error("has to begin with http:// or https://")]
    Scheme,
    /// A name or password in it, which lists and logs would show.
    #[error("must not hold a user name or a password")]
    Credentials,
    /// It leads where the public Internet does not. The address itself is not told: a name inside our network is
    /// nobody's business.
    #[error("leads to {0}; only public addresses are called")]
    Address(Kind),
}

/// What an address that is not public is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This machine.
    Loopback,
    /// A private network.
    Private,
    /// The wire that the machine hangs on.
    LinkLocal,
    /// The network between a carrier and its customers (RFC 6598).
    Shared,
    /// A cloud's service that tells machines their credentials.
    Metadata,
    /// Everything else that is no host on the public Internet: multicast, documentation, tunnels, not assigned.
    Reserved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Shared => "an address inside a carrier's network",
            Self::Metadata => "a cloud's metadata address",
            Self::Reserved => "a reserved address",
        })
    }
}
