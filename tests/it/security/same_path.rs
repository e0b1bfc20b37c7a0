//! Keys that are no keys, for whatever reason: one statement, one hash and one answer each, as seen on the wire
//! to the database.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use common::domain::key::{Secret, hash};
use serde_json::Value;
use tests::{
    answer::Answer,
    database::Database,
    postgres_tap::{Executed, PostgresTap},
    raw,
    stack::Stack,
};
use tokio::time::sleep;

/// Attempts of each kind.
const TIMES: usize = 6;
/// What a gateway does by itself from time to time: it says that it runs, in a table for that, in a transaction. An
/// attempt beside which it did is made again, at most so often.
const BY_ITSELF: [&str; 3] = ["\"gateways\"", "BEGIN", "COMMIT"];
const AGAIN: usize = 10;

/// What is shown as a key, and what of it is hashed.
struct Shown {
    header: Vec<u8>,
    hashed: String,
}

/// The bearer token `key`.
fn bearer(key: &str) -> Shown {
    Shown { header: format!("Authorization: Bearer {key}").into_bytes(), hashed: key.to_owned() }
}

/// A header that shows no key, or not one alone.
fn nothing(header: String) -> Shown {
    Shown { header: header.into_bytes(), hashed: String::new() }
}

fn secret() -> String {
    Secret::generate("sk-").reveal().to_owned()
}

/// A kind of keys that open nothing, and how one is made that has not been there, with a number that has not either.
type Kind = (&'static str, fn(&Stack, u32) -> Shown);

const KINDS: [Kind; 12] = [
    ("unknown", |_, _| bearer(&secret())),
    ("of a wrong checksum", |_, _| bearer(&format!("{}?", &secret()[..51]))),
    ("a right one and more", |stack, n| bearer(&format!("{}{n}", stack.key))),
    ("a right one in capitals", |stack, n| bearer(&format!("{}{n}", stack.key.to_uppercase()))),
    ("revoked", |stack, _| bearer(&revoked(stack))),
    ("short", |_, n| bearer(&format!("k{n}"))),
    ("long", |_, n| bearer(&format!("{}{n}", "x".repeat(6_000)))),
    ("of SQL", |_, n| bearer(&format!("' OR 1=1; -- {n}"))),
    ("of no text", |_, n| no_text(n)),
    ("none", |_, _| nothing("X-Nothing: 1".to_owned())),
    ("of another scheme", |_, _| nothing(format!("Authorization: Basic {}", secret()))),
    ("two", |_, _| nothing(format!("Authorization: Bearer {}\r\nX-API-Key: {}", secret(), secret()))),
];

fn revoked(stack: &Stack) -> String {
    let made = stack.admin(&["key", "create", &stack.account, "doomed"]);
    stack.admin(&["key", "revoke", made["id"].as_str().expect("an id")]);
    made["secret"].as_str().expect("a secret").to_owned()
}

/// Bytes that are no UTF-8, each of which counts as U+FFFD.
fn no_text(number: u32) -> Shown {
    let header = [b"Authorization: Bearer \xff\xfe", number.to_string().as_bytes()].concat();
    Shown { header, hashed: format!("\u{fffd}\u{fffd}{number}") }
}

async fn ask(stack: &Stack, header: &[u8]) -> Answer {
    let request = [b"GET /api/v1/health HTTP/1.1\r\nHost: frontdesk\r\n", header, b"\r\n\r\n"].concat();
    raw::exchange(&stack.url(""), request).await
}

/// All of an answer but its id and time.
fn shown(answer: &Answer) -> (u16, BTreeMap<String, String>, Value) {
    let own = ["date", "x-request-id"];
    let headers = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect();
    let mut body = answer.json();
    body.as_object_mut().expect("an object").remove("request_id");
    (answer.status, headers, body)
}

/// What came of one attempt.
struct Attempt {
    shown: Shown,
    answer: Answer,
    took: Duration,
    /// All that the gateway has asked the database meanwhile.
    executed: Vec<Executed>,
}

async fn attempt(stack: &Stack, tap: &PostgresTap, make: impl Fn() -> Shown) -> Attempt {
    for _ in 0..AGAIN {
        let shown = make();
        // What was remembered is forgotten.
        sleep(Duration::from_millis(3)).await;
        tap.take();
        let begun = Instant::now();
        let answer = ask(stack, &shown.header).await;
        let (took, executed) = (begun.elapsed(), tap.take());
        if !executed.iter().any(|executed| BY_ITSELF.iter().any(|words| executed.sql.contains(words))) {
            return Attempt { shown, answer, took, executed };
        }
    }
    panic!("the gateway did something by itself beside each of {AGAIN} attempts");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_key_costs_the_same() {
    let settings = Stack::on(Database::Postgres).gateways(0).workers(0);
    // Nothing is remembered, so that each attempt is as a first one.
    let settings = settings.set("FRONTDESK_CACHE_TTL", "1ms").set("FRONTDESK_AUTH_FAILURE_LIMIT", 1_000);
    let mut stack = settings.start().await;
    let direct = stack.database_url.clone();
    let tap = PostgresTap::start(&direct).await;
    stack.set("DATABASE_URL", tap.url(&direct));
    stack.add_gateway().await;
    // The operators go another way.
    stack.set("DATABASE_URL", &direct);

    let right = attempt(&stack, &tap, || bearer(&stack.key)).await;
    right.answer.ok();
    let [lookup] = &right.executed[..] else { panic!("a valid key costs {:?}", right.executed) };
    let number = AtomicU32::new(0);
    let (mut first, mut attempts, mut told) = (None, 0, String::new());
    for (kind, make) in KINDS {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let wrong = attempt(&stack, &tap, || make(&stack, number.fetch_add(1, Ordering::Relaxed))).await;
            wrong.answer.fault(401, "unauthorized");
            let expected = Executed { values: values(lookup, &right.shown, &wrong.shown), ..lookup.clone() };
            assert_eq!(wrong.executed, [expected], "{kind}: not the one statement, with the one hash");
            assert_eq!(first.get_or_insert_with(|| shown(&wrong.answer)), &shown(&wrong.answer), "{kind}");
            attempts += 1;
            times.push(wrong.took);
        }
        times.sort();
        told += &format!(" {kind} {:.1?},", times[TIMES / 2]);
    }
    println!(
        "same path: {attempts} attempts, a statement and a hash each; the answers are alike; medians:{}",
        told.trim_end_matches(',')
    );
}

/// What is bound to the look-up of `good`, with the hash of `wrong` in place of its own.
fn values(lookup: &Executed, good: &Shown, wrong: &Shown) -> Vec<Option<Vec<u8>>> {
    let (right, other) = (hash(&good.hashed), hash(&wrong.hashed));
    let hashes = lookup.values.iter().flatten().filter(|value| value[..] == right).count();
    assert_eq!(hashes, 1, "a key is looked up by its hash: {lookup:?}");
    let swap = |value: &Option<Vec<u8>>| {
        let is_hash = value.as_ref().is_some_and(|value| value[..] == right);
        if is_hash { Some(other.to_vec()) } else { value.clone() }
    };
    lookup.values.iter().map(swap).collect()
}
