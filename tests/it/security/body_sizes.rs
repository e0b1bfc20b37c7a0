//! Bodies just within the limit and just above it, declared and in chunks, enormous and compressed, on every route that
//! takes JSON. A15.

use std::process::Command;

use tests::{
    answer::Answer,
    caller::Caller,
    database::Database,
    patience::nonce,
    raw::{self, Connection},
    stack::Stack,
};

use super::json_routes::{JsonRoute, json_routes};

const LIMIT: usize = 65_536;
/// More than a gateway needs for all of these bodies, and far less than one bomb holds, in KiB.
const ROOM_KIB: u64 = 64 * 1024;
const BOMBS_AT_ONCE: usize = 4;

fn request(stack: &Stack, route: &JsonRoute, lines: &[&str], body: &[u8]) -> Vec<u8> {
    let key = format!("Authorization: Bearer {}", stack.key);
    let lines = [&[key.as_str(), "Content-Type: application/json"], lines].concat();
    [raw::head(&format!("{} {}", route.method, route.path), &lines).as_bytes(), body].concat()
}

async fn declared(stack: &Stack, route: &JsonRoute, lines: &[&str], body: &[u8]) -> Answer {
    let length = format!("Content-Length: {}", body.len());
    let request = request(stack, route, &[&[length.as_str()], lines].concat(), body);
    raw::exchange(&stack.url(""), request).await
}

async fn chunked(stack: &Stack, route: &JsonRoute, body: &[u8]) -> Answer {
    let request = request(stack, route, &["Transfer-Encoding: chunked"], &raw::chunked(body, 9_000));
    raw::exchange(&stack.url(""), request).await
}

/// The good body, made `length` bytes long by blanks within.
fn filled(route: &JsonRoute, length: usize) -> Vec<u8> {
    let (before, last) = route.body.split_at(route.body.len() - 1);
    format!("{before}{}{last}", " ".repeat(length - route.body.len())).into_bytes()
}

#[tokio::test]
async fn every_route_counts_what_comes() {
    let stack = Stack::on(Database::Sqlite).set("FRONTDESK_KEY_LIMIT", 100_000).start().await;
    let routes = json_routes(&stack).await;
    let mut requests = 0;
    for route in &routes {
        for (length, fits) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
            let body = filled(route, length);
            for answer in [declared(&stack, route, &[], &body).await, chunked(&stack, route, &body).await] {
                if fits {
                    assert!((200..300).contains(&answer.status), "{} of {length} bytes: {answer}", route.path);
                } else {
                    answer.fault(413, "body_too_large");
                }
                requests += 1;
            }
        }
        for length in ["10000000000", "9223372036854775808"] {
            // Not a byte of it is sent: who waited for them could not answer.
            let head = request(&stack, route, &[&format!("Content-Length: {length}")], b"");
            raw::exchange(&stack.url(""), head).await.fault(413, "body_too_large");
            requests += 1;
        }
    }
    requests += on_routes_without_json(&stack).await;
    println!("body sizes: {} routes, {requests} requests, 413 from byte 65,537 on", routes.len());
}

/// Batches have a limit of their own, and who asks for nothing but sends much is answered and cut off.
async fn on_routes_without_json(stack: &Stack) -> usize {
    let key = format!("Authorization: Bearer {}", stack.key);
    let lines = ["Content-Length: 10000000000", "Content-Type: application/x-ndjson", &key];
    let head = raw::head("POST /api/v1/batches", &lines);
    assert_eq!(raw::exchange(&stack.url(""), head).await.status, 413);
    let bodiless = ["GET /api/v1/health", "GET /api/agents", "GET /api/v1/messages", "GET /livez", "GET /openapi.json"];
    for line in bodiless {
        let mut connection = Connection::to(&stack.url("")).await;
        let answer = connection.send(raw::head(line, &lines)).await.answer().await;
        assert_eq!(answer.status, 200, "{line}: {answer}");
        connection.send(vec![b'x'; 1 << 20]).await;
        assert!(connection.rest().await.is_empty(), "{line}: it went on");
    }
    1 + bodiless.len()
}

#[tokio::test]
async fn nothing_compressed_is_unpacked() {
    let stack = Stack::on(Database::Sqlite).set("FRONTDESK_KEY_LIMIT", 100_000).start().await;
    let routes = json_routes(&stack).await;
    let before = peak_kib(&stack);
    let mut requests = 0;
    for route in &routes {
        let body = route.body.as_bytes();
        let gzipped = gzip(body, 1);
        for (encoding, packed) in [
            ("gzip", &gzipped),
            ("x-gzip", &gzipped),
            ("gzip, gzip", &gzip(&gzipped, 1)),
            ("br", &brotli(body)),
            ("zstd", &zstd(body)),
        ] {
            let answer = declared(&stack, route, &[&format!("Content-Encoding: {encoding}")], packed).await;
            answer.fault(400, "invalid_request");
            requests += 1;
        }
    }
    let bombs = [("gzip", gzip(b"0", 60_000_000)), ("zstd", zstd_bomb())];
    for (encoding, bomb) in &bombs {
        assert!(bomb.len() <= LIMIT, "{encoding}: {} bytes would not be read at all", bomb.len());
        for route in &routes {
            let line = [&*format!("Content-Encoding: {encoding}")];
            let thrown = (0..BOMBS_AT_ONCE).map(|_| declared(&stack, route, &line, bomb));
            for answer in futures_util::future::join_all(thrown).await {
                answer.fault(400, "invalid_request");
                requests += 1;
            }
        }
    }
    let grown = peak_kib(&stack).saturating_sub(before);
    assert!(grown < ROOM_KIB, "the gateway grew by {grown} KiB");
    let prompt = nonce();
    assert_eq!(Caller::of(&stack).chat(&stack.agent, &prompt).await.ok()["content"], prompt);
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 1.0, "something compressed was taken");
    println!(
        "compressed bodies: {} routes, {requests} requests, all 400; the gateway's peak grew by {grown} KiB",
        routes.len()
    );
}

/// The most memory that the first gateway has had, in KiB.
fn peak_kib(stack: &Stack) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stack.gateways[0].process.id()));
    let status = status.expect("a running gateway");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// `bytes` so many times, packed with gzip.
fn gzip(bytes: &[u8], times: usize) -> Vec<u8> {
    let program =
        "import gzip, sys; sys.stdout.buffer.write(gzip.compress(bytes.fromhex(sys.argv[1]) * int(sys.argv[2])))";
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let out = Command::new("python3").args(["-c", program, &hex, &times.to_string()]).output().expect("python3");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// A brotli stream (RFC 7932) of one block that is not compressed.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).expect("a short body");
    let header = (length << 4 | 1 << 20).to_le_bytes();
    [&header[..3], bytes, &[3]].concat()
}

/// A Zstandard frame (RFC 8878) of one raw block.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a short body");
    let block = (u32::from(length) << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, length][..], &block[..3], bytes].concat()
}

/// A Zstandard frame of 16,000 blocks, each of which stands for 128 KiB: 2 GB.
fn zstd_bomb() -> Vec<u8> {
    let (blocks, size) = (16_000, 131_072_u32);
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    for n in 1..=blocks {
        let last = u32::from(n == blocks);
        frame.extend(&(size << 3 | 1 << 1 | last).to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}
