//! Which addresses are hosts on the public Internet, after IANA's registries of special-purpose addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::refusal::Kind;

/// First address, length of the prefix, what it is for. The first line that fits counts.
const V4: [(Ipv4Addr, u32, Kind); 20] = [
    (Ipv4Addr::new(169, 254, 169, 254), 32, Kind::Metadata), // AWS, Azure, Google, most others
    (Ipv4Addr::new(169, 254, 170, 2), 32, Kind::Metadata),   // AWS, for containers
    (Ipv4Addr::new(100, 100, 100, 200), 32, Kind::Metadata), // Alibaba
    (Ipv4Addr::new(168, 63, 129, 16), 32, Kind::Metadata),   // Azure, in the midst of public addresses
    (Ipv4Addr::new(192, 0, 0, 192), 32, Kind::Metadata),     // Oracle
    (Ipv4Addr::new(0, 0, 0, 0), 8, Kind::Reserved),          // "this network"; Linux takes 0.0.0.0 for itself
    (Ipv4Addr::new(10, 0, 0, 0), 8, Kind::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Kind::Shared),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Kind::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Kind::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Kind::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Kind::Reserved), // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24, Kind::Reserved), // documentation, and the two below
    (Ipv4Addr::new(198, 51, 100, 0), 24, Kind::Reserved),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Kind::Reserved),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Kind::Reserved), // relays from 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16, Kind::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Kind::Reserved), // benchmarks
    (Ipv4Addr::new(224, 0, 0, 0), 4, Kind::Reserved),   // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4, Kind::Reserved),   // kept for later; broadcast
];

/// The same for IPv6. Only `2000::/3` has been given to hosts, so that everything else is refused further down.
const V6: [(Ipv6Addr, u32, Kind); 10] = [
    (Ipv6Addr::LOCALHOST, 128, Kind::Loopback),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, Kind::Metadata), // AWS
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Kind::Metadata),  // Google
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Kind::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Kind::LinkLocal),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Kind::Private), // site-local, as it once was
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Kind::Reserved), // Teredo, ORCHID, protocol assignments
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Kind::Reserved), // documentation, and the next but one
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Kind::Reserved), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Kind::Reserved),
];

/// What `address` is for; `None` when it may be a host on the public Internet.
pub fn judge(address: IpAddr) -> Option<Kind> {
    match address {
        IpAddr::V4(address) => judge_v4(address),
        IpAddr::V6(address) => judge_v6(address),
    }
}

fn judge_v4(address: Ipv4Addr) -> Option<Kind> {
    let covers = |base: Ipv4Addr, prefix: u32| (base.to_bits() ^ address.to_bits()) >> (32 - prefix) == 0;
    V4.iter().find(|(base, prefix, _)| covers(*base, *prefix)).map(|(.., kind)| *kind)
}

fn judge_v6(address: Ipv6Addr) -> Option<Kind> {
    let covers = |base: Ipv6Addr, prefix: u32| (base.to_bits() ^ address.to_bits()) >> (128 - prefix) == 0;
    if let Some((.., kind)) = V6[..6].iter().find(|(base, prefix, _)| covers(*base, *prefix)) {
        return Some(*kind);
    }
    match embedded(address) {
        Some(Embedded { v4, is_public_form }) => judge_v4(v4).or((!is_public_form).then_some(Kind::Reserved)),
        None if !covers(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3) => Some(Kind::Reserved),
        None => V6[6..].iter().find(|(base, prefix, _)| covers(*base, *prefix)).map(|(.., kind)| *kind),
    }
}

/// An IPv4 address inside one of IPv6.
struct Embedded {
    v4: Ipv4Addr,
    /// Whether the form around it is one that hosts use to reach public IPv4 addresses.
    is_public_form: bool,
}

