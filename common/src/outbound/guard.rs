//! The guard against requests that a user makes us send into our own network (SSRF).
//!
//! A URL is looked at twice: when it is saved, so that its owner hears of a mistake at once, and whenever it is
//! called, since a name may lead elsewhere by then. [`Guard::addresses`] is what a connection has to be made with:
//! exactly the addresses that were judged, without a second look-up.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::timeout;
use url::{Host, Url};

use super::{
    address::judge,
    lookup::{Lookup, SystemLookup},
    refusal::{Kind, MAX_URL_BYTES, Refusal},
};
use crate::{
    cache::Cache,
    env::{self, EnvError},
};

/// How long saving waits for a name's addresses; what is not known by then is judged when it is called.
const SAVE_LIMIT: Duration = Duration::from_secs(2);
/// How long the judgement on a name is used for further saves.
const SAVE_MEMORY: Duration = Duration::from_secs(10);
/// How many such judgements are kept.
const SAVE_NAMES: u64 = 10_000;

/// Judges where a call would lead. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    lookup: Arc<dyn Lookup>,
    allow_loopback: bool,
    saved: Arc<Cache<String, Refusal>>,
}

/// Why a name gives no address to connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// It leads where we do not go.
    #[error("the address {0}")]
    Refused(Refusal),
    /// It has no address, or nobody could say.
    #[error("the host's name could not be resolved")]
    Unknown,
    /// Nobody was asked: too many other names are being looked up.
    #[error("the host's name was not looked up")]
    Busy,
}

impl Guard {
    /// A guard with the machine's own resolver; `allow_loopback`: whether this machine may be called, for development.
    pub fn new(allow_loopback: bool) -> Self {
        Self::with_lookup(allow_loopback, Arc::new(SystemLookup::new()))
    }

    /// A guard that judges as this one does, with the machine's own resolver and a room of its own for look-ups.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self::new(self.allow_loopback)
    }

    /// A guard with another resolver.
    pub fn with_lookup(allow_loopback: bool, lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, allow_loopback, saved: Arc::new(Cache::new(SAVE_NAMES, SAVE_MEMORY)) }
    }

    /// What `FRONTDESK_ALLOW_LOOPBACK_TARGETS` says.
    pub fn from_environment() -> Result<Self, EnvError> {
        env::parse("FRONTDESK_ALLOW_LOOPBACK_TARGETS", false).map(Self::new)
    }

    /// Judges `url` when it is saved. A name without any address at the moment passes: it may get one, and is judged
    /// again at each call.
    ///
    /// # Errors
    /// With what is wrong, to be told to whoever gave the URL.
    pub async fn check(&self, url: &str) -> Result<(), Refusal> {
        let target = self.target(url)?;
        let Some(Host::Domain(host)) = target.host() else { return Ok(()) };
        let judged = self.saved.get(host.to_owned(), || async {
            let refusal = match timeout(SAVE_LIMIT, self.addresses(host)).await {
                Ok(Err(NoAddress::Refused(refusal))) => Some(refusal),
                Ok(Ok(_) | Err(NoAddress::Unknown | NoAddress::Busy)) | Err(_) => None,
            };
            Ok::<_, Infallible>(refusal)
        });
        match judged.await {
            Ok(Some(refusal)) => Err(refusal),
            Ok(None) => Ok(()),
        }
    }

    /// `url` as it would be called, when nothing is wrong with it that can be seen without asking for addresses.
    /// Numbers for hosts are judged here, in whatever notation: a connection to one asks no resolver.
    pub fn target(&self, url: &str) -> Result<Url, Refusal> {
        if url.len() > MAX_URL_BYTES {
            return Err(Refusal::TooLong);
        }
        if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Refusal::Characters);
        }
        let target = Url::parse(url).map_err(|_| Refusal::NoUrl)?;
        if !matches!(target.scheme(), "http" | "https") {
            return Err(Refusal::Scheme);
        }
        if !target.username().is_empty() || target.password().is_some() {
            return Err(Refusal::Credentials);
        }
        match target.host() {
            Some(Host::Ipv4(address)) => self.judge(address.into())?,
            Some(Host::Ipv6(address)) => self.judge(address.into())?,
            Some(Host::Domain(name)) if is_localhost(name) => self.refuse(Kind::Loopback)?,
            Some(Host::Domain(_)) => {}
            None => return Err(Refusal::NoUrl),
        }
        Ok(target)
    }

    /// The addresses to connect to for `host`, all of them judged: one that is refused refuses the name.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NoAddress> {
        let found = self.lookup.addresses(host).await.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => NoAddress::Busy,
            _ => NoAddress::Unknown,
        })?;
        for address in &found {
            self.judge(*address).map_err(NoAddress::Refused)?;
        }
        if found.is_empty() { Err(NoAddress::Unknown) } else { Ok(found) }
    }

    fn judge(&self, address: IpAddr) -> Result<(), Refusal> {
        judge(address).map_or(Ok(()), |kind| self.refuse(kind))
    }

    fn refuse(&self, kind: Kind) -> Result<(), Refusal> {
        if kind == Kind::Loopback && self.allow_loopback { Ok(()) } else { Err(Refusal::Address(kind)) }
    }
}

