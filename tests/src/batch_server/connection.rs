//! One connection to the scripted server of batches.

use std::{io, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Asked, Held, KEY, Mishap, Route, State};

const MOST_HEADERS: usize = 64;
const BATCHES: &str = "/api/v1/batches";

/// A status, a kind of body, and the body.
type Answer = (u16, &'static str, String);

/// Serves requests until either side closes the connection.
pub(super) async fn serve(mut socket: TcpStream, state: Arc<State>) {
    let mut bytes = Vec::new();
    while let Ok(Some(asked)) = read_request(&mut socket, &mut bytes).await {
        let mishap = state.change(|script| script.take_note(asked.clone()));
        if carry_out(mishap, &asked, &mut socket, &state).await.is_err() {
            return;
        }
    }
}

/// Answers well, or as the script says. An error ends the connection.
async fn carry_out(mishap: Option<Mishap>, asked: &Asked, socket: &mut TcpStream, state: &State) -> io::Result<()> {
    match mishap {
        None => send(answer(asked, state).await, &[], usize::MAX, socket).await,
        Some(Mishap::Answer(status, headers, body)) => {
            send((status, "application/json", body.to_string()), &headers, usize::MAX, socket).await
        }
        Some(Mishap::Cut) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Mishap::CutAfter(bytes)) => {
            send(answer(asked, state).await, &[], bytes, socket).await?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Mishap::Held(gate)) => {
            let answer = answer(asked, state).await;
            gate.opened().await;
            send(answer, &[], usize::MAX, socket).await
        }
    }
}

async fn send(
    (status, kind, body): Answer,
    headers: &[(&'static str, String)],
    most: usize,
    socket: &mut TcpStream,
) -> io::Result<()> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Scripted\r\n{headers}content-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    if most > 0 {
        socket.write_all(head.as_bytes()).await?;
    }
    socket.write_all(&body.as_bytes()[..most.min(length)]).await?;
    socket.flush().await
}

/// A good answer, or Frontdesk's own refusal.
async fn answer(asked: &Asked, state: &State) -> Answer {
    if asked.headers.get("authorization").is_none_or(|given| *given != format!("Bearer {KEY}")) {
        return object(401, json!({ "error": "a valid API key is needed", "code": "unauthorized", "request_id": "r" }));
    }
    match asked.route {
        Route::Health => object(200, json!({ "status": "ok" })),
        Route::Submit => submit(asked, state),
        _ if asked.path == BATCHES => {
            let script = state.script();
            let batches: Vec<_> = script.batches.iter().rev().map(|batch| batch.object(script.let_through)).collect();
            object(200, json!({ "batches": batches, "next_cursor": null }))
        }
        Route::Look => look(asked, state).await,
        Route::Results => with_batch(asked, state, |batch, let_through, page| {
            let after = number(asked, "after").unwrap_or(0);
            (200, "application/x-ndjson", batch.results(after, let_through, page))
        }),
        Route::Change if asked.path.ends_with("/retry-failed") => submit(asked, state),
        Route::Change => {
            state.change(|script| script.batches.iter_mut().for_each(|batch| batch.cancelled = true));
            with_batch(asked, state, |batch, let_through, _| object(200, batch.object(let_through)))
        }
    }
}

/// The same key and body is the same batch.
fn submit(asked: &Asked, state: &State) -> Answer {
    let key = asked.headers.get("idempotency-key").map(String::as_str).unwrap_or_default();
    state.change(|script| {
        let let_through = script.let_through;
        let known = script.batches.iter().find(|batch| batch.idempotency_key == key);
        match known {
            Some(batch) if batch.body == asked.body => object(202, batch.object(let_through)),
            Some(_) => object(422, json!({ "error": "another body", "code": "idempotency_key_reused" })),
            None => {
                let batch = Held::new(key, &asked.body);
                let answer = object(202, batch.object(let_through));
                script.batches.push(batch);
                answer
            }
        }
    })
}

/// The batch once it has ended, or when the wait is over.
async fn look(asked: &Asked, state: &State) -> Answer {
    let wait = Duration::from_secs(number(asked, "wait").unwrap_or(0) as u64);
    let ended = |script: &super::Script| script.batches.iter().all(|batch| batch.has_ended(script.let_through));
    state.until(wait, ended).await;
    with_batch(asked, state, |batch, let_through, _| object(200, batch.object(let_through)))
}

fn with_batch(asked: &Asked, state: &State, answer: impl FnOnce(&Held, usize, usize) -> Answer) -> Answer {
    let script = state.script();
    match script.batches.iter().find(|batch| asked.path.contains(&batch.id.to_string())) {
        Some(batch) => answer(batch, script.let_through, script.page),
        None => object(404, json!({ "error": "there is no such batch", "code": "batch_not_found", "request_id": "r" })),
    }
}

fn object(status: u16, body: Value) -> Answer {
    (status, "application/json", body.to_string())
}

/// The number behind `name=` in the query.
fn number(asked: &Asked, name: &str) -> Option<usize> {
    let (_, query) = asked.path.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// The next request; `None` when the caller has closed the connection.
async fn read_request(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    loop {
        if let Some((asked, length)) = parse(bytes)? {
            bytes.drain(..length);
            return Ok(Some(asked));
        }
        if socket.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// The request at the beginning of `bytes` and its length; `None` while it is not complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Asked, usize)>> {
    let mut space = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut space);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let value = |header: &httparse::Header<'_>| String::from_utf8_lossy(header.value).into_owned();
    let headers: std::collections::HashMap<_, _> =
        request.headers.iter().map(|header| (header.name.to_lowercase(), value(header))).collect();
    let length = headers.get("content-length").map(|length| length.parse()).transpose().map_err(io::Error::other)?;
    let length: usize = length.unwrap_or(0);
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    let path = request.path.unwrap_or_default().to_owned();
    let route = route(request.method.unwrap_or_default(), &path);
    Ok(Some((Asked { route, path, headers, body: body.to_vec() }, head + length)))
}

fn route(method: &str, path: &str) -> Route {
    match (method, path.split('?').next().unwrap_or_default()) {
        ("POST", BATCHES) => Route::Submit,
        ("POST", _) => Route::Change,
        (_, path) if path.ends_with("/results") => Route::Results,
        (_, path) if path.starts_with(BATCHES) => Route::Look,
        _ => Route::Health,
    }
}
