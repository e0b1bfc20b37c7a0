//! Where a request really comes from, when proxies that we trust stand in between.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use common::sabotage::{self, Bug};
use http::{HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose `X-Forwarded-For` is believed: addresses and networks, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// The address of the client: the peer's, or the right-most hop that is none of our proxies.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if sabotage::has(Bug::LeftMostHop) {
            let line = headers.get(X_FORWARDED_FOR).and_then(|line| line.to_str().ok());
            return line.and_then(|line| address_of(line.split(',').next()?.trim())).unwrap_or(client);
        }
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            // Whoever wrote what cannot be read is the last one that we know of.
            let Ok(line) = line.to_str() else { return client };
            for hop in line.rsplit(',') {
                if !self.contains(client) {
                    return client;
                }
                match address_of(hop.trim()) {
                    Some(address) => client = address,
                    None => return client,
                }
            }
        }
        client
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// A hop may come with a port.
fn address_of(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

/// A text that is neither an address nor a network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither an address nor a network such as 10.0.0.0/8")]
pub struct NoNetwork(String);

impl FromStr for TrustedProxies {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let networks = entries.map(|entry| Network::parse(entry).ok_or_else(|| NoNetwork(entry.to_owned())));
        networks.collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let base: IpAddr = base.parse().ok()?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse().ok())?;
        (prefix <= longest).then_some(Self { base, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => self.covers(bits_of_v4(base), bits_of_v4(address)),
            (IpAddr::V6(base), IpAddr::V6(address)) => self.covers(base.to_bits(), address.to_bits()),
            _ => false,
        }
    }

    fn covers(self, base: u128, address: u128) -> bool {
        let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
        base & mask == address & mask
    }
}

/// The address in the upper bits, so that a prefix means the same for both families.
fn bits_of_v4(address: Ipv4Addr) -> u128 {
    u128::from(address.to_bits()) << 96
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(trusted: &str, peer: &str, lines: &[&str]) -> String {
        let proxies: TrustedProxies = trusted.parse().expect("networks");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        }
        proxies.client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn an_unknown_peer_is_the_client_whatever_it_says() {
        assert_eq!(client("", "203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
    }

    #[test]
    fn behind_proxies_it_is_the_right_most_hop_that_is_none() {
        let trusted = "10.0.0.0/8, 192.0.2.1, fd00::/8";
        assert_eq!(client(trusted, "10.1.2.3", &["6.6.6.6, 1.2.3.4, 192.0.2.1"]), "1.2.3.4");
        assert_eq!(client(trusted, "10.1.2.3", &["6.6.6.6, 1.2.3.4", "192.0.2.1, 10.9.9.9"]), "1.2.3.4");
        assert_eq!(client(trusted, "::ffff:10.1.2.3", &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(client(trusted, "fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client(trusted, "fd00::1", &["[2001:db8::7]"]), "2001:db8::7");
    }

    #[test]
    fn without_a_readable_hop_it_is_the_last_known_one() {
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &["1.2.3.4, unknown, 10.0.0.7"]), "10.0.0.7");
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &["10.0.0.9, 10.0.0.8"]), "10.0.0.9");
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &["é"]), "10.1.2.3");
    }

    #[test]
    fn prefixes_reach_from_none_to_all_bits() {
        assert_eq!(client("0.0.0.0/0", "9.9.9.9", &["8.8.8.8"]), "8.8.8.8");
        assert_eq!(client("::/0", "9.9.9.9", &["8.8.8.8"]), "9.9.9.9");
        for wrong in ["10.0.0.0/33", "::/129", "ten", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(wrong.parse::<TrustedProxies>().is_err(), "{wrong}");
        }
    }
}
