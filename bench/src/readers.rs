//! One message that is made while many follow it: events that reach its readers in a second.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use crate::{http::Connection, load::on_one_thread, request, sample::Sample, sites::Site};

/// Readers of each message.
const READERS: u64 = 100;
/// Fragments that each message is made of.
const FRAGMENTS: u64 = 200;
/// How long the agent waits until all readers are there.
const HEAD_START: Duration = Duration::from_secs(1);

/// Submits `turns` messages one after the other and has all readers follow each from its beginning to its end; the
/// agent pauses for `pace` between fragments.
///
/// # Errors
/// When nobody listens there.
pub async fn run(site: &Site, pace: &str, turns: u64) -> Result<Sample> {
    let prompt = format!("/sleep {}s\\n/pace {pace}\\n/tokens {FRAGMENTS}", HEAD_START.as_secs());
    let submit = request::submit(site.address, &site.key, &site.agent, &prompt);
    let (address, key) = (site.address, site.key.clone());
    let read = async move {
        let (mut events, mut complete, mut took) = (0, 0, Duration::ZERO);
        for _ in 0..turns {
            let submitted = Instant::now();
            let id = accepted(address, &submit).await?;
            let found = all(address, request::follow(address, &key, &id)).await?;
            took += submitted.elapsed().saturating_sub(HEAD_START);
            events += found.iter().sum::<u64>();
            complete += found.len() as u64;
        }
        Ok((events, complete, took))
    };
    let (events, complete, took) = spawn_blocking(move || on_one_thread(read)).await??;
    Ok(Sample {
        rate: events as f64 / took.as_secs_f64().max(f64::EPSILON),
        errors: READERS * turns - complete,
        answered: Some(complete as f64),
        ..Sample::default()
    })
}

/// The id of a submitted message.
async fn accepted(address: SocketAddr, request: &[u8]) -> Result<String> {
    let mut connection = Connection::open(address).await?;
    let answer = connection.ask(request).await?;
    ensure!(answer.status == 202, "{}: {}", answer.status, String::from_utf8_lossy(connection.body()));
    let body: Value = serde_json::from_slice(connection.body())?;
    Ok(body["message_id"].as_str().context("no id")?.to_owned())
}

/// How many events each reader had, of those that had the whole message.
async fn all(address: SocketAddr, request: Vec<u8>) -> Result<Vec<u64>> {
    let mut tasks = JoinSet::new();
    for _ in 0..READERS {
        let request = request.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let answer = connection.ask(&request).await?;
            ensure!(answer.status == 200, "{}", answer.status);
            deltas(connection.body()).context("not the whole message")
        });
    }
    Ok(tasks.join_all().await.into_iter().filter_map(Result::ok).collect())
}

/// How many pieces of text are in a stream; `None` when they are not the whole text.
fn deltas(stream: &[u8]) -> Option<u64> {
    let stream = std::str::from_utf8(stream).ok()?;
    let (mut count, mut text, mut end) = (0, String::new(), None);
    let mut name = "";
    for line in stream.lines() {
        if let Some(event) = line.strip_prefix("event: ") {
            name = event;
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let data: Value = serde_json::from_str(data).ok()?;
        match name {
            "message.delta" => {
                text += data["text"].as_str()?;
                count += 1;
            }
            "message.completed" => end = data["content"].as_str().map(str::to_owned),
            _ => {}
        }
    }
    (end? == text).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_messages_count() {
        let event = |name: &str, data: &str| format!("id: 1\nevent: {name}\ndata: {data}\n\n");
        let one = event("message.delta", r#"{"text":"a "}"#);
        let other = event("message.delta", r#"{"text":"b"}"#);
        let end = event("message.completed", r#"{"content":"a b"}"#);
        assert_eq!(deltas(format!("retry: 3000\n\n{one}{other}: keep-alive\n\n{end}").as_bytes()), Some(2));
        assert_eq!(deltas(format!("{one}{end}").as_bytes()), None);
        assert_eq!(deltas(format!("{one}{other}").as_bytes()), None);
    }
}
