//! Requests to receivers: where they go, where they never go, and what comes of them.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::outbound::{
    address::judge,
    guard::{Guard, NoAddress},
    lookup::Lookup,
    refusal::{Kind, Refusal},
};
use futures_util::future::BoxFuture;
use tests::{
    canary::{Canary, own_addresses},
    sink::{Reply, Sink},
};
use worker::deliveries::post::{Parcel, Post, PostError};

/// Each look-up takes the next list of addresses; the last one stays.
#[derive(Debug)]
struct Names(Mutex<VecDeque<Vec<&'static str>>>);

impl Lookup for Names {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let mut lists = self.0.lock().expect("the lists");
        let list = if lists.len() > 1 { lists.pop_front() } else { lists.front().cloned() };
        let addresses = list.unwrap_or_default().into_iter().map(|text| text.parse().expect("an address")).collect();
        Box::pin(async move { Ok(addresses) })
    }
}

fn post(allow_loopback: bool, lists: &[&[&'static str]]) -> (Post, Guard) {
    // Another test of this process may have installed one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let lists = lists.iter().map(|list| list.to_vec()).collect();
    let guard = Guard::with_lookup(allow_loopback, Arc::new(Names(Mutex::new(lists))));
    (Post::new(guard.clone()).expect("a client"), guard)
}

fn parcel(url: &str) -> Parcel {
    Parcel {
        url: url.to_owned(),
        id: "msg_1".to_owned(),
        timestamp: 1_700_000_000,
        signatures: "v1,a v1,b".to_owned(),
        body: r#"{"type":"webhook.test"}"#.into(),
    }
}

/// The sink's own address under a name.
fn named(sink: &Sink, path: &str) -> String {
    sink.url(path).replace("127.0.0.1", "hooks.example")
}

#[tokio::test]
async fn a_parcel_arrives_as_it_is() {
    let sink = Sink::start().await;
    let (post, _) = post(true, &[&["127.0.0.1"]]);
    for url in [sink.url("/x?y=1"), named(&sink, "/x?y=1")] {
        let receipt = post.send(parcel(&url)).await.expect("an answer");
        assert!(receipt.is_taken(), "{receipt:?}");
    }
    for received in sink.received("/x?y=1") {
        assert_eq!((received.method.as_str(), received.body.as_slice()), ("POST", &br#"{"type":"webhook.test"}"#[..]));
        assert_eq!(received.header("content-type"), Some("application/json"));
        assert_eq!(received.header("webhook-id"), Some("msg_1"));
        assert_eq!(received.header("webhook-timestamp"), Some("1700000000"));
        assert_eq!(received.header("webhook-signature"), Some("v1,a v1,b"));
    }
}

/// The resolver gives a public address while the URL is saved, and another one when it is called (DNS rebinding).
#[tokio::test]
async fn a_name_that_leads_inward_when_it_is_called_reaches_nobody() {
    let canary = Canary::start().await;
    let own = canary.sing().await;
    // What is this machine's is listened on; that of others would at least be tried.
    let mut later = vec![
        vec!["127.0.0.1"],
        vec!["127.8.8.8"],
        vec!["::1"],
        vec!["::ffff:127.0.0.1"],
        vec!["0.0.0.0"],
        vec!["::"],
        vec!["64:ff9b::7f00:1"],
        vec!["2002:7f00:1::1"],
        vec!["10.0.0.1"],
        vec!["100.64.0.1"],
        vec!["169.254.169.254"],
        vec!["fd00:ec2::254"],
        vec!["fe80::1"],
        vec!["203.0.112.1", "127.0.0.1"],
        vec!["127.0.0.1", "203.0.112.1"],
    ];
    let inward = own_addresses().into_iter().filter(|address| judge(*address).is_some());
    later.extend(inward.map(|address| vec![&*address.to_string().leak()]));
    let url = format!("http://hooks.example:{}/x", canary.port());
    for addresses in &later {
        let (post, guard) = post(false, &[&["203.0.112.1"], addresses]);
        assert_eq!(guard.check(&url).await, Ok(()), "it was public when it was saved");
        let refused = post.send(parcel(&url)).await.expect_err("no address");
        assert!(matches!(refused, PostError::NoAddress(NoAddress::Refused(Refusal::Address(_)))), "{addresses:?}");
    }
    assert_eq!(canary.connections(), own);
    println!("SSRF, rebinding: {} answers that changed after saving, 0 connections", later.len());
    let (post, _) = post(false, &[&["127.0.0.1"]]);
    let refused = post.send(parcel(&url)).await.expect_err("no address");
    assert_eq!(refused.to_string(), "the address leads to a loopback address; only public addresses are called");
}

#[tokio::test]
async fn one_private_address_among_public_ones_is_one_too_many() {
    let sink = Sink::start().await;
    let (post, _) = post(true, &[&["127.0.0.1", "10.0.0.1"]]);
    let refused = post.send(parcel(&named(&sink, "/x"))).await.expect_err("no address");
    assert_eq!(refused, PostError::NoAddress(NoAddress::Refused(Refusal::Address(Kind::Private))));
    assert!(sink.received("/x").is_empty());
}

#[tokio::test]
async fn a_number_for_a_host_asks_no_resolver_and_is_refused_all_the_same() {
    let sink = Sink::start().await;
    let (post, _) = post(false, &[&["203.0.112.1"]]);
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let url = sink.url("/x").replace("127.0.0.1", host);
        let refused = post.send(parcel(&url)).await.expect_err("no address");
        assert_eq!(refused, PostError::Refused(Refusal::Address(Kind::Loopback)), "{url}");
    }
    assert!(sink.received("/x").is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_is_no_success() {
    let sink = Sink::start().await;
    let (post, _) = post(true, &[&["127.0.0.1"]]);
    for status in [301, 302, 303, 307, 308] {
        sink.script("/x", Reply::Status(status, vec![("location", sink.url("/secret"))]));
        let receipt = post.send(parcel(&sink.url("/x"))).await.expect("an answer");
        assert!(receipt.status == status && !receipt.is_taken(), "{receipt:?}");
    }
    assert!(sink.received("/secret").is_empty());
}

#[tokio::test]
async fn answers_and_their_absence_are_told_apart() {
    let sink = Sink::start().await;
    let (post, _) = post(true, &[&[]]);
    sink.script("/x", Reply::Status(503, vec![("retry-after", "120".to_owned())]));
    let receipt = post.send(parcel(&sink.url("/x"))).await.expect("an answer");
    assert_eq!((receipt.status, receipt.retry_after), (503, Some(Duration::from_secs(120))));
    sink.script("/x", Reply::status(410));
    assert!(post.send(parcel(&sink.url("/x"))).await.expect("an answer").is_gone());
    sink.script("/x", Reply::Cut);
    assert_eq!(post.send(parcel(&sink.url("/x"))).await, Err(PostError::Broken));
    let closed = sink.url("/x");
    drop(sink);
    assert_eq!(post.send(parcel(&closed)).await, Err(PostError::Connect));
    let unknown = post.send(parcel("http://hooks.example/x")).await;
    assert_eq!(unknown, Err(PostError::NoAddress(NoAddress::Unknown)));
}
