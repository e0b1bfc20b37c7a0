//! Addresses that lead into our own network, or nowhere that we call, in every way to write them.

use common::outbound::address::judge;
use tests::canary::own_addresses;

/// Hosts that lead inward, as numbers and as names that need no resolver.
const HOSTS: [&str; 89] = [
    // This machine.
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0x0.0.1",
    "017700000001",
    "0177.0.0.01",
    "0177.0x0.1",
    "0000000000000000000000177.1",
    "127.255.255.254",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",
    "127。0。0。1",
    "localhost",
    "LOCALHOST.",
    "api.localhost",
    "ｌｏｃａｌｈｏｓｔ",
    "loc\u{AD}alhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    // IPv4 inside IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::1]",
    "[2001:0:1:2:3:4:80ff:fffe]",
    "[2606:4700::5efe:127.0.0.1]",
    // No host at all, which Linux takes for this machine.
    "0",
    "0.0.0.0",
    "00000000",
    "0x0",
    "[::]",
    // Private networks.
    "10.0.0.1",
    "10.1",
    "167772161",
    "0xa000001",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "0xC0A80101",
    "[::ffff:192.168.1.1]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fec0::1]",
    // A carrier's, and the wire.
    "100.64.0.1",
    "100.127.255.255",
    "1681915905",
    "169.254.1.1",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[::1%25lo]",
    // Metadata services.
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "0xa9.254.0251.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    // Many at once.
    "224.0.0.1",
    "239.255.255.250",
    "[ff02::1]",
    "255.255.255.255",
    "4294967295",
    // Reserved.
    "240.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "[100::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[4000::1]",
];

/// Texts around a host and port that lead elsewhere than they seem to, or are no URL that we call.
const FORMS: [&str; 29] = [
    "http://me:pw@127.0.0.1:PORT/",
    "http://:pw@127.0.0.1:PORT/",
    "http://example.com@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT@example.com/",
    "http://127.0.0.1:PORT%2f@example.com/",
    "http:127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    "http:\\\\127.0.0.1:PORT\\",
    "HTTP://127.0.0.1:PORT/",
    "https://127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    "127.0.0.1:PORT/",
    " http://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/\t",
    "ht\ntp://127.0.0.1:PORT/",
    "http://127.0.0.1\r\n:PORT/",
    "http://127.0.0.1\u{2003}:PORT/",
    "http://[::1:PORT/",
    "http://127.0.0.1:PORT:80/",
    "http://127.0.0.1:99999/",
    "ftp://127.0.0.1:PORT/",
    "ws://127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/_GET",
    "dict://127.0.0.1:PORT/info",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "file:///etc/passwd",
    "javascript:fetch('http://127.0.0.1:PORT/')",
    "data:text/plain,http://127.0.0.1:PORT/",
];

/// Names that clouds give to their metadata services. Where nobody knows one, it may be saved, and is called in vain.
pub const METADATA_NAMES: [&str; 4] =
    ["metadata.google.internal", "metadata", "instance-data.ec2.internal", "kubernetes.default.svc"];

/// All that has to be refused when it is saved, with `port` wherever there is room for one.
pub fn refused(port: u16) -> Vec<String> {
    let hosts = HOSTS.iter().map(|host| (*host).to_owned()).chain(own_hosts()).chain(own_names());
    let urls = hosts.map(|host| format!("http://{host}:{port}/hook"));
    urls.chain(FORMS.iter().map(|form| form.replace("PORT", &port.to_string()))).collect()
}

/// The address by which this machine calls others, where that is not a public one.
fn own_hosts() -> Vec<String> {
    let inward = own_addresses().into_iter().filter(|address| judge(*address).is_some());
    inward.flat_map(|address| [address.to_string(), format!("[::ffff:{address}]")]).skip(2).collect()
}

/// Names that this machine's own resolver leads to the loopback.
fn own_names() -> Vec<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = hosts.lines().filter_map(|line| line.split('#').next()?.trim().strip_prefix("127."));
    let names = lines.flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned));
    names.filter(|name| name != "localhost").collect()
}
