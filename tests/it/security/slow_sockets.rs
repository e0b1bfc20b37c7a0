//! A thousand connections that take their time, in four ways, and one caller beside them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tests::{
    caller::Caller,
    database::Database,
    patience::{nonce, until},
    stack::Stack,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How many of each kind.
const EACH: usize = 250;
/// How many requests the caller beside them makes.
const PROBES: usize = 60;
/// An answer that takes longer counts as missing; on an idle machine none is to take 200 ms.
const LONGEST: Duration = Duration::from_secs(5);
/// How long one is waited for, so that it can be told which one is missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two bytes of a slow sender.
const PAUSE: Duration = Duration::from_millis(200);

/// What is sent slowly for a body.
const BODY: &str = r#"{"employee_id":"0190b5a0-0000-7000-8000-000000000000","prompt":"hello from far away"}"#;

/// What a connection does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Sends the head of a request byte by byte.
    SlowHead,
    /// Sends a body byte by byte.
    SlowBody,
    /// Asks for much, and reads nothing.
    NeverReads,
    /// Connects, and that is all.
    Silent,
}

/// What is told of the slow ones.
#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    most_open: AtomicUsize,
    closed: AtomicUsize,
    is_over: AtomicBool,
}

/// Keeps a slow connection open until all is over: whenever the gateway has closed it, another one is opened.
async fn keep_one(kind: Kind, address: String, head: String, counts: Arc<Counts>) {
    while !counts.is_over.load(Ordering::Relaxed) {
        let Ok(stream) = connect(&address).await else {
            sleep(PAUSE).await;
            continue;
        };
        let open = counts.open.fetch_add(1, Ordering::Relaxed) + 1;
        counts.most_open.fetch_max(open, Ordering::Relaxed);
        act(kind, stream, &head, &counts).await;
        counts.open.fetch_sub(1, Ordering::Relaxed);
        counts.closed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // What it does not read is soon more than it takes.
    socket.set_recv_buffer_size(4_096)?;
    socket.connect(address.parse().expect("an address")).await
}

/// Returns when the gateway has closed the connection, or all is over.
async fn act(kind: Kind, mut stream: TcpStream, head: &str, counts: &Counts) {
    let many = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
    let (at_once, slowly) = match kind {
        Kind::SlowHead => ("", head),
        Kind::SlowBody => (head, BODY),
        Kind::NeverReads => (many.as_str(), ""),
        Kind::Silent => ("", ""),
    };
    let mut is_open = stream.write_all(at_once.as_bytes()).await.is_ok();
    let mut bytes = slowly.bytes();
    while is_open && !counts.is_over.load(Ordering::Relaxed) {
        is_open = match kind {
            Kind::NeverReads => {
                sleep(PAUSE).await;
                true
            }
            _ => timeout(PAUSE, stream.read(&mut [0; 256])).await.map_or(true, |read| read.is_ok_and(|n| n > 0)),
        };
        if let Some(byte) = bytes.next() {
            is_open &= stream.write_all(&[byte]).await.is_ok();
        }
    }
}

/// Starts all of them, and returns once they are all open.
async fn start(stack: &Stack, counts: &Arc<Counts>) -> JoinSet<()> {
    let lines = format!("Authorization: Bearer {}\r\nContent-Type: application/json", stack.key);
    let head = format!("POST /api/v1/chat HTTP/1.1\r\nHost: a\r\n{lines}\r\nContent-Length: {}\r\n\r\n", BODY.len());
    let address = stack.url("").trim_start_matches("http://").to_owned();
    let mut tasks = JoinSet::new();
    for kind in [Kind::SlowHead, Kind::SlowBody, Kind::NeverReads, Kind::Silent] {
        for _ in 0..EACH {
            tasks.spawn(keep_one(kind, address.clone(), head.clone(), counts.clone()));
        }
    }
    let all = 4 * EACH;
    until("all slow ones are open", async || (counts.most_open.load(Ordering::Relaxed) >= all).then_some(())).await;
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_connections_are_in_nobodys_way() {
    let stack = Stack::on(Database::Sqlite).set("FRONTDESK_KEY_LIMIT", 1_000_000).start().await;
    let counts = Arc::new(Counts::default());
    let mut slow = start(&stack, &counts).await;
    let (mut times, mut fewest) = (Vec::new(), usize::MAX);
    for _ in 0..PROBES {
        let prompt = nonce();
        let begin = Instant::now();
        // Each by a connection of its own.
        let caller = Caller::of(&stack);
        let answer = timeout(PATIENCE, caller.chat(&stack.agent, &prompt)).await.expect("an answer");
        times.push(begin.elapsed());
        assert_eq!(answer.ok()["content"], prompt);
        fewest = fewest.min(counts.open.load(Ordering::Relaxed));
        sleep(Duration::from_millis(50)).await;
    }
    counts.is_over.store(true, Ordering::Relaxed);
    while slow.join_next().await.is_some() {}
    times.sort();
    let (p50, max) = (times[PROBES / 2], times[PROBES - 1]);
    let opened = counts.closed.load(Ordering::Relaxed);
    println!(
        "slow sockets: {PROBES} of {PROBES} answered beside {} of 4 kinds (at least {fewest} of them at any time, {opened} \
         opened in all), p50 {:.1} ms, max {:.1} ms",
        4 * EACH,
        p50.as_secs_f64() * 1e3,
        max.as_secs_f64() * 1e3
    );
    assert!(max < LONGEST, "an answer took {max:?}");
}