fn embedded(address: Ipv6Addr) -> Option<Embedded> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    let (v4, is_public_form) = match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] => (v4(g, h), true),    // mapped (RFC 4291)
        [0x64, 0xff9b, 0, 0, 0, 0] => (v4(g, h), true), // NAT64 (RFC 6052), what DNS64 makes of a public name
        [0, 0, 0, 0, 0, 0] => (v4(g, h), false),        // compatible (RFC 4291, given up)
        [0, 0, 0, 0, 0xffff, 0] => (v4(g, h), false),   // translated (RFC 2765)
        [0x64, 0xff9b, 1, ..] => (v4(g, h), false),     // NAT64 inside one network (RFC 8215)
        [0x2002, ..] => (v4(b, c), false),              // 6to4 (RFC 3056)
        [0x2001, 0, ..] => (v4(!g, !h), false),         // Teredo (RFC 4380)
        [.., 0 | 0x200, 0x5efe] => (v4(g, h), true),    // ISATAP (RFC 5214), below any prefix
        _ => return None,
    };
    Some(Embedded { v4, is_public_form })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Option<Kind> {
        judge(text.parse().expect("an address"))
    }

    #[test]
    fn the_first_and_last_of_each_network_are_refused_and_their_neighbours_are_not() {
        for (before, first, last, after, kind) in [
            ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", Kind::Private),
            ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0", Kind::Shared),
            ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", Kind::Loopback),
            ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0", Kind::LinkLocal),
            ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0", Kind::Private),
            ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0", Kind::Reserved),
            ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0", Kind::Reserved),
            ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0", Kind::Private),
            ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0", Kind::Reserved),
            ("2001:200::", "2002::", "2002:ffff:ffff:ffff::1", "2003::", Kind::Reserved),
            ("2001:db7::", "2001:db8::", "2001:db8:ffff::1", "2001:db9::", Kind::Reserved),
            ("3ffe::1", "3fff::", "3fff:fff::1", "3fff:1000::", Kind::Reserved),
        ] {
            assert_eq!((judged(before), judged(after)), (None, None), "around {first}");
            assert_eq!((judged(first), judged(last)), (Some(kind), Some(kind)), "{first}");
        }
        assert_eq!(judged("0.0.0.0"), Some(Kind::Reserved));
        assert_eq!(judged("255.255.255.255"), Some(Kind::Reserved));
        assert_eq!(judged("223.255.255.255"), None);
    }

    #[test]
    fn metadata_services_are_known_wherever_they_stand() {
        let services = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"];
        for service in services.into_iter().chain(["fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254"]) {
            assert_eq!(judged(service), Some(Kind::Metadata), "{service}");
        }
    }

    #[test]
    fn an_ipv4_address_in_disguise_is_judged_as_itself() {
        for form in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "2002:7f00:1::1",
            "2001:0:1:2:3:4:80ff:fffe",
            "2606:4700::5efe:127.0.0.1",
            "2606:4700::200:5efe:127.0.0.1",
        ] {
            assert_eq!(judged(form), Some(Kind::Loopback), "{form}");
        }
        for form in ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"] {
            assert_eq!(judged(form), None, "{form}");
        }
        for form in ["::8.8.8.8", "2002:808:808::1", "64:ff9b:1::8.8.8.8"] {
            assert_eq!(judged(form), Some(Kind::Reserved), "{form}");
        }
    }

    #[test]
    fn of_ipv6_only_what_was_given_to_hosts_is_public() {
        for public in ["2606:4700:4700::1111", "2a00:1450::1", "2620:fe::fe"] {
            assert_eq!(judged(public), None, "{public}");
        }
        for (special, kind) in [
            ("::", Kind::Reserved),
            ("::1", Kind::Loopback),
            ("fc00::1", Kind::Private),
            ("fdff:ffff::1", Kind::Private),
            ("fe80::1", Kind::LinkLocal),
            ("febf::1", Kind::LinkLocal),
            ("fec0::1", Kind::Private),
            ("ff02::1", Kind::Reserved),
            ("100::1", Kind::Reserved),
            ("2001:10::1", Kind::Reserved),
            ("4000::1", Kind::Reserved),
            ("5f00::1", Kind::Reserved),
        ] {
            assert_eq!(judged(special), Some(kind), "{special}");
        }
    }
}