/// Such names mean this machine, whatever a resolver says (RFC 6761).
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use futures_util::future::BoxFuture;

    use super::*;

    /// Answers with one list of addresses after the other, and with the last one for ever.
    #[derive(Debug)]
    struct Changing(Mutex<VecDeque<Vec<&'static str>>>);

    impl Lookup for Changing {
        fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            let mut lists = self.0.lock().expect("the lists");
            let list = if lists.len() > 1 { lists.pop_front() } else { lists.front().cloned() };
            let parsed = list.unwrap_or_default().into_iter().map(|text| text.parse().expect("an address")).collect();
            Box::pin(async move { Ok(parsed) })
        }
    }

    fn resolving(lists: &[&[&'static str]]) -> Guard {
        let lists = lists.iter().map(|list| list.to_vec()).collect();
        Guard::with_lookup(false, Arc::new(Changing(Mutex::new(lists))))
    }

    /// The one sentence for each way to write an address that nobody outside may call.
    #[test]
    fn a_number_for_a_host_is_judged_in_every_notation() {
        let guard = resolving(&[&["8.8.8.8"]]);
        for (host, kind) in [
            ("127.0.0.1", Kind::Loopback),
            ("127.0.0.1.", Kind::Loopback),
            ("127.1", Kind::Loopback),
            ("127.0.1", Kind::Loopback),
            ("2130706433", Kind::Loopback),
            ("0x7f000001", Kind::Loopback),
            ("0X7F.1", Kind::Loopback),
            ("0x7f.0x0.0x0.0x1", Kind::Loopback),
            ("017700000001", Kind::Loopback),
            ("0177.0.0.01", Kind::Loopback),
            ("0177.0x0.1", Kind::Loopback),
            ("0000000000000000000000177.1", Kind::Loopback),
            ("%31%32%37.0.0.1", Kind::Loopback),
            ("127%2e0%2E0%2e1", Kind::Loopback),
            ("①②⑦.⓪.⓪.①", Kind::Loopback),
            ("１２７.０.０.１", Kind::Loopback),
            ("127。0。0。1", Kind::Loopback),
            ("127.255.255.254", Kind::Loopback),
            ("[::1]", Kind::Loopback),
            ("[0:0:0:0:0:0:0:1]", Kind::Loopback),
            ("[0000:0000:0000:0000:0000:0000:0000:0001]", Kind::Loopback),
            ("[::ffff:127.0.0.1]", Kind::Loopback),
            ("[::ffff:7f00:1]", Kind::Loopback),
            ("[0:0:0:0:0:ffff:7f00:0001]", Kind::Loopback),
            ("[::127.0.0.1]", Kind::Loopback),
            ("[64:ff9b::7f00:1]", Kind::Loopback),
            ("[2002:7f00:1::]", Kind::Loopback),
            ("localhost", Kind::Loopback),
            ("LOCALHOST.", Kind::Loopback),
            ("api.localhost", Kind::Loopback),
            ("ｌｏｃａｌｈｏｓｔ", Kind::Loopback),
            ("loc\u{AD}alhost", Kind::Loopback),
            ("0", Kind::Reserved),
            ("0.0.0.0", Kind::Reserved),
            ("[::]", Kind::Reserved),
            ("255.255.255.255", Kind::Reserved),
            ("4294967295", Kind::Reserved),
            ("224.0.0.1", Kind::Reserved),
            ("10.0.0.1", Kind::Private),
            ("167772161", Kind::Private),
            ("0xa000001", Kind::Private),
            ("012.0.0.1", Kind::Private),
            ("10.1", Kind::Private),
            ("172.16.0.1", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("192.168.1.1", Kind::Private),
            ("0xC0A80101", Kind::Private),
            ("[::ffff:192.168.1.1]", Kind::Private),
            ("[fd12:3456::1]", Kind::Private),
            ("100.64.0.1", Kind::Shared),
            ("1681915905", Kind::Shared),
            ("169.254.1.1", Kind::LinkLocal),
            ("[fe80::1]", Kind::LinkLocal),
            ("169.254.169.254", Kind::Metadata),
            ("2852039166", Kind::Metadata),
            ("0xa9fea9fe", Kind::Metadata),
            ("0251.0376.0251.0376", Kind::Metadata),
            ("0xa9.254.0251.254", Kind::Metadata),
            ("[::ffff:a9fe:a9fe]", Kind::Metadata),
            ("[64:ff9b::169.254.169.254]", Kind::Metadata),
            ("[2002:a9fe:a9fe::1]", Kind::Metadata),
            ("[fd00:ec2::254]", Kind::Metadata),
            ("168.63.129.16", Kind::Metadata),
            ("100.100.100.200", Kind::Metadata),
        ] {
            for url in [format!("http://{host}/hook"), format!("https://{host}:8443"), format!("http:\\\\{host}\\x")] {
                assert_eq!(guard.target(&url).map(drop), Err(Refusal::Address(kind)), "{url}");
            }
        }
    }

    #[test]
    fn what_is_no_public_url_is_refused_with_its_reason() {
        let guard = resolving(&[&["8.8.8.8"]]);
        for (url, refusal) in [
            ("", Refusal::NoUrl),
            ("example.com/hook", Refusal::NoUrl),
            ("//example.com", Refusal::NoUrl),
            ("http://", Refusal::NoUrl),
            ("http://[fe80::1%25eth0]/", Refusal::NoUrl),
            ("http://256.256.256.256/", Refusal::NoUrl),
            ("http://1.2.3.4.5/", Refusal::NoUrl),
            ("http://exa<mple.com/", Refusal::NoUrl),
            ("http://example.com:99999/", Refusal::NoUrl),
            ("ftp://example.com/", Refusal::Scheme),
            ("file:///etc/passwd", Refusal::Scheme),
            ("gopher://example.com/", Refusal::Scheme),
            ("javascript:alert(1)", Refusal::Scheme),
            ("unix:/var/run/docker.sock", Refusal::Scheme),
            ("http://me@example.com/", Refusal::Credentials),
            ("http://:pw@example.com/", Refusal::Credentials),
            ("http://example.com@127.0.0.1/", Refusal::Credentials),
            (" http://example.com/", Refusal::Characters),
            ("http://exam\tple.com/", Refusal::Characters),
            ("http://example.com/\r\nX-Evil: 1", Refusal::Characters),
            ("http://example.com/\0", Refusal::Characters),
            ("http://127.0.0.1\u{2003}", Refusal::Characters),
        ] {
            assert_eq!(guard.target(url).map(drop), Err(refusal), "{url:?}");
        }
        let long = |bytes: usize| format!("https://example.com/{}", "x".repeat(bytes - 20));
        assert_eq!(guard.target(&long(MAX_URL_BYTES)).map(drop), Ok(()));
        assert_eq!(guard.target(&long(MAX_URL_BYTES + 1)).map(drop), Err(Refusal::TooLong));
    }

    #[tokio::test]
    async fn a_public_url_passes() {
        let guard = resolving(&[&["8.8.8.8", "2606:4700::1111"]]);
        for url in [
            "https://example.com/hook?x=1",
            "http://EXAMPLE.com:8080",
            "https://1.1.1.1/",
            "https://[2606:4700::1]/",
            "https://bücher.example/",
        ] {
            assert_eq!(guard.check(url).await, Ok(()), "{url}");
        }
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_judged() {
        let mixed = resolving(&[&["8.8.8.8", "10.0.0.1"]]);
        assert_eq!(mixed.check("https://example.com/").await, Err(Refusal::Address(Kind::Private)));
        let mapped = resolving(&[&["2606:4700::1111", "::ffff:169.254.169.254"]]);
        assert_eq!(mapped.check("https://example.com/").await, Err(Refusal::Address(Kind::Metadata)));
        let none = resolving(&[&[]]);
        assert_eq!(none.check("https://example.com/").await, Ok(()), "it may get an address before it is called");
        assert_eq!(none.addresses("example.com").await, Err(NoAddress::Unknown));
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_later_is_refused_then() {
        let guard = resolving(&[&["8.8.8.8"], &["127.0.0.1"], &["8.8.8.8"]]);
        assert_eq!(guard.check("https://rebind.example/").await, Ok(()));
        assert_eq!(guard.addresses("rebind.example").await, Err(NoAddress::Refused(Refusal::Address(Kind::Loopback))));
        assert_eq!(guard.addresses("rebind.example").await, Ok(vec!["8.8.8.8".parse().expect("an address")]));
    }

    #[tokio::test]
    async fn development_allows_loopback_and_nothing_else() {
        let guard = Guard::new(true);
        for url in ["http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost:1/", "http://[::ffff:127.0.0.1]/"] {
            assert_eq!(guard.check(url).await, Ok(()), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://169.254.169.254/", "http://0.0.0.0/", "http://[::]/"] {
            assert!(matches!(guard.check(url).await, Err(Refusal::Address(_))), "{url}");
        }
    }

    #[test]
    fn a_refusal_goes_on_from_the_name_of_its_field() {
        let sentence = format!("`callback_url` {}", Refusal::Address(Kind::Private));
        assert_eq!(sentence, "`callback_url` leads to a private address; only public addresses are called");
    }
}
