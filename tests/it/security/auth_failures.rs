//! Failed authentications: from addresses that a caller makes up, and at two gateways. A19.

use std::time::Duration;

use common::domain::key::Secret;
use futures_util::{StreamExt as _, stream};
use tests::{answer::Answer, caller::Caller, database::Database, stack::Stack};
use tokio::time::sleep;

const HEALTH: &str = "/api/v1/health";
/// Failures of one address that are answered 401 within a minute: the default.
const LIMIT: usize = 10;
const FORGED: usize = 200;
/// Behind the one proxy that is trusted.
const THROUGH_PROXY: usize = 30;
const PROXY: [u8; 4] = [127, 0, 0, 2];

/// Somebody with a key of the right form that does not exist.
fn stranger(stack: &Stack) -> Caller {
    Caller::of(stack).with_key(Secret::generate("sk-").reveal())
}

/// The headers by which callers like to be somebody else, with the `n`th address that they make up.
fn forged(n: usize) -> Vec<(&'static str, String)> {
    let address = format!("198.51.{}.{}", n / 256, n % 256);
    let forwarded = |value: String| vec![("x-forwarded-for", value)];
    match n % 10 {
        0 => forwarded(address),
        1 => forwarded(format!("{address}, 203.0.113.7")),
        2 => forwarded(format!("[2001:db8:{n:x}::1]:4711")),
        3 => forwarded(format!("{address}, 127.0.0.2")),
        4 => forwarded(format!("127.0.0.{n}")),
        5 => forwarded(format!("nonsense {n},,")),
        6 => vec![("x-forwarded-for", address), ("x-forwarded-for", "127.0.0.2".to_owned())],
        7 => vec![("forwarded", format!("for={address}"))],
        8 => vec![("x-real-ip", address.clone()), ("true-client-ip", address.clone()), ("cf-connecting-ip", address)],
        _ => vec![("x-client-ip", address.clone()), ("x-forwarded-for", format!("{address}:{n}"))],
    }
}

fn with_all(caller: &Caller, headers: Vec<(&'static str, String)>) -> Caller {
    headers.into_iter().fold(caller.clone(), |caller, (name, value)| caller.with_header(name, &value))
}

/// How many of the callers, some of them at once, are answered 401; all others have to be told that they failed too
/// often.
async fn unauthorized(callers: Vec<Caller>) -> usize {
    let asked = stream::iter(callers).map(async |caller: Caller| caller.get(HEALTH).await).buffer_unordered(8);
    let answers: Vec<Answer> = asked.collect().await;
    let (first, further): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 401);
    first.iter().for_each(|answer| drop(answer.fault(401, "unauthorized")));
    further.iter().for_each(|answer| drop(answer.fault(429, "too_many_failures")));
    first.len()
}

#[tokio::test]
async fn a_made_up_address_is_no_new_one() {
    let stack = Stack::on(Database::Sqlite).workers(0).set("FRONTDESK_TRUSTED_PROXIES", "127.0.0.2").start().await;
    let wrong = stranger(&stack);

    let untrusted = wrong.from([127, 0, 0, 77]);
    let callers = (0..FORGED).map(|n| with_all(&untrusted, forged(n))).collect();
    assert_eq!(unauthorized(callers).await, LIMIT, "the peer is the address, whatever it says");

    // The proxy writes the address that it sees behind what came with the request.
    let proxy = wrong.from(PROXY);
    let clients = ["192.0.2.1", "192.0.2.2", "2001:db8::5"];
    for client in clients {
        let forged = (0..THROUGH_PROXY).map(|n| format!("198.51.100.{n}, {client}"));
        let callers = forged.map(|hops| proxy.with_header("x-forwarded-for", &hops)).collect();
        assert_eq!(unauthorized(callers).await, LIMIT, "{client} is the right-most hop that is not trusted");
    }
    let doubled = (0..THROUGH_PROXY).map(|n| {
        proxy.with_header("x-forwarded-for", &format!("198.51.101.{n}")).with_header("x-forwarded-for", "192.0.2.9")
    });
    assert_eq!(unauthorized(doubled.collect()).await, LIMIT, "the last line is the proxy's");

    let own = Caller::of(&stack);
    own.from([127, 0, 0, 77]).get(HEALTH).await.ok();
    own.from(PROXY).with_header("x-forwarded-for", "192.0.2.1").get(HEALTH).await.ok();
    let tried = FORGED + (clients.len() + 1) * THROUGH_PROXY;
    println!(
        "forged addresses: {tried} failures of 5 addresses, 401 for {LIMIT} of each, the rest 429; 2 valid keys passed"
    );
}

/// Whoever has failed often enough at one gateway is over the limit at the other as well, as soon as it was told.
#[tokio::test]
async fn failures_at_one_gateway_count_at_the_other() {
    let stack = Stack::on(Database::Sqlite).gateways(2).workers(0).start().await;
    let [one, other] = [0, 1].map(|index| stranger(&stack).at(&stack.gateways[index]).from([127, 0, 0, 77]));
    assert_eq!(unauthorized(vec![one; LIMIT + 5]).await, LIMIT);

    // Without being told, it would answer 401 ten times.
    let mut answered = 0;
    while other.get(HEALTH).await.status == 401 {
        answered += 1;
        assert!(answered < LIMIT, "the other gateway counts for itself");
        sleep(Duration::from_millis(500)).await;
    }
    other.get(HEALTH).await.fault(429, "too_many_failures");
    for gateway in &stack.gateways {
        Caller::of(&stack).at(gateway).from([127, 0, 0, 77]).get(HEALTH).await.ok();
        stranger(&stack).at(gateway).from([127, 0, 0, 78]).get(HEALTH).await.fault(401, "unauthorized");
    }
    println!("failures over 2 gateways: 401 for {LIMIT} + {answered}, then 429 at both; 2 valid keys passed");
}
