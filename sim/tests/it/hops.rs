//! Where a request comes from: the right-most hop that is none of our proxies, whatever its sender has written before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway::auth::client::TrustedProxies;
use http::{HeaderMap, HeaderName, HeaderValue};
use sim::{check, proptest::prelude::*};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const TRUSTED: &str = "10.0.0.0/8, 192.0.2.1, fd00::/8";

/// How a hop is written.
fn written(address: IpAddr, manner: u8) -> String {
    match (address, manner % 4) {
        (IpAddr::V4(v4), 1) => format!("{v4}:5678"),
        (IpAddr::V4(v4), 2) => v4.to_ipv6_mapped().to_string(),
        (IpAddr::V6(v6), 1) => format!("[{v6}]:443"),
        (IpAddr::V6(v6), 2) => format!("[{v6}]"),
        (address, 3) => format!("  {address} "),
        (address, _) => address.to_string(),
    }
}

fn proxy() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 3]>().prop_map(|[b, c, d]| Ipv4Addr::new(10, b, c, d).into()),
        Just(Ipv4Addr::new(192, 0, 2, 1).into()),
        any::<u64>().prop_map(|host| Ipv6Addr::from_bits(0xfd_u128 << 120 | u128::from(host)).into()),
    ]
}

fn stranger() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        // Neighbours of our own addresses are none of ours.
        any::<[u8; 3]>().prop_map(|[b, c, d]| Ipv4Addr::new(11, b, c, d).into()),
        Just(Ipv4Addr::new(192, 0, 2, 0).into()),
        Just(Ipv4Addr::new(9, 255, 255, 255).into()),
        any::<u64>().prop_map(|host| Ipv6Addr::from_bits(0xfc_u128 << 120 | u128::from(host)).into()),
        any::<u64>().prop_map(|host| Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(host)).into()),
    ]
}

/// What a sender writes into the header before the first proxy sees it: addresses of ours among it.
fn forged() -> impl Strategy<Value = String> {
    prop_oneof![
        (proxy(), any::<u8>()).prop_map(|(address, manner)| written(address, manner)),
        (stranger(), any::<u8>()).prop_map(|(address, manner)| written(address, manner)),
        prop::sample::select(vec!["", "unknown", "10.0.0.1 10.0.0.2", "[::1", "10.0.0.0/8", "999.1.1.1", "é"])
            .prop_map(str::to_owned),
    ]
}

#[derive(Clone, Debug)]
struct Way {
    forged: Vec<String>,
    /// Who sends, and the proxies on the way, the last of which is the peer.
    sender: IpAddr,
    proxies: Vec<IpAddr>,
    manners: Vec<u8>,
    /// After which hops a new header line begins.
    breaks: Vec<bool>,
}

fn way() -> impl Strategy<Value = Way> {
    let (forged, proxies) = (prop::collection::vec(forged(), 0..5), prop::collection::vec(proxy(), 0..5));
    let marks = (prop::collection::vec(any::<u8>(), 5), prop::collection::vec(any::<bool>(), 10));
    (forged, stranger(), proxies, marks).prop_map(|(forged, sender, proxies, (manners, breaks))| Way {
        forged,
        sender,
        proxies,
        manners,
        breaks,
    })
}

impl Way {
    /// What the gateway sees: each proxy has written down whom it was called by.
    fn arrives(&self) -> (IpAddr, HeaderMap) {
        let callers = [self.sender].into_iter().chain(self.proxies.iter().copied()).collect::<Vec<_>>();
        let (peer, noted) = callers.split_last().expect("a sender");
        let noted = noted.iter().zip(&self.manners).map(|(address, manner)| written(*address, *manner));
        let mut lines: Vec<String> = Vec::new();
        for (hop, is_new) in self.forged.iter().cloned().chain(noted).zip(&self.breaks) {
            match lines.last_mut().filter(|_| !is_new) {
                Some(line) => *line = format!("{line},{hop}"),
                None => lines.push(hop),
            }
        }
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        }
        (*peer, headers)
    }
}

#[test]
fn nobody_can_write_himself_another_address() {
    let trusted: TrustedProxies = TRUSTED.parse().expect("networks");
    check(file!(), "right-most untrusted hop", 4_000, way(), |way| {
        let (peer, headers) = way.arrives();
        // A line that holds what is no text hides its whole line: then it is the last hop that could be read.
        let is_readable = headers.get_all(X_FORWARDED_FOR).iter().all(|line| line.to_str().is_ok());
        let client = trusted.client(peer, &headers);
        if is_readable {
            assert_eq!(client, way.sender, "{headers:?}");
        } else {
            assert!(client == way.sender || way.proxies.contains(&client), "{client} {headers:?}");
        }
    });
}
