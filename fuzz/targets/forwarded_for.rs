//! Where a request comes from: no hop is believed that nobody whom we trust has told of.
//!
//! The first line of the input is who is trusted, the second is the peer, and each further one an `X-Forwarded-For`.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use gateway::auth::client::TrustedProxies;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Some(trusted) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) else { return };
    let Some(peer) = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse::<IpAddr>().ok()) else { return };
    let Ok(proxies) = trusted.parse::<TrustedProxies>() else { return };
    let (mut headers, mut hops) = (HeaderMap::new(), Vec::new());
    for line in lines {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        match value.to_str() {
            Ok(text) => hops.extend(text.split(',').map(|hop| read(hop.trim()))),
            Err(_) => hops.push(None),
        }
        headers.append("x-forwarded-for", value);
    }
    let client = proxies.client(peer, &headers);

    // From the peer on, each one that is trusted has told of the one before it.
    let is_trusted = |address: IpAddr| proxies.client(address, &told(PROBE)) == PROBE && address != PROBE;
    let mut believed = peer.to_canonical();
    for hop in hops.into_iter().rev() {
        match hop.filter(|_| is_trusted(believed)) {
            Some(hop) => believed = hop,
            None => break,
        }
    }
    if !is_trusted(PROBE) && believed != PROBE {
        assert_eq!(client, believed);
    }
    if trusted.trim().is_empty() {
        assert_eq!(client, peer.to_canonical(), "nobody is trusted");
    }
});

/// An address that is told of to learn whether somebody is believed.
const PROBE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xabc, 0, 0, 0, 0, 1));

fn told(hop: IpAddr) -> HeaderMap {
    HeaderMap::from_iter([("x-forwarded-for".parse().expect("a name"), hop.to_string().parse().expect("a value"))])
}

fn read(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse::<IpAddr>().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}
