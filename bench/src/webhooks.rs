//! How soon a webhook leaves after its message's end, while thousands of deliveries wait for receivers that are dead.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use common::domain::time::Millis;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{Instant, timeout},
};

use crate::{
    http::Connection,
    load::on_one_thread,
    request,
    sample::{Sample, Times},
    sites::Site,
};

/// Receivers that take a connection and never answer; each is an address of the loopback. More than a worker tries at a
/// time of such as it does not know yet.
const DEAD: u32 = 1_000;
/// Deliveries to each of them.
const WAITING_EACH: u32 = 10;
/// Connections that submit those.
const SUBMITTERS: u32 = 32;
/// Messages whose webhooks are measured, one after the other.
const MEASURED: u32 = 200;
/// Whoever has no webhook by then has none.
const LIMIT: Duration = Duration::from_secs(120);
const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Fills the queue of deliveries, then measures.
///
/// # Errors
/// When a message is not accepted, or its webhook does not come.
pub async fn run(site: &Site) -> Result<Sample> {
    let (address, key, agent) = (site.address, site.key.clone(), site.agent.clone());
    let submit = move |callback: &str| request::submit_told(address, &key, &agent, callback);
    spawn_blocking(move || on_one_thread(measure(address, submit))).await?
}

async fn measure(address: SocketAddr, submit: impl Fn(&str) -> Vec<u8>) -> Result<Sample> {
    let mut servers = JoinSet::new();
    let silent = TcpListener::bind("0.0.0.0:0").await?;
    let port = silent.local_addr()?.port();
    servers.spawn(hold_all(silent));
    let alive = TcpListener::bind("127.0.0.1:0").await?;
    let callback = format!("http://{}/hook", alive.local_addr()?);
    let (told, mut delays) = mpsc::channel(16);
    servers.spawn(take_all(alive, told));

    let dead: Vec<_> =
        (0..DEAD).map(|n| submit(&format!("http://127.1.{}.{}:{port}/", n / 250, n % 250 + 1))).collect();
    let (request, mut connection) = (submit(&callback), Connection::open(address).await?);
    // A receiver that is known to work is the one that must not wait.
    one(&mut connection, &request, &mut delays).await?;
    fill(address, &dead).await?;
    // Its webhook comes when everything that was submitted before it has run.
    one(&mut connection, &request, &mut delays).await?;
    let (mut times, began) = (Times::default(), Instant::now());
    for _ in 0..MEASURED {
        times.add(one(&mut connection, &request, &mut delays).await?);
    }
    let percentiles = times.p50_and_p99();
    Ok(Sample {
        rate: f64::from(MEASURED) / began.elapsed().as_secs_f64(),
        p50: percentiles.map(|(p50, _)| p50),
        p99: percentiles.map(|(_, p99)| p99),
        ..Sample::default()
    })
}

/// Submits [`WAITING_EACH`] messages for each of `dead`.
async fn fill(address: SocketAddr, dead: &[Vec<u8>]) -> Result<()> {
    let mut tasks = JoinSet::new();
    for submitter in 0..SUBMITTERS {
        let requests: Vec<_> = dead.iter().skip(submitter as usize).step_by(SUBMITTERS as usize).cloned().collect();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            for request in requests.iter().cycle().take(requests.len() * WAITING_EACH as usize) {
                accepted(&mut connection, request).await?;
            }
            anyhow::Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// How long after the end of a message its webhook came.
async fn one(connection: &mut Connection, request: &[u8], delays: &mut mpsc::Receiver<Duration>) -> Result<Duration> {
    accepted(connection, request).await?;
    timeout(LIMIT, delays.recv()).await.context("no webhook")?.context("no receiver")
}

async fn accepted(connection: &mut Connection, request: &[u8]) -> Result<()> {
    let answer = connection.ask(request).await?;
    ensure!(answer.status == 202, "{}: {}", answer.status, String::from_utf8_lossy(connection.body()));
    Ok(())
}

/// Takes every connection, and says nothing.
async fn hold_all(listener: TcpListener) {
    let mut held = Vec::new();
    while let Ok((socket, _)) = listener.accept().await {
        held.push(socket);
    }
}

/// Takes webhooks, and tells how long after the ends of their messages they came.
async fn take_all(listener: TcpListener, told: mpsc::Sender<Duration>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(take(socket, told.clone()));
    }
}

async fn take(mut socket: TcpStream, told: mpsc::Sender<Duration>) -> Result<()> {
    let mut bytes = Vec::new();
    while socket.read_buf(&mut bytes).await? > 0 {
        let Some(body) = whole_body(&bytes)? else { continue };
        let came = Millis::now();
        let event: Value = serde_json::from_slice(body)?;
        let ended: Millis = event["data"]["completed_at"].as_str().context("no end")?.parse()?;
        bytes.clear();
        socket.write_all(TAKEN).await?;
        told.send(came.since(ended)).await?;
    }
    Ok(())
}

/// The body of the one request in `bytes`, once it is whole.
fn whole_body(bytes: &[u8]) -> Result<Option<&[u8]>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length.context("no length")?.value)?.parse()?;
    Ok(bytes.get(head..head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_there_when_all_of_it_is() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(whole_body(&request[..20]).expect("a beginning"), None);
        assert_eq!(whole_body(&request[..request.len() - 1]).expect("a beginning"), None);
        assert_eq!(whole_body(request).expect("a request"), Some(&b"{}"[..]));
    }
}
