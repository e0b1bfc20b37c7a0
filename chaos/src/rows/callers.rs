//! Rows in which those outside misbehave: callers and models.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tests::model::{Behaviour, Ending};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use super::{Met, fault};
use crate::{
    calls::{Call, Manner},
    checks::{Check, Fault},
    site::Site,
    traffic::Traffic,
};

/// How long a slow reader's answer is, in bytes.
const LONG: usize = 60_000;
/// How long slow readers stay, in seconds.
const SLOW_FOR: usize = 8;
/// The fault was met when callers had no answer to what they asked first.
pub(super) fn some_hung_up(calls: &[Call]) -> Vec<Fault> {
    let hung_up = calls.iter().filter(|call| call.asks.first().is_some_and(|ask| ask.status.is_none())).count();
    // Those who come before the fault do not, and some are answered first.
    if hung_up >= 30 { Vec::new() } else { vec![fault(Check::Valid, format!("{hung_up} callers hung up"))] }
}

/// So many readers of long streams take a byte a second for a while, then are gone.
pub(super) async fn slow_readers(site: &Site, readers: usize) -> Result<Met> {
    let mut open = Vec::new();
    for reader in 0..readers {
        let text = format!("nonce-slow-{reader}-{}.", "x".repeat(LONG));
        let body = json!({ "agentId": site.stack.agent, "message": text, "stream": true }).to_string();
        site.calls.push(Call::new(Manner::Stream, format!("nonce-slow-{reader}"), [text]));
        let url = &site.stack.gateways[reader % site.stack.gateways.len()].url;
        open.push(ask_slowly(url.trim_start_matches("http://"), &site.stack.key, &body).await?);
    }
    let mut read = 0;
    for _ in 0..SLOW_FOR {
        sleep(Duration::from_secs(1)).await;
        for socket in &mut open {
            let mut byte = [0];
            read +=
                timeout(Duration::from_millis(10), socket.read(&mut byte)).await.map_or(0, |count| count.unwrap_or(0));
        }
    }
    let mut met = Met::at_least("slow readers", open.len() as u64, readers as u64);
    met.notes.push(format!("{read} bytes read"));
    if read < readers {
        met.faults.push(fault(Check::Valid, format!("slow readers got {read} bytes")));
    }
    Ok(met)
}

/// A request on a connection that takes little at a time.
async fn ask_slowly(address: &str, key: &str, body: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(2048)?;
    let mut socket = socket.connect(address.parse()?).await?;
    let head = format!(
        "POST /api/agents/chat HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    Ok(socket)
}

/// The model does one thing after the other wrong, each so many times, and well twice after each.
pub(super) async fn model_misbehaves(site: &Site, traffic: &Traffic, times: usize) -> Result<Met> {
    let wrongs = wrongs();
    let before = site.model.calls().len();
    for wrong in wrongs.iter().cycle().take(wrongs.len() * times) {
        site.model.script(wrong.clone());
        site.model.script(Behaviour::echo());
        site.model.script(Behaviour::echo());
    }
    traffic.ended().await;
    let asked = site.model.calls().len() - before;
    let met = (asked / 3).min(wrongs.len() * times);
    let counts = vec![("wrong answers of the model".to_owned(), met as u64, (wrongs.len() * times) as u64)];
    Ok(Met { counts, ..Met::default() })
}

/// What a model can do wrong. What makes no sense to try again ends its job, the rest is tried again.
fn wrongs() -> Vec<Behaviour> {
    vec![
        Behaviour::rate_limited(None),
        Behaviour::rate_limited(Some("1")),
        Behaviour::quota(),
        Behaviour::wrong_key(),
        Behaviour::context_length(),
        Behaviour::bad_request(),
        Behaviour::unavailable(),
        Behaviour::web_page(502),
        Behaviour::json_text("{\"choices\":"),
        Behaviour::raw("HTTP/1.1 nonsense\r\n\r\n"),
        Behaviour::hang_before_head(),
        Behaviour::hang_after_head(),
        Behaviour::answer(["half of"]).ending(Ending::Cut),
        Behaviour::answer(["no mark"]).marks(false, false),
    ]
}
